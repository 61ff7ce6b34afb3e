"""Scalars out of TensorBoard's event files, fast, and also out of files that are half-written or damaged.

An event is a protobuf message (tensorflow/core/util/event.proto). Nothing in a file is executed.
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
        """Forget what was logged at ``step`` and later."""
        if self.steps and self.steps[-1] >= step:
            kept = [i for i, at in enumerate(self.steps) if at < step]
            self.steps, self.values = [self.steps[i] for i in kept], [self.values[i] for i in kept]

    def join(self, later: Series) -> None:
        """Append a series; where both have values, the later one holds from its first step on."""
        if not later.steps:
            return
        self.cut(min(later.steps))
        self.steps += later.steps
        self.values += later.values
        if not all(map(lt, self.steps, self.steps[1:])):  # written out of order, or twice
            ordered = sorted(dict(zip(self.steps, self.values, strict=True)).items())
            self.steps, self.values = [step for step, _ in ordered], [value for _, value in ordered]


@dataclass
class Scalars:
    """What the event files of one folder say.

    Attributes:
        series: tag -> its values.
        hparams: hyper-parameters, as the HParams tab shows them.
        seconds: from the first to the last value in each file, added up.
        notes: a sentence for each file that could not be read to its end.
    """

    series: dict[str, Series] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def event_files(folder: Path) -> list[Path]:
    """The event files that lie directly in a folder, oldest first: their names begin with the time."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file())


def read_events(files: Iterable[Path]) -> Scalars:
    """Read event files that belong to one run, oldest first.

    Of a run that was resumed, a later file says from which step on it holds (``SessionLog.START``), or its first step
    of each tag does. A file is read until its end or until the first record that is damaged. One that goes on from a
    step comes after those that begin, whatever their names say: a clock may have been set back.
    """
    found, read_ones = Scalars(), list[_File]()
    for path in files:
        try:
            content = read_file(path, _LARGEST)
        except OSError as error:
            found.notes.append(f"{path.name} cannot be read ({error.strerror})")
            continue
        spans, damage = record_spans(content)
        part = _File()
        broken = part.take(content, spans)
        if broken is not None:
            damage = f"is damaged at byte {broken}"
        if damage:
            found.notes.append(f"{path.name} {damage}; what comes before was read")
        read_ones.append(part)
    for part in sorted(read_ones, key=lambda part: part.holds_from is not None):
        for series in found.series.values() if part.holds_from is not None else ():
            series.cut(part.holds_from or 0)
        for tag, series in part.series().items():
            found.series.setdefault(tag, Series()).join(series)
        found.hparams |= part.hparams
        found.seconds += part.seconds
    found.series = {tag: series for tag, series in found.series.items() if series.steps}
    return found


class _File:
    """What one file says, tag by tag as written: steps, and values as numbers or as the four bytes of a float."""

    def __init__(self) -> None:
        self.columns: dict[str, _Column] = {}
        self.holds_from: int | None = None
        self.hparams: dict[str, Any] = {}
        self.seconds = 0.0

    def take(self, content: bytes, spans: Sequence[tuple[int, int]]) -> int | None:
        """Read the records; the place of the first one that is no event, if there is one.

        Nearly all events of a file are alike, ``wall time (double) | step | summary: tag, value (float)``, and differ
        in step and value alone. So the bytes between those two are looked up, and only what was never seen goes
        through protobuf; that takes a fifth of the time.
        """
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event

        known: dict[bytes, _Column] = {}
        walls: list[float] = []
        for n, (start, end) in enumerate(spans):
            event = content[start:end]
            step, head = _split(event)
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
            self._take(message)
            if head and message.step == step and _ends_with_the_value(message, event, Event):
                known[head] = self.columns[message.summary.value[0].tag]
        self.seconds = max(walls, default=0.0) - min(walls, default=0.0)
        return None

    def _take(self, message: Any) -> None:
        if message.session_log.status == 1 and self.holds_from is None:  # SessionLog.START
            self.holds_from = message.step
        for value in message.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "hparams":
                self.hparams |= _hparams(plugin.content)
            number = value.simple_value if value.HasField("simple_value") else _number(value.tensor)
            if number is not None:
                steps, values = self.columns.setdefault(value.tag, ([], []))
                steps.append(message.step)
                values.append(number)

    def series(self) -> dict[str, Series]:
        """The columns, with all values as numbers."""
        made = {}
        for tag, (steps, values) in self.columns.items():
            numbers = [_FLOAT.unpack(value)[0] if isinstance(value, bytes) else value for value in values]
            made[tag] = Series()
            made[tag].join(Series(steps, numbers))
        return made


def _split(event: bytes) -> tuple[int, bytes]:
    """The step of an event, and what stands between it and the last four bytes; no bytes for an unusual event."""
    if len(event) < 20 or event[0] != 0x09:  # field 1, a double: the wall time
        return 0, b""
    if event[9] != 0x10:  # field 2, a varint: the step; not written where it is 0
        return 0, event[9:-4]
    step = shift = 0
    for at in range(10, 20):
        byte = event[at]
        step |= (byte & 0x7F) << shift
        if byte < 0x80:
            return step, event[at + 1 : -4]
        shift += 7
    return 0, b""  # a negative step takes ten bytes


def _ends_with_the_value(message: Any, event: bytes, kind: Any) -> bool:
    """Whether the event is one float, and its last four bytes are that: found out by writing others there."""
    values = message.summary.value
    if len(values) != 1 or not values[0].HasField("simple_value"):
        return False
    others = [kind.FromString(event[:-4] + _FLOAT.pack(other)).summary.value[0] for other in (1.0, 2.0)]
    return [other.simple_value for other in others] == [1.0, 2.0] and others[0].tag == values[0].tag


def _number(tensor: Any) -> float | None:
    """The value of a tensor that is one number, as TensorFlow 2 and Keras write scalars; None for any other."""
    named = {1: ("float_val", "<f"), 2: ("double_val", "<d"), 3: ("int_val", "<i"), 9: ("int64_val", "<q")}
    if tensor.dtype not in named or tensor.tensor_shape.dim:
        return None
    name, code = named[tensor.dtype]
    if len(tensor.tensor_content) == struct.calcsize(code):
        return float(struct.unpack(code, tensor.tensor_content)[0])
    values = getattr(tensor, name)
    return float(values[0]) if len(values) == 1 else None


def _hparams(content: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        values = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        return {}
    return {
        name: getattr(value, value.WhichOneof("kind") or "null_value", None) for name, value in sorted(values.items())
    }
