"""A schedule from a table of values of the user."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from lrkit.base.errors import ConfigError
from lrkit.base.validation import one_of, optional, text
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.shapes.schedule import Endless, blend
from lrkit.schedules.table_file import check_rows, read_table

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Table"]


@dataclass(frozen=True)
class Table(Endless):
    """A table of your own: values at places, with lines, steps or half cosines between them.

        m = v_i + (v_{i+1} - v_i) * w,     t = (s - p_i) / (p_{i+1} - p_i)     from place p_i to place p_{i+1}
        w = t (linear), 0 (previous) or (1 - cos(pi * t)) / 2 (cosine)

    Before its first place, the table has its first value; after its last place, its last value.

    Args:
        table: rows ``[place, value]``: a duration from the beginning of the schedule, and a multiplier >= 0; or the
            path of a .csv or .json file with such rows, relative to the working folder. lrkit reads the file once; the
            plan contains its rows. A CSV file may begin with a row of names. At most 10,000 rows.
        interpolate: ``linear``, ``previous`` (steps) or ``cosine``.
        normalise: ``peak`` or ``first``: all values are divided by the largest or the first value; for a file with
            learning rates, such as the output of ``lrkit show format=csv``.
        column: of a CSV file, the name of the column with the values.

    ``cosine`` and ``linear`` equal ``optax.piecewise_interpolate_schedule``.

    >>> [Table(table=[[0, 1.0], [50, 0.5], [100, 0.1]])(s, 200) for s in (0, 25, 50, 75, 100, 150)]
    [1.0, 0.75, 0.5, 0.3, 0.1, 0.1]
    """

    table: Sequence[tuple[Length, float]] | str = ((0, 1.0), ("50%", 0.5), ("75%", 0.1))
    interpolate: Literal["linear", "previous", "cosine"] = "linear"
    normalise: Literal["peak", "first"] | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("linear", "previous", "cosine").check("interpolate", self.interpolate)
        optional(one_of("peak", "first")).check("normalise", self.normalise)
        optional(text(meaning="the name of a column")).check("column", self.column)
        if isinstance(self.table, str):
            rows = read_table(self.table, self.column, rates=self.normalise is not None)
        elif self.column is not None:
            raise ConfigError("column", "must be null where the table is a list: it chooses from a file", self.column)
        else:
            rows = check_rows(self.table)
        if self.normalise is not None:
            by = rows[0][1] if self.normalise == "first" else max(value for _, value in rows)
            if by == 0.0:
                raise ConfigError("normalise", "must divide by a value > 0, and it is 0", self.normalise)
            rows = tuple((place, value / by) for place, value in rows)
        for name, value in (("table", rows), ("column", None)):
            object.__setattr__(self, name, value)

    def resolved(self, horizon: Horizon) -> Self:
        rows: list[tuple[int, float]] = []
        for i, (place, value) in enumerate(self._rows):
            step = Duration.parse(place, f"table[{i}]").steps(horizon, f"table[{i}]")
            if rows and step <= rows[-1][0]:
                before = f"{self._rows[i - 1][0]}, which is step {rows[-1][0]}"
                raise ConfigError(f"table[{i}]", f"must have a place after {before}; its own is step {step}", place)
            rows.append((step, value))
        return dataclasses.replace(super().resolved(horizon), table=tuple(rows))

    @property
    def _rows(self) -> Sequence[tuple[Any, float]]:
        assert not isinstance(self.table, str)
        return self.table

    @cached_property
    def _places(self) -> list[int]:
        return [int(place) for place, _ in self._rows]

    def value(self, s: int, n: int) -> float:
        rows, places = self._rows, self._places
        i = bisect_right(places, s) - 1
        if i < 0 or i == len(rows) - 1 or self.interpolate == "previous":
            return rows[max(i, 0)][1]
        t = (s - places[i]) / (places[i + 1] - places[i])
        return blend(rows[i][1], rows[i + 1][1], t if self.interpolate == "linear" else (1 - math.cos(math.pi * t)) / 2)

    def end_value(self, n: int) -> float:
        return self.value(n - 1 if self.interpolate == "previous" else n, n)

    def turns(self, n: int) -> list[int]:
        return [place for place in self._places if 0 < place < n]

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        inside = len(edges) + (Duration.parse(self._rows[0][0]).value == 0)
        # The interpolation uses the first place after the end too.
        late = self._rows[inside + (self.interpolate != "previous") :]
        if not late:
            return []
        return [f"the table's place {late[0][0]} is never reached: the schedule has {n} steps after the warmup"]
