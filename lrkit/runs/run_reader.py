"""Reads finished runs from their folders: runs of lrkit, and foreign runs that have only event files.

All content of a folder is data. JSON and YAML are parsed without creating objects, an interpolation that would call a
resolver stays text, and nothing is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrkit.base.files import read_file, read_json
from lrkit.base.run_files import CONFIG_JSON, ENVIRONMENT, METRICS, PLAN
from lrkit.base.validation import number, whole
from lrkit.runs.config_facts import flatten_config, resolve_reference
from lrkit.runs.csv_reader import read_csv_series
from lrkit.runs.diagnosis import KINDS
from lrkit.runs.event_reader import Series, event_files, read_events
from lrkit.runs.run_folders import PARTS, is_add_hparams_folder
from lrkit.runs.untrusted_values import escape_text, read_numbers, text_mapping, text_or_none

__all__ = ["FINISHED", "Run", "load_run", "run_of_config"]

#: The statuses of runs that ended as planned. A foreign run has no status: it is unknown.
FINISHED = ("done", "stopped", "unknown")
#: Keys that change the output of a run and not its result.
_OUTPUT_KEYS = (
    "resume.path",
    "logger",
    "trust",
    "sweep",
    "hydra",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
_MAX_STARTS, _MAX_PACKAGES = 100, 20  # of the record of an environment
#: The schemas of single values of ``metrics.json``: a value of another type is ignored.
_STEPS, _SECONDS = whole(), number(0)


@dataclass
class Run:
    """One run.

    Attributes:
        name: the path of its folder, relative to the paths that were given.
        source: the source of the facts: ``config``, ``hparams``, or ``name`` for a run without either.
        facts: dotted key -> value, without nulls, seeds, and keys without influence on the result.
        choices: group -> the chosen option, if Hydra saved it.
        status: the status in the run's ``metrics.json``; without it ``unfinished``, and ``unknown`` for a foreign run.
        final, best: metric -> value at the end, and at the best value of the monitored metric.
        test: metric -> value on the test data, for a run with ``test=true``.
        findings: symptom -> the flags to try, from the run's diagnosis.
        environment: fact -> value of the run's record of its environment: git commit, versions, device.
        series: tag -> its curve.
        notes: a sentence for each file that could not be read.
    """

    name: str
    folder: Path
    source: str = "name"
    facts: dict[str, Any] = field(default_factory=dict)
    seed: Any = None
    choices: dict[str, str] = field(default_factory=dict)
    status: str = "unknown"
    monitor: str | None = None
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    findings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def repeat(self) -> object:
        """The seed, which distinguishes the runs of one configuration; the name for a run without a seed."""
        return self.name if self.seed is None else self.seed


def load_run(folder: Path, name: str) -> Run:
    """One run; files that cannot be read become notes."""
    run = Run(name, folder)
    metrics, config = _read_json(folder / METRICS, run), _read_json(folder / CONFIG_JSON, run)
    config = config or _read_yaml(folder / ".hydra" / "config.yaml", run)
    hparams = _read_events(run)
    if not run.series:
        run.series = {escape_text(tag): series for tag, series in read_csv_series(folder).items()}
    if config:
        run.choices = _read_choices(folder / ".hydra" / "hydra.yaml")
        _set_config(run, config)
    elif hparams := hparams or dict(flatten_config(_read_yaml(folder / "hparams.yaml", run))):
        run.source = "hparams"
        _set_facts(run, hparams)
    if (folder / PLAN).exists() or (config and not run.series):
        run.status = "unfinished"
    run.status = text_or_none(metrics.get("status")) or run.status
    monitor = text_or_none(metrics.get("monitor")) or text_or_none(config.get("monitor"))
    run.monitor = monitor if monitor != "auto" else None
    run.final, run.best, run.test = (read_numbers(metrics.get(part)) for part in ("final", "best", "test"))
    run.findings = _read_findings(metrics.get("findings"))
    run.environment = _read_environment(_read_json(folder / ENVIRONMENT, run))
    steps, seconds = metrics.get("steps"), metrics.get("seconds")
    run.steps = steps if _STEPS.holds(steps) else max((s.steps[-1] for s in run.series.values()), default=None)
    if isinstance(seconds, int | float) and _SECONDS.holds(seconds) and len(event_files(folder)) <= 1:
        run.seconds = float(seconds)  # in a resumed run it is only the time of the last part
    return run


def run_of_config(name: str, config: Mapping[str, Any]) -> Run:
    """A run that has a config and no folder."""
    run = Run(name, Path())
    _set_config(run, config)
    return run


def _set_config(run: Run, config: Mapping[str, Any]) -> None:
    run.source = "config"
    _set_facts(run, {key: resolve_reference(value, config) for key, value in flatten_config(config)})


def _read_events(run: Run) -> dict[str, Any]:
    """Read the event files of a run, in its folder or below it, into ``run``; return their hyper-parameters."""
    folder, hparams = run.folder, dict[str, Any]()
    parts: dict[str, list[Path]] = {}
    for name, prefix in PARTS.items():
        parts.setdefault(prefix, []).extend(event_files(folder / name))
    if own := event_files(folder):
        groups = {
            "": own + [f for d in sorted(folder.iterdir()) if is_add_hparams_folder(d.name) for f in event_files(d)]
        }
    elif any(parts.values()):
        groups = parts
    else:
        groups = {"": sorted(path for path in folder.rglob("*tfevents*") if path.is_file())}
    for prefix, files in groups.items():
        scalars = read_events(files)
        run.series |= {escape_text(prefix + tag): series for tag, series in scalars.series.items()}
        hparams |= scalars.hparams
        run.notes += scalars.notes
        if files:
            run.seconds = max(run.seconds or 0.0, scalars.seconds)
    return hparams


def _set_facts(run: Run, leaves: Mapping[str, Any]) -> None:
    """Set the run's seed, and its facts without it: runs of one configuration differ only in the seed."""
    seeds = [value for key, value in leaves.items() if re.search(r"(^|[._/])seed$", key)]
    run.seed = leaves.get("seed", seeds[0] if seeds else None)
    run.facts = {
        key: value
        for key, value in leaves.items()
        if not (key.lower().endswith("seed") and value == run.seed)
        and not any(key == output_key or key.startswith(f"{output_key}.") for output_key in _OUTPUT_KEYS)
    }


def _read_choices(file: Path) -> dict[str, str]:
    """The chosen options, from the lines of ``hydra.yaml`` that name them: parsing the whole file is slow."""
    try:
        text = read_file(file).decode(errors="replace")
    except OSError:
        return {}
    block = re.search(r"^ +choices:\n((?: {6,}\S.*\n)+)", text, re.MULTILINE)
    pairs = [line.strip().rpartition(": ") for line in block[1].splitlines()] if block else []
    return {
        escape_text(group.partition("@")[2] or group): escape_text(option)
        for group, _, option in pairs
        if not group.startswith("hydra/") and option != "null"
    }


def _read_json(file: Path, run: Run) -> dict[str, Any]:
    if not os.path.lexists(file):
        return {}
    content = read_json(file)
    if content is None:
        run.notes.append(f"{file.name} cannot be read")
    return text_mapping(content)


def _read_yaml(file: Path, run: Run) -> dict[str, Any]:
    if not file.is_file():
        return {}
    from lrkit.config.yaml_screening import load_plain  # imports the YAML parser, which only some folders need

    try:
        return text_mapping(load_plain(file))
    except (OSError, ValueError, RecursionError):
        run.notes.append(f"{file.name} cannot be read as plain data")
        return {}


def _read_findings(node: Any) -> dict[str, str]:
    findings = [text_mapping(finding) for finding in node] if isinstance(node, list) else []
    kinds = {text_or_none(one.get("kind")): escape_text(str(one.get("advice", ""))) for one in findings}
    return {kind: advice for kind, advice in kinds.items() if kind in KINDS}


def _read_environment(record: Mapping[str, Any]) -> dict[str, str]:
    """The facts that may change a result; a run that was resumed elsewhere has the values of all its starts."""
    starts = record.get("starts")
    facts: dict[str, dict[str, None]] = {}
    for start in map(text_mapping, starts[:_MAX_STARTS] if isinstance(starts, list) else []):
        git, device = text_mapping(start.get("git")), text_mapping(start.get("device"))
        commit = text_or_none(git.get("commit"))
        values = {
            "git commit": commit and commit[:10] + " with changes" * bool(git.get("dirty")),
            **dict(list(text_mapping(start.get("versions")).items())[:_MAX_PACKAGES]),
            "Python": start.get("python"),
            "device": device.get("name"),
        }
        for name, value in values.items():
            if (said := text_or_none(value)) is not None:
                facts.setdefault(name, {})[said] = None
    return {name: " then ".join(values) for name, values in facts.items()}
