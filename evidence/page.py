"""The page docs/evidence.md: each claim with its source, protocol, table, figure and verdict."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from evidence.claim import Claim, Finding, markdown

__all__ = ["save_finding", "write"]

HEAD = """# Evidence

This page tests published claims about learning rates with lrkit. Each section has the claim and its source ("Said"),
the experiment ("Done"), and the result. `make evidence` writes the page. Each experiment is a command that you can run
and change.

The rule for each verdict was fixed before the experiment. "Done" states it. If it states none, a difference counts if
it has the claimed sign at 95 % (Student's t over the seeds, paired). "Not separable" means that these seeds cannot
decide; "not reproduced" means that the result differs from the claim. ± is a 95 % interval over seeds. Validation data
choose the rates; test data, which have no part in the choice, judge them. The tasks are small: they show that an effect
exists, not its size elsewhere. *Rate* means learning rate.
"""
QUICK = "**Quick: a few steps of each run. This page is a test of the scripts; its figures mean nothing.**\n"


def save_finding(name: str, finding: Finding, seconds: float, runs: Path, pictures: Path) -> None:
    """Save a finding next to its runs, so that the page can be written without a repetition of all experiments."""
    if finding.picture is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        finding.picture.savefig(pictures / f"{name}.png")
    file = _finding_file(runs, name)
    before = json.loads(file.read_text())["seconds"] if file.exists() else 0.0  # of the call that trained
    said = {"verdict": finding.verdict, "words": finding.words, "table": markdown(finding.table)}
    file.write_text(json.dumps({**said, "seconds": max(before, seconds)}, indent=1))


def write(page: Path, claims: Mapping[str, Claim], runs: Path, quick: bool) -> None:
    """Write the page with all claims that have a finding."""
    files = {name: _finding_file(runs, name) for name in claims}
    kept = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    lines = [HEAD, *([QUICK] if quick else []), "| claim | verdict |", "| --- | --- |"]
    lines += [
        f"| [{claims[name].title}](#{anchor(claims[name].title)}) | {said['verdict']} |" for name, said in kept.items()
    ]
    for name, said in kept.items():
        lines += _render_section(claims[name], said, page.with_suffix("") / f"{name}.png")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pytorch-lightning", "mnist1d"))
    minutes = sum(said["seconds"] for said in kept.values()) / 60
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    lines += ["", f"All experiments took {minutes:.0f} minutes on {where}."]
    page.write_text("\n".join(lines) + "\n")


def _render_section(claim: Claim, said: Mapping[str, Any], drawn: Path) -> list[str]:
    verdict = said["verdict"]
    picture = [f"![{claim.title}]({drawn.parent.name}/{drawn.name})", ""] if drawn.exists() else []
    return [
        "", f"## {claim.title}", "", f"**Said.** {claim.says}", "", f"**Done.** {claim.protocol}", "",
        *(f"    {command}" for command in claim.commands), "", said["table"], "", *picture,
        f"**{verdict[:1].upper()}{verdict[1:]}.** {said['words']}",
    ]  # fmt: skip


def _finding_file(runs: Path, name: str) -> Path:
    return runs / f"{name}.json"


def anchor(title: str) -> str:
    """Return GitHub's anchor of a heading.

    >>> anchor("Too large, too small")
    'too-large-too-small'
    """
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
