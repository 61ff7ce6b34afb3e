"""Finished runs, read from their folders: those of lrkit, and foreign ones of which there are only event files.

Whatever a folder holds is data. JSON and YAML are parsed without making objects, interpolations that would call a
resolver stay the text that they are, and nothing is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.escaping import escape_terminal
from lrkit.base.files import read_file, read_json
from lrkit.base.schema import fits, number, text, whole
from lrkit.runs.diagnosis import KINDS
from lrkit.runs.event_reader import Series, event_files, read_events

__all__ = ["FINISHED", "SWEEP", "Run", "find_runs", "load_run"]

SWEEP = "sweep.json"  #: in the folder of a sweep, beside those of its jobs

#: Statuses of runs that came to the end that they were to come to. Of a foreign run nobody says it.
FINISHED = ("done", "stopped", "unknown")
#: Keys that say where a run writes to, not what it does.
_BESIDE = ("resume.path", "logger", "trust", "hydra", "trainer.enable_progress_bar", "trainer.enable_model_summary")
_DEEPEST, _MOST = 16, 5000
_LONGEST = 1000  # characters of a name, a key or a value
#: What ``metrics.json`` says, each value for itself: one that is another thing is passed over.
_STEPS, _SECONDS, _MEASURED, _TEXT = whole(), number(0), number(finite=False), text()
_PARTS = {"train": "train/", "validation": "val/", "val": "val/"}  # folders into which Keras splits a run


@dataclass
class Run:
    """One run.

    Attributes:
        name: its folder, as seen from what was asked for.
        source: where the facts are from: ``config``, ``hparams``, or ``name`` where there are none.
        facts: dotted key -> value, without nulls, seeds, and what does not matter to a result.
        choices: group -> the option that was chosen, where Hydra kept it.
        status: as the run says itself; ``unfinished`` where it does not, ``unknown`` for a foreign one.
        final, best: metric -> value at the end, and where the monitored metric was best.
        test: metric -> value on the test data, where the run was trained with ``test=true``.
        findings: symptom -> the flags to try, as the run's diagnosis said it.
        series: tag -> its curve.
        notes: what could not be read.
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
    series: dict[str, Series] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def repeat(self) -> object:
        """What tells it apart from the other runs of its setting: its seed, or its name where there is none."""
        return self.name if self.seed is None else self.seed


def find_runs(paths: Sequence[Path]) -> dict[Path, str]:
    """The folders of all runs at or below ``paths``, and a name for each.

    Raises:
        ConfigError: a path that is not there, or has no run in it.
    """
    for path in paths:
        if not os.path.exists(path):  # also where it cannot be a path: too long, or with a null character
            raise ConfigError(str(path), "does not exist")
        if not path.is_dir():
            raise ConfigError(str(path), "must be a folder: of a run, or of a sweep")
    above = Path(os.path.commonpath([path.resolve() for path in paths]))
    found: dict[Path, str] = {}
    for path in paths:
        folders = [folder.resolve() for folder in _below(path)]
        if not folders:
            must = "has no runs in it: neither plan.json, metrics.json, .hydra nor event files of TensorBoard"
            raise ConfigError(str(path), must)
        for folder in folders:
            found[folder] = _shown(folder.name if folder == above else str(folder.relative_to(above)))
    return found


def _below(top: Path) -> Iterator[Path]:
    """Runs, in the order of their names with numbers as numbers. What lies inside of a run belongs to it."""
    for place, inner, files in os.walk(top):
        folder = Path(place)
        inner.sort(key=_natural)
        if {"plan.json", "metrics.json"} & set(files) or ".hydra" in inner:
            yield folder
            inner.clear()
        elif SWEEP in files:  # what lies beside it is about all of its jobs
            continue
        elif any("tfevents" in name for name in files):
            yield folder
            inner[:] = [name for name in inner if not _of_add_hparams(name)]
        elif any(name in _PARTS and event_files(folder / name) for name in inner):
            yield folder
            inner[:] = [name for name in inner if name not in _PARTS]


def load_run(folder: Path, name: str) -> Run:
    """Read one run, as far as it can be read."""
    run = Run(name, folder)
    metrics, config = _json(folder / "metrics.json", run), _json(folder / "config.json", run)
    config = config or _yaml(folder / ".hydra" / "config.yaml", run)
    hparams = _read_events(run)
    if config:
        run.source, run.choices = "config", _choices(folder / ".hydra" / "hydra.yaml")
        _set_facts(run, {key: _looked_up(value, config) for key, value in _leaves(config)})
    elif hparams := hparams or dict(_leaves(_yaml(folder / "hparams.yaml", run))):
        run.source = "hparams"
        _set_facts(run, hparams)
    if (folder / "plan.json").exists() or (config and not run.series):
        run.status = "unfinished"
    run.status = _text(metrics.get("status")) or run.status
    monitor = _text(metrics.get("monitor")) or _text(config.get("monitor"))
    run.monitor = monitor if monitor != "auto" else None
    run.final, run.best, run.test = (_numbers(metrics.get(part)) for part in ("final", "best", "test"))
    run.findings = _findings(metrics.get("findings"))
    steps, seconds = metrics.get("steps"), metrics.get("seconds")
    run.steps = steps if fits(_STEPS, steps) else max((s.steps[-1] for s in run.series.values()), default=None)
    if isinstance(seconds, int | float) and fits(_SECONDS, seconds) and len(event_files(folder)) <= 1:
        run.seconds = float(seconds)  # of a resumed run it is the last part's
    return run


def _read_events(run: Run) -> dict[str, Any]:
    """Read the event files of a run, in its folder or wherever below it they are; its hyper-parameters."""
    folder, hparams = run.folder, dict[str, Any]()
    parts: dict[str, list[Path]] = {}
    for name, prefix in _PARTS.items():
        parts.setdefault(prefix, []).extend(event_files(folder / name))
    if own := event_files(folder):
        groups = {"": own + [f for d in sorted(folder.iterdir()) if _of_add_hparams(d.name) for f in event_files(d)]}
    elif any(parts.values()):
        groups = parts
    else:
        groups = {"": sorted(path for path in folder.rglob("*tfevents*") if path.is_file())}
    for prefix, files in groups.items():
        scalars = read_events(files)
        run.series |= {_shown(prefix + tag): series for tag, series in scalars.series.items()}
        hparams |= scalars.hparams
        run.notes += scalars.notes
        if files:
            run.seconds = max(run.seconds or 0.0, scalars.seconds)
    return hparams


def _of_add_hparams(name: str) -> bool:
    """Whether a folder is one that torch's ``SummaryWriter.add_hparams`` made inside of a run: named by the time."""
    return re.fullmatch(r"\d{9,}\.\d+", name) is not None


def _set_facts(run: Run, leaves: Mapping[str, Any]) -> None:
    """Facts without the seed: that is what runs of one setting differ in."""
    seeds = [value for key, value in leaves.items() if re.search(r"(^|[._/])seed$", key)]
    run.seed = leaves.get("seed", seeds[0] if seeds else None)
    run.facts = {
        key: value
        for key, value in leaves.items()
        if not (key.lower().endswith("seed") and value == run.seed)
        and not any(key == beside or key.startswith(f"{beside}.") for beside in _BESIDE)
    }


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, without nulls; a list of plain values is one. Not more, nor deeper, than a config is."""
    left = _MOST

    def walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal left
        left -= 1
        if left <= 0 or depth > _DEEPEST or node is None:
            return
        if isinstance(node, list) and any(isinstance(inner, list | Mapping) for inner in node):
            node = dict(enumerate(node))
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield from walk(value, _shown(f"{prefix}.{key}" if prefix else str(key)), depth + 1)
        else:
            yield prefix, _value(node)

    return walk(config, "", 0)


def _value(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", value, re.IGNORECASE):
        return float(value)  # PyYAML reads 1e-3 as text
    return value if isinstance(value, int | float) else _shown(str(value))


def _looked_up(value: Any, config: Mapping[str, Any]) -> Any:
    """What ``${key}`` stands for; what would call a resolver stays text."""
    reference = re.fullmatch(r"\$\{(\w+(?:\.\w+)*)\}", value) if isinstance(value, str) else None
    node: Any = config
    for part in reference[1].split(".") if reference else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    return value if isinstance(node, Mapping) or node is None else node


def _choices(file: Path) -> dict[str, str]:
    """The chosen options, from the few lines of ``hydra.yaml`` that name them: to parse all of it takes long."""
    try:
        text = read_file(file).decode(errors="replace")
    except OSError:
        return {}
    block = re.search(r"^ +choices:\n((?: {6,}\S.*\n)+)", text, re.MULTILINE)
    pairs = [line.strip().rpartition(": ") for line in block[1].splitlines()] if block else []
    return {
        _shown(group.partition("@")[2] or group): _shown(option)
        for group, _, option in pairs
        if not group.startswith("hydra/") and option != "null"
    }


def _json(file: Path, run: Run) -> dict[str, Any]:
    if not os.path.lexists(file):
        return {}
    content = read_json(file)
    if content is None:
        run.notes.append(f"{file.name} cannot be read")
    return _mapping(content)


def _yaml(file: Path, run: Run) -> dict[str, Any]:
    if not file.is_file():
        return {}
    from lrkit.config.yaml_screening import load_plain  # loads the parser, which only some folders need

    try:
        return _mapping(load_plain(file))
    except (OSError, ValueError, RecursionError):
        run.notes.append(f"{file.name} cannot be read as plain data")
        return {}


def _mapping(node: Any) -> dict[str, Any]:
    """A mapping with texts that can be shown for keys; nothing of what is none."""
    return {_shown(str(key)): value for key, value in node.items()} if isinstance(node, Mapping) else {}


def _numbers(node: Any) -> dict[str, float]:
    return {key: float(value) for key, value in _mapping(node).items() if fits(_MEASURED, value)}


def _text(value: Any) -> str | None:
    return _shown(value) if value and fits(_TEXT, value) else None


def _findings(node: Any) -> dict[str, str]:
    said = [_mapping(finding) for finding in node] if isinstance(node, list) else []
    kinds = {_text(one.get("kind")): _shown(str(one.get("advice", ""))) for one in said}
    return {kind: advice for kind, advice in kinds.items() if kind in KINDS}


def _shown(text: str) -> str:
    """Text of a stranger's, as it can stand in a table."""
    return escape_terminal(text, _LONGEST)


def _natural(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
