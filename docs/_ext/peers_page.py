"""The page of other libraries' schedules, from the table that tests/promises/test_peers.py compares step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests" / "promises"))

from parity.peers import PEERS, UNSAID
from parity.rows import Peer

__all__ = ["peers_page"]

STEPS = 60  # of a run, as the introduction says

INTRODUCTION = """# From another library

A schedule of another library, and the options of lrkit that give the same learning rate at each optimizer step. Use
them with `lrkit show`, `lrkit train` or in a file; lengths may also be `5%` or `2ep`. Unless a line says otherwise, a
run has 60 optimizer steps. A test compares the two curves at each step, with the formula of the named file. Where the
libraries differ by convention, the sentence below says how; the test asserts the difference."""


def peers_page(peers: Iterable[Peer] = tuple(PEERS)) -> dict[str, str]:
    """The page: for each library its rows, and what lrkit cannot express."""
    parts = [INTRODUCTION]
    for peer in peers:
        parts += [f"## {peer.name}", f"{peer.name} {peer.source}", *_rows(peer)]
    return {"peers.md": "\n\n".join(parts) + "\n"}


def _rows(peer: Peer) -> Iterator[str]:
    for row in peer.rows:
        yield f"`{row.call}`"
        yield f"```shell\n{row.lrkit}\n```" if row.lrkit else f"Not possible: {UNSAID[f'{peer.name}: {row.call}']}."
        notes = [] if row.steps == STEPS else [f"The run has {row.steps} optimizer steps."]
        if row.epoch:
            notes.append(f"An epoch has {row.epoch} optimizer steps.")
        if row.convention:
            differs = f": a difference of at most {row.difference:.1g} of the base rate" if row.difference else ""
            notes.append(f"{row.convention}{differs}.")
        if notes:
            yield " ".join(notes)
