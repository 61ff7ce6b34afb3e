"""Reads scalars from TensorBoard's event files, fast, and also from incomplete or damaged files.

An event is a protobuf message (tensorflow/core/util/event.proto). No content of a file is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import lt
from pathlib import Path
from typing import Any

from lrkit.base.files import read_file
from lrkit.runs.event_records import record_spans

__all__ = ["Scalars", "Series", "event_files", "read_events"]

_LARGEST = 2**32  # bytes of an event file
_FLOAT = struct.Struct("<f")
_Column = tuple[list[int], list[float | bytes]]


@dataclass
class Series:
    """The values of one tag over its steps, which increase strictly."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def cut(self, step: int) -> None:
        """Remove the values at ``step`` and later."""
        if self.steps and self.steps[-1] >= step:
            earlier = [i for i, at in enumerate(self.steps) if at < step]
            self.steps, self.values = [self.steps[i] for i in earlier], [self.values[i] for i in earlier]

    def join(self, later: Series) -> None:
        """Append a later series, which replaces the values from its first step on."""
        if not later.steps:
            return
        self.cut(min(later.steps))
        self.steps += later.steps
        self.values += later.values
        if not all(map(lt, self.steps, self.steps[1:])):  # a file may have its steps out of order, or twice
            ordered = sorted(dict(zip(self.steps, self.values, strict=True)).items())
            self.steps, self.values = [step for step, _ in ordered], [value for _, value in ordered]


@dataclass
class Scalars:
    """The content of the event files of one folder.

    Attributes:
        series: tag -> its values.
        hparams: hyper-parameters, as the HParams tab shows them.
        seconds: the sum, over the files, of the time from the first to the last value.
        notes: a sentence for each file that could not be read completely.
    """

    series: dict[str, Series] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def event_files(folder: Path) -> list[Path]:
    """The event files in a folder itself, oldest first: their names begin with the time."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file())


def read_events(files: Iterable[Path]) -> Scalars:
    """The scalars of the event files of one run, given oldest first.

    In a resumed run, a later file replaces the values from the step of its ``SessionLog.START`` on, or, without it,
    from its first step of each tag on. A file is read to its end or to the first damaged record. A file with a
    ``SessionLog.START`` follows those without, in any order of their names: a clock may have been set back.
    """
    scalars, parts = Scalars(), list[_File]()
    for path in files:
        try:
            content = read_file(path, _LARGEST)
        except OSError as error:
            scalars.notes.append(f"{path.name} cannot be read ({error.strerror})")
            continue
        spans, damage = record_spans(content)
        part = _File()
        broken = part.read_records(content, spans)
        if broken is not None:
            damage = f"is damaged at byte {broken}"
        if damage:
            scalars.notes.append(f"{path.name} {damage}; the records before were read")
        parts.append(part)
    for part in sorted(parts, key=lambda part: part.replaces_from is not None):
        for series in scalars.series.values() if part.replaces_from is not None else ():
            series.cut(part.replaces_from or 0)
        for tag, series in part.series().items():
            scalars.series.setdefault(tag, Series()).join(series)
        scalars.hparams |= part.hparams
        scalars.seconds += part.seconds
    scalars.series = {tag: series for tag, series in scalars.series.items() if series.steps}
    return scalars


class _File:
    """The content of one file, by tag, in its order: steps, and values as numbers or as the four bytes of a float."""

    def __init__(self) -> None:
        self.columns: dict[str, _Column] = {}
        self.replaces_from: int | None = None
        self.hparams: dict[str, Any] = {}
        self.seconds = 0.0

    def read_records(self, content: bytes, spans: Sequence[tuple[int, int]]) -> int | None:
        """Read the records; return the position of the first one that is no event, or None.

        Nearly all events of a file have the form ``wall time (double) | step | summary: tag, value (float)``, and
        differ only in step and value. So the bytes between these two are looked up, and protobuf parses only events
        with new ones; that takes a fifth of the time.
        """
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event

        known: dict[bytes, _Column] = {}
        walls: list[float] = []
        for n, (start, end) in enumerate(spans):
            event = content[start:end]
            step, head = _split_event(event)
            if head in known:
                steps, values = known[head]
                steps.append(step)
                values.append(event[-4:])
                if n < len(spans) - 1:
                    continue
            try:
                message = Event.FromString(event)
            except DecodeError:
                return start
            if message.summary.value:
                walls.append(message.wall_time)
            if head in known:
                continue
            self._add_event(message)
            if head and message.step == step and _ends_with_value(message, event, Event):
                known[head] = self.columns[message.summary.value[0].tag]
        self.seconds = max(walls, default=0.0) - min(walls, default=0.0)
        return None

    def _add_event(self, message: Any) -> None:
        if message.session_log.status == 1 and self.replaces_from is None:  # SessionLog.START
            self.replaces_from = message.step
        for value in message.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "hparams":
                self.hparams |= _read_hparams(plugin.content)
            number = value.simple_value if value.HasField("simple_value") else _scalar_of(value.tensor)
            if number is not None:
                steps, values = self.columns.setdefault(value.tag, ([], []))
                steps.append(message.step)
                values.append(number)

    def series(self) -> dict[str, Series]:
        """The series of each tag, with all values as numbers."""
        series_by_tag = {}
        for tag, (steps, values) in self.columns.items():
            numbers = [_FLOAT.unpack(value)[0] if isinstance(value, bytes) else value for value in values]
            series_by_tag[tag] = Series()
            series_by_tag[tag].join(Series(steps, numbers))
        return series_by_tag


def _split_event(event: bytes) -> tuple[int, bytes]:
    """The step of an event, and the bytes between it and the last four; no bytes for an event of another form."""
    if len(event) < 20 or event[0] != 0x09:  # field 1, a double: the wall time
        return 0, b""
    if event[9] != 0x10:  # field 2, a varint: the step; omitted if it is 0
        return 0, event[9:-4]
    step = shift = 0
    for at in range(10, 20):
        byte = event[at]
        step |= (byte & 0x7F) << shift
        if byte < 0x80:
            return step, event[at + 1 : -4]
        shift += 7
    return 0, b""  # a negative step takes ten bytes


def _ends_with_value(message: Any, event: bytes, kind: Any) -> bool:
    """Whether the event has one float, in its last four bytes: tested by replacing these bytes."""
    values = message.summary.value
    if len(values) != 1 or not values[0].HasField("simple_value"):
        return False
    others = [kind.FromString(event[:-4] + _FLOAT.pack(other)).summary.value[0] for other in (1.0, 2.0)]
    return [other.simple_value for other in others] == [1.0, 2.0] and others[0].tag == values[0].tag


def _scalar_of(tensor: Any) -> float | None:
    """The value of a tensor with one number, as TensorFlow 2 and Keras write scalars; None for any other tensor."""
    named = {1: ("float_val", "<f"), 2: ("double_val", "<d"), 3: ("int_val", "<i"), 9: ("int64_val", "<q")}
    if tensor.dtype not in named or tensor.tensor_shape.dim:
        return None
    name, code = named[tensor.dtype]
    if len(tensor.tensor_content) == struct.calcsize(code):
        return float(struct.unpack(code, tensor.tensor_content)[0])
    values = getattr(tensor, name)
    return float(values[0]) if len(values) == 1 else None


def _read_hparams(content: bytes) -> dict[str, Any]:
    """The hyper-parameters in the data of the HParams plugin; none if it cannot be parsed."""
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        values = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        return {}
    return {
        name: getattr(value, value.WhichOneof("kind") or "null_value", None) for name, value in sorted(values.items())
    }
