"""Reads finished runs from their folders: runs of lrkit, and foreign runs that have only event files.

All content of a folder is data. JSON and YAML are parsed without creating objects, an interpolation that would call a
resolver stays text, and nothing is imported.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.escaping import escape_terminal
from lrkit.base.files import read_file, read_json
from lrkit.base.plural import plural
from lrkit.base.validation import number, text, whole
from lrkit.runs.csv_reader import read_csv_series
from lrkit.runs.diagnosis import KINDS
from lrkit.runs.event_reader import Series, event_files, read_events

__all__ = ["FINISHED", "RACE", "RUNGS", "SWEEP", "Run", "find_dropped", "find_runs", "load_run", "run_of_config"]

SWEEP = "sweep.json"  #: in the folder of a sweep, beside the folders of its jobs
_NAMED = 3  # of the kept settings of a race, those that its note names
RACE = "race.json"  #: in the folder of a race: the scores of each rung
RUNGS = "rungs"  #: in the folder of a race: the sweeps of short copies, which are not compared with the whole runs

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
_MAX_DEPTH, _MAX_NODES = 16, 5000
_LONG_LIST = 60  # characters of a list, which are followed by its checksum
_MAX_STARTS, _MAX_PACKAGES = 100, 20  # of the record of an environment
_MAX_LENGTH = 1000  # characters of a name, a key or a value
#: The schemas of single values of ``metrics.json``: a value of another type is ignored.
_STEPS, _SECONDS, _MEASURED, _TEXT = whole(), number(0), number(finite=False), text()
_PARTS = {"train": "train/", "validation": "val/", "val": "val/"}  # the folders of a run of Keras


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


def find_runs(paths: Sequence[Path]) -> dict[Path, str]:
    """The folders of all runs at or below ``paths``, and a name for each.

    Raises:
        ConfigError: a path does not exist, or contains no run.
    """
    for path in paths:
        if not os.path.exists(path):  # false also for an invalid path: too long, or with a null character
            raise ConfigError(str(path), "does not exist")
        if not path.is_dir():
            raise ConfigError(str(path), "must be the folder of a run or of a sweep")
    above = Path(os.path.commonpath([path.resolve() for path in paths]))
    runs: dict[Path, str] = {}
    for path in paths:
        folders = [folder.resolve() for folder in _find_run_folders(path)]
        if not folders:
            must = "must contain a run: it has no plan.json, metrics.json, .hydra or TensorBoard event files"
            raise ConfigError(str(path), must)
        for folder in folders:
            runs[folder] = _escape(folder.name if folder == above else str(folder.relative_to(above)))
    return runs


def _find_run_folders(top: Path) -> Iterator[Path]:
    """The folders of runs, in the order of their names with numbers as numbers. A folder inside a run belongs to it."""
    for place, inner, files in os.walk(top):
        folder = Path(place)
        inner.sort(key=_natural_key)
        if {"plan.json", "metrics.json"} & set(files) or ".hydra" in inner:
            yield folder
            inner.clear()
        elif SWEEP in files:  # its event files, if any, are about all of its jobs
            inner[:] = [name for name in inner if name != RUNGS]
        elif any("tfevents" in name for name in files):
            yield folder
            inner[:] = [name for name in inner if not _is_add_hparams_folder(name)]
        elif any(name in _PARTS and event_files(folder / name) for name in inner):
            yield folder
            inner[:] = [name for name in inner if name not in _PARTS]


def find_dropped(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a note for each folder of a race at ``paths``: how many settings it dropped, and which ones it kept."""
    for path in paths:
        rungs = _text_mapping(read_json(path / RACE)).get("rungs")
        counts, kept = dict[str, int](), list[str]()
        for rung in map(_text_mapping, rungs if isinstance(rungs, list) else []):
            rows = [*map(_text_mapping, rung["settings"] if isinstance(rung.get("settings"), list) else [])]
            share = _escape(str(rung.get("share")))
            counts[share] = counts.get(share, 0) + sum(row.get("promoted") is False for row in rows)
            kept = [_escape(str(row.get("setting"))) for row in rows if row.get("promoted") is True]
        if dropped := sum(counts.values()):
            at = ", ".join(f"{count} at {share}" for share, count in counts.items() if count)
            place = f"{_escape(path.name)}: " if len(paths) > 1 else ""
            names = ", ".join(kept[:_NAMED]) + (f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else "")
            kept_ones = f", and kept {names}" if kept else ""
            yield f"{place}a race dropped {plural(dropped, 'setting')} ({at} of their steps){kept_ones}: see {RACE}"


def load_run(folder: Path, name: str) -> Run:
    """One run; files that cannot be read become notes."""
    run = Run(name, folder)
    metrics, config = _read_json(folder / "metrics.json", run), _read_json(folder / "config.json", run)
    config = config or _read_yaml(folder / ".hydra" / "config.yaml", run)
    hparams = _read_events(run)
    if not run.series:
        run.series = {_escape(tag): series for tag, series in read_csv_series(folder).items()}
    if config:
        run.choices = _read_choices(folder / ".hydra" / "hydra.yaml")
        _set_config(run, config)
    elif hparams := hparams or dict(_flatten(_read_yaml(folder / "hparams.yaml", run))):
        run.source = "hparams"
        _set_facts(run, hparams)
    if (folder / "plan.json").exists() or (config and not run.series):
        run.status = "unfinished"
    run.status = _text_or_none(metrics.get("status")) or run.status
    monitor = _text_or_none(metrics.get("monitor")) or _text_or_none(config.get("monitor"))
    run.monitor = monitor if monitor != "auto" else None
    run.final, run.best, run.test = (_read_numbers(metrics.get(part)) for part in ("final", "best", "test"))
    run.findings = _read_findings(metrics.get("findings"))
    run.environment = _read_environment(_read_json(folder / "environment.json", run))
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
    _set_facts(run, {key: _resolve_reference(value, config) for key, value in _flatten(config)})


def _read_events(run: Run) -> dict[str, Any]:
    """Read the event files of a run, in its folder or below it, into ``run``; return their hyper-parameters."""
    folder, hparams = run.folder, dict[str, Any]()
    parts: dict[str, list[Path]] = {}
    for name, prefix in _PARTS.items():
        parts.setdefault(prefix, []).extend(event_files(folder / name))
    if own := event_files(folder):
        groups = {
            "": own + [f for d in sorted(folder.iterdir()) if _is_add_hparams_folder(d.name) for f in event_files(d)]
        }
    elif any(parts.values()):
        groups = parts
    else:
        groups = {"": sorted(path for path in folder.rglob("*tfevents*") if path.is_file())}
    for prefix, files in groups.items():
        scalars = read_events(files)
        run.series |= {_escape(prefix + tag): series for tag, series in scalars.series.items()}
        hparams |= scalars.hparams
        run.notes += scalars.notes
        if files:
            run.seconds = max(run.seconds or 0.0, scalars.seconds)
    return hparams


def _is_add_hparams_folder(name: str) -> bool:
    """Whether torch's ``SummaryWriter.add_hparams`` made a folder inside a run: its name is the time."""
    return re.fullmatch(r"\d{9,}\.\d+", name) is not None


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


def _flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, without nulls; a list of plain values, or a table of them, is one value.

    Number and depth are limited.
    """
    remaining = _MAX_NODES

    def walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal remaining
        remaining -= 1
        if remaining <= 0 or depth > _MAX_DEPTH or node is None:
            return
        if isinstance(node, list) and not all(_is_plain_row(inner) for inner in node):
            node = dict(enumerate(node))
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield from walk(value, _escape(f"{prefix}.{key}" if prefix else str(key)), depth + 1)
        else:
            yield prefix, _plain_value(node)

    return walk(config, "", 0)


def _is_plain_row(node: Any) -> bool:
    """Whether a member of a list is a plain value, or a list of them."""
    return not any(isinstance(inner, list | Mapping) for inner in (node if isinstance(node, list) else [node]))


def _plain_value(value: Any) -> Any:
    if isinstance(value, list) and len(text := str(value)) > _LONG_LIST:
        return _escape(f"{text[:_LONG_LIST]}... ({len(value)} values, {zlib.crc32(text.encode()):08x})")
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", value, re.IGNORECASE):
        return float(value)  # PyYAML reads 1e-3 as text
    return value if isinstance(value, int | float) else _escape(str(value))


def _resolve_reference(value: Any, config: Mapping[str, Any]) -> Any:
    """The value of ``${key}`` in the config; an interpolation that would call a resolver stays text."""
    reference = re.fullmatch(r"\$\{(\w+(?:\.\w+)*)\}", value) if isinstance(value, str) else None
    node: Any = config
    for part in reference[1].split(".") if reference else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    return value if isinstance(node, Mapping) or node is None else node


def _read_choices(file: Path) -> dict[str, str]:
    """The chosen options, from the lines of ``hydra.yaml`` that name them: parsing the whole file is slow."""
    try:
        text = read_file(file).decode(errors="replace")
    except OSError:
        return {}
    block = re.search(r"^ +choices:\n((?: {6,}\S.*\n)+)", text, re.MULTILINE)
    pairs = [line.strip().rpartition(": ") for line in block[1].splitlines()] if block else []
    return {
        _escape(group.partition("@")[2] or group): _escape(option)
        for group, _, option in pairs
        if not group.startswith("hydra/") and option != "null"
    }


def _read_json(file: Path, run: Run) -> dict[str, Any]:
    if not os.path.lexists(file):
        return {}
    content = read_json(file)
    if content is None:
        run.notes.append(f"{file.name} cannot be read")
    return _text_mapping(content)


def _read_yaml(file: Path, run: Run) -> dict[str, Any]:
    if not file.is_file():
        return {}
    from lrkit.config.yaml_screening import load_plain  # imports the YAML parser, which only some folders need

    try:
        return _text_mapping(load_plain(file))
    except (OSError, ValueError, RecursionError):
        run.notes.append(f"{file.name} cannot be read as plain data")
        return {}


def _text_mapping(node: Any) -> dict[str, Any]:
    """A mapping with escaped texts as keys; an empty one for any other value."""
    return {_escape(str(key)): value for key, value in node.items()} if isinstance(node, Mapping) else {}


def _read_numbers(node: Any) -> dict[str, float]:
    return {key: float(value) for key, value in _text_mapping(node).items() if _MEASURED.holds(value)}


def _text_or_none(value: Any) -> str | None:
    return _escape(value) if value and _TEXT.holds(value) else None


def _read_findings(node: Any) -> dict[str, str]:
    findings = [_text_mapping(finding) for finding in node] if isinstance(node, list) else []
    kinds = {_text_or_none(one.get("kind")): _escape(str(one.get("advice", ""))) for one in findings}
    return {kind: advice for kind, advice in kinds.items() if kind in KINDS}


def _read_environment(record: Mapping[str, Any]) -> dict[str, str]:
    """The facts that may change a result; a run that was resumed elsewhere has the values of all its starts."""
    starts = record.get("starts")
    facts: dict[str, dict[str, None]] = {}
    for start in map(_text_mapping, starts[:_MAX_STARTS] if isinstance(starts, list) else []):
        git, device = _text_mapping(start.get("git")), _text_mapping(start.get("device"))
        commit = _text_or_none(git.get("commit"))
        values = {
            "git commit": commit and commit[:10] + " with changes" * bool(git.get("dirty")),
            **dict(list(_text_mapping(start.get("versions")).items())[:_MAX_PACKAGES]),
            "Python": start.get("python"),
            "device": device.get("name"),
        }
        for name, value in values.items():
            if (said := _text_or_none(value)) is not None:
                facts.setdefault(name, {})[said] = None
    return {name: " then ".join(values) for name, values in facts.items()}


def _escape(text: str) -> str:
    """Untrusted text, escaped for a table in the terminal and cut to a maximal length."""
    return escape_terminal(text, _MAX_LENGTH)


def _natural_key(name: str) -> list[Any]:
    """A sort key that orders the numbers in names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
