"""Speed, synchronisations, memory and exactness on one GPU, as tables that name the card.

    python benchmarks/gpu.py --out benchmarks/gpu.md      at most 8 minutes on a GPU of the class of an H100
    python benchmarks/gpu.py --small                      a few steps of each section; also runs on a CPU
    python benchmarks/gpu.py --only syncs speed

Each section is a process of its own, with a time limit; a section that fails or reaches its limit keeps the rows that
it has written, and the next one runs. The tables, and a JSON file beside them, are written after each section.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOTAL = 480.0  # seconds, of all sections together
Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the measurement.

    Args:
        module: the module of its function, which has the section's name.
        seconds: its time limit, if the total is ``TOTAL``.
        title: the heading of its table.
    """

    module: str
    seconds: float
    title: str


#: In the order of their value: the total limit may leave out the last ones.
SECTIONS = {
    "machine": Section("gpu_training", 60, "The machine"),
    "syncs": Section("gpu_speed", 75, "Synchronisations of host and device in 100 steps, by their source lines"),
    "speed": Section("gpu_speed", 190, "Steps a second and kernel launches a step, with the data on the device"),
    "data": Section("gpu_data", 75, "Steps a second by the place of the data"),
    "memory": Section("gpu_speed", 45, "Peak of the device's memory, by the guard"),
    "optimizers": Section("gpu_optimizers", 90, "Each optimizer: 20 steps against the CPU, and its implementation"),
    "stacks": Section("gpu_stacks", 75, "Jobs of a sweep as one stack, against one after another"),
    "compiled": Section("gpu_compile", 90, "A compiled network: speed, and graphs compiled again by a schedule"),
    "muon": Section("gpu_optimizers", 45, "Muon in low precision"),
    "kill": Section("gpu_runs", 90, "Runs that were killed (SIGKILL) and resumed, against runs without a stop"),
    "find": Section("gpu_runs", 90, "lrkit find"),
}


@dataclass
class Outcome:
    """The result of a section: its rows, and why it has not all of them."""

    title: str
    seconds: float = 0.0
    problem: str = ""
    rows: list[Row] = field(default_factory=list)
    log: str = ""


class Writer:
    """Writes the rows of a section to a file, one JSON object a line, so that a kill loses none."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, **columns: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(columns) + "\n")

    def attempt(self, measure: Callable[[], Mapping[str, Any]], **columns: Any) -> Mapping[str, Any]:
        """Write the row of a measurement; if it fails, a row with the error. Return the measured columns."""
        measured: Mapping[str, Any] = {}
        try:
            measured = measure()
        except Exception as error:
            traceback.print_exc()
            measured = {"problem": _describe(error)}
        self(**columns, **measured)
        return measured


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def run_section(name: str, section: Section, seconds: float, folder: Path, small: bool) -> Outcome:
    """Run a section in its own process; end it at its limit."""
    outcome, rows, log = Outcome(section.title), folder / f"{name}.jsonl", folder / f"{name}.log"
    words = [sys.executable, "-W", "ignore", str(HERE / "gpu.py"), "--section", name, "--rows", str(rows)]
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            [*words, *(["--small"] if small else [])],
            cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
            outcome.problem = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            outcome.problem = f"ended at its limit of {seconds:.0f} s"
        finally:
            _kill_group(process)
    outcome.seconds = round(time.perf_counter() - begun, 1)
    outcome.rows = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    said = log.read_text(errors="replace")
    if outcome.problem.startswith("exit code"):
        outcome.problem = (said.strip().splitlines() or [outcome.problem])[-1][:300]
    if outcome.problem or any("problem" in row for row in outcome.rows):
        outcome.log = said[-6000:]
    return outcome


def _kill_group(process: subprocess.Popen[Any]) -> None:
    """End a section, and the processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def serve_section(name: str, rows: Path, small: bool) -> None:
    """Run a section in this process."""
    module = importlib.import_module(SECTIONS[name].module)
    getattr(module, name)(Writer(rows), small)


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown; a column appears where the first row has it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [name for name in names if all(_is_number(row.get(name)) for row in rows)]
    lines = [names, ["--:" if name in numbers else "---" for name in names]]
    lines += [[_show(row.get(name)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def report(outcomes: Mapping[str, Outcome], small: bool) -> str:
    """Return the page of all tables, with the name of the card at its top."""
    machine = outcomes["machine"].rows[0] if "machine" in outcomes and outcomes["machine"].rows else {}
    parts = ["# One GPU\n", f"Card: **{machine.get('card', 'unknown')}**. Written by `python benchmarks/gpu.py`.\n"]
    if small:
        parts.append("By `--small`: a few steps of each section. The figures mean nothing.\n")
    for outcome in outcomes.values():
        parts.append(f"## {outcome.title}\n")
        if outcome.rows:
            parts.append(table(outcome.rows))
        problem = f" **Not complete:** {outcome.problem}" if outcome.problem else ""
        parts.append(f"In {outcome.seconds:.0f} s.{problem}\n")
    return "\n".join(parts)


def write(outcomes: Mapping[str, Outcome], out: Path | None, small: bool) -> None:
    """Write the page, and all figures as JSON beside it."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(outcomes, small))
    content = {name: asdict(outcome) for name, outcome in outcomes.items()}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


def run(names: Sequence[str], limit: float, out: Path | None, small: bool) -> dict[str, Outcome]:
    """Run the sections until the total limit."""
    begun, outcomes = time.perf_counter(), {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name in names:
            section, left = SECTIONS[name], limit - (time.perf_counter() - begun)
            if left < 5:
                outcomes[name] = Outcome(section.title, problem=f"left out: the total limit of {limit:.0f} s")
            else:
                seconds = min(section.seconds * max(1.0, limit / TOTAL), left)
                outcomes[name] = run_section(name, section, seconds, Path(folder), small)
            write(outcomes, out, small)
            said = outcomes[name]
            print(f"{name}: {said.seconds:.0f} s, {len(said.rows)} rows {said.problem}", file=sys.stderr, flush=True)
    return outcomes


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help="a file for the tables; a JSON file is written beside it")
    parser.add_argument("--small", action="store_true", help="a few steps of each section; a CPU is enough")
    parser.add_argument("--limit", type=float, default=TOTAL, help="seconds, of all sections together")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.section:
        serve_section(chosen.section, chosen.rows, chosen.small)
        return 0
    names = ["machine", *(name for name in chosen.only if name != "machine")]
    outcomes = run(names, chosen.limit, chosen.out, chosen.small)
    print(report(outcomes, chosen.small))
    return int(any(outcome.problem for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
