"""Run the experiments and write the page.

    python -m evidence                    all claims, into docs/evidence.md and docs/evidence/
    python -m evidence decay batch_size   these claims; the other sections of the page stay
    python -m evidence --quick            a few steps of each run, into outputs/, as a test of the scripts

Finished runs in outputs/evidence/ are kept. To run everything again, delete that folder.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

from evidence import page
from evidence.claim import Claim, markdown
from evidence.lab import Lab

#: The claims in the order of the page; each is a module of this package.
CLAIMS = (
    "mnist1d_table", "rates", "decay", "warmup", "batch_size", "noise_scale", "branches", "range_test", "cyclic",
    "one_cycle", "snapshots", "plateau", "translate", "predict",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", help=f"claims to run, of {', '.join(CLAIMS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a few steps of each run")
    options = parser.parse_args()
    if unknown := set(options.claims) - {*CLAIMS}:
        parser.error(f"claims must be of {', '.join(CLAIMS)}. Received: {', '.join(unknown)}")
    runs = Path("outputs") / ("evidence-quick" if options.quick else "evidence")
    file = runs / "evidence.md" if options.quick else Path("docs/evidence.md")
    begun = time.perf_counter()
    for name in options.claims or CLAIMS:
        at = time.perf_counter()
        finding = claim(name).measure(Lab(runs / name, options.quick))
        page.save_finding(name, finding, time.perf_counter() - at, runs, file.with_suffix(""))
        print(f"\n{name}: {finding.verdict}. {finding.words}\n{markdown(finding.table)}", flush=True)
    page.write(file, {name: claim(name) for name in CLAIMS}, runs, options.quick)
    print(f"\nwrote {file} in {(time.perf_counter() - begun) / 60:.1f} minutes")


def claim(name: str) -> Claim:
    found: Claim = import_module(f"evidence.{name}").CLAIM
    return found


if __name__ == "__main__":
    main()
