"""The page of other libraries' schedules, from the table that tests/promises/test_peers.py compares step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests" / "promises"))

from parity.peers import PEERS, UNSAID
from parity.rows import Peer

__all__ = ["peers_page"]

INTRODUCTION = """# From another library

A schedule of another library, and the options of lrkit that give the same learning rate at each optimizer step. Use
them with `lrkit show`, `lrkit train`, or in a file. The runs have 60 optimizer steps, sometimes 47 to 120, and a base
learning rate of 1. A test compares both curves at each step with the formula of the named file; where they differ on
purpose, the sentence below says how, and the test asserts the difference."""


def peers_page(peers: Iterable[Peer] = tuple(PEERS)) -> dict[str, str]:
    """The page: for each library its rows, and what cannot be said."""
    parts = [INTRODUCTION]
    for peer in peers:
        parts += [f"## {peer.name}", f"{peer.name} {peer.source}", *_rows(peer)]
    return {"peers.md": "\n\n".join(parts) + "\n"}


def _rows(peer: Peer) -> Iterator[str]:
    for row in peer.rows:
        yield f"`{row.call}`"
        yield f"```shell\n{row.lrkit}\n```" if row.lrkit else f"Not possible: {UNSAID[f'{peer.name}: {row.call}']}."
        if row.convention:
            differs = f", which is {row.difference:.1g} of the base rate at most" if row.difference else ""
            yield f"{row.convention}{differs}."
