"""Run the experiments and write the page.

python -m evidence                    all of them, into docs/evidence.md and docs/evidence/
python -m evidence decay batch_size   these; the others' parts of the page stay
python -m evidence --quick            a few steps of each, into outputs/, to see that all of it works
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib import import_module, metadata
from pathlib import Path

import torch

from evidence.claim import Claim, Finding, markdown
from evidence.lab import Lab

#: In the order of the page; each is a module.
CLAIMS = ("mnist1d_table", "rates", "decay", "batch_size", "range_test", "cyclic", "one_cycle", "snapshots")

HEAD = """# Evidence

What is said about learning rates, tried with lrkit: the claim and its source, what was trained, what came out. All of it
is written by `make evidence`, and each experiment is a line to run and to change. "Reproduced" means that the difference
has the claimed sign at 95 % (Student's t over the seeds, paired); "not separable", that these seeds cannot tell; "not
reproduced", that the opposite came out, or nothing where the source has a lot. ± is a 95 % interval over seeds. Rates
are chosen by validation data and judged by test data that had no say in the choice. The tasks are small: they show that
an effect is there, not how large it is elsewhere.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", choices=[[], *CLAIMS], help="which; all where none is named")
    parser.add_argument("--quick", action="store_true", help="a few steps of each")
    options = parser.parse_args()
    runs = Path("outputs") / ("evidence-quick" if options.quick else "evidence")
    page = runs / "evidence.md" if options.quick else Path("docs/evidence.md")
    begun = time.perf_counter()
    for name in options.claims or CLAIMS:
        at = time.perf_counter()
        finding = claim(name).measure(Lab(runs / name, options.quick))
        keep(name, finding, time.perf_counter() - at, runs, page.with_suffix(""))
        print(f"\n{name}: {finding.verdict}. {finding.words}\n{markdown(finding.table)}", flush=True)
    write(page, runs, options.quick)
    print(f"\n{page} is written; {(time.perf_counter() - begun) / 60:.1f} minutes")


def claim(name: str) -> Claim:
    found: Claim = import_module(f"evidence.{name}").CLAIM
    return found


def keep(name: str, finding: Finding, seconds: float, runs: Path, pictures: Path) -> None:
    """Keep a finding beside its trainings, so that the page can be put together without the others'."""
    pictures.mkdir(parents=True, exist_ok=True)
    if finding.picture is not None:
        finding.picture.savefig(pictures / f"{name}.png")
    said = {"verdict": finding.verdict, "words": finding.words, "table": markdown(finding.table), "seconds": seconds}
    (runs / f"{name}.json").write_text(json.dumps(said, indent=1))


def write(page: Path, runs: Path, quick: bool) -> None:
    """The page, of all that has been measured."""
    kept = {
        name: json.loads((runs / f"{name}.json").read_text()) for name in CLAIMS if (runs / f"{name}.json").exists()
    }
    lines = [HEAD]
    if quick:
        lines.append(
            "**Quick: a few steps of each training. Nothing is shown by this page but that it can be written.**\n"
        )
    lines += ["| claim | verdict |", "| --- | --- |"]
    lines += [
        f"| [{claim(name).title}](#{anchor(claim(name).title)}) | {said['verdict']} |" for name, said in kept.items()
    ]
    for name, said in kept.items():
        one = claim(name)
        picture = (
            [f"![{one.title}]({page.stem}/{name}.png)", ""] if (page.with_suffix("") / f"{name}.png").exists() else []
        )
        lines += [
            "", f"## {one.title}", "", f"**Said.** {one.says}", "", f"**Done.** {one.protocol}", "",
            *(f"    {command}" for command in one.commands), "", said["table"], "", *picture,
            f"**{said['verdict'][:1].upper()}{said['verdict'][1:]}.** {said['words']}",
        ]  # fmt: skip
    minutes = sum(said["seconds"] for said in kept.values()) / 60
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pytorch-lightning", "mnist1d"))
    where = f"Python {platform.python_version()}, {versions}, {torch.get_num_threads()} cores"
    lines += ["", f"{minutes:.0f} minutes; {where}."]
    page.write_text("\n".join(lines) + "\n")


def anchor(title: str) -> str:
    """The anchor that a heading gets.

    >>> anchor("Too large, too small")
    'too-large-too-small'
    """
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


if __name__ == "__main__":
    main()
