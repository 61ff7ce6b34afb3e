"""A schedule from a formula of the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Length
from lrkit.schedules.expression import Expression, formula_text, parse_expression
from lrkit.schedules.shapes.schedule import Schedule, duration

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Formula"]

_VARIABLES = ("u", "s", "n", "epoch")
_ALL_STEPS = 20_000  # a phase of no more steps is checked at each of them
_SAMPLE = 5000
_SHOWN = 40  # characters of the formula in the table of phases
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly


@dataclass(frozen=True)
class Formula(Schedule):
    """A formula of your own.

        m = formula(u, s, n, epoch),     u = s / n,     epoch = s / epoch_length

    A formula has numbers, ``pi``, ``+ - * / // % **``, comparisons (true is 1, false is 0), ``and``, ``or``,
    ``not``, ``a if c else b``, and ``abs min max floor ceil exp log log2 log10 sqrt sin cos tan asin acos atan tanh``.
    ``floor(epoch)`` is the number of the epoch. Everything is computed in floats. A formula without ``u`` and ``n``
    needs no end.

    The values must be finite and >= 0. lrkit checks them before the run: at each step of a phase of up to 20,000 steps,
    in a longer phase at 10,000 steps, around each edge and around the numbers in the formula. An invalid value at
    another step ends the run with an error that names the step. Edges are the steps at which a comparison of ``u``,
    ``s`` or ``epoch`` with a fixed value changes; a jump by ``floor`` or ``%`` is not an edge.

    Args:
        formula: the expression, of at most 1000 characters.
        epoch_length: the duration of an epoch for ``epoch``; used only if the formula has ``epoch``.

    >>> [Formula(formula="0.5*(1+cos(pi*u))")(s, 100) for s in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    >>> Formula(formula="0.1 if s >= 30 else 1").edges(100)
    [30]
    """

    formula: str = "0.5*(1+cos(pi*u))"
    epoch_length: Length = duration("1ep")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "formula", formula_text("formula", self.formula))
        if not self._expression.names:
            self.value(0, 1)

    @cached_property
    def _expression(self) -> Expression:
        try:
            return parse_expression(self.formula, _VARIABLES)
        except ConfigError as error:
            raise error.under("formula") from None

    @property
    def bounded(self) -> bool:
        return bool(self._expression.names & {"u", "n"})

    def resolved(self, horizon: Horizon) -> Self:
        # Without the name `epoch`, an unknown length of an epoch is no error.
        asked = self if "epoch" in self._expression.names else dataclasses.replace(self, epoch_length=1)
        made = super(Formula, asked).resolved(horizon)
        if not made.bounded and horizon.steps is None:
            _check_and_find_turns(made, _ALL_STEPS)
        return made

    @cached_property
    def epoch_steps(self) -> int:
        """The optimizer steps of an epoch; 1 if the formula does not have ``epoch``."""
        return int(self.epoch_length) if "epoch" in self._expression.names else 1

    def _list_variables(self, s: float, n: int) -> Sequence[float]:
        return (s / n, float(s), float(n), s / self.epoch_steps)

    def describe(self) -> str:
        """Return the name and the set options, with the formula, shortened if it is long.

        >>> Formula(formula="1-u**2", floor=0.1).describe()
        'formula 1-u**2 floor=0.1'
        """
        name, *options = super().describe().split(" ")
        short = self.formula if len(self.formula) <= _SHOWN else f"{self.formula[: _SHOWN - 3]}..."
        return " ".join([name, " ".join(short.split()), *options])

    def value(self, s: int, n: int) -> float:
        try:
            return self._expression.value(self._list_variables(s, n))
        except ConfigError as error:
            # In a run of another length the formula may be valid, unless it depends only on the progress.
            why = ArithmeticError(error.must) if s > 0 and self._expression.names != {"u"} else None
            raise ConfigError("formula", f"{error.must} at step {s} of {n}", self.formula) from why

    def turns(self, n: int) -> list[int]:
        return list(_check_and_find_turns(self, n))

    def numbers(self) -> frozenset[float]:
        """The numbers in the formula."""
        return self._expression.numbers

    def find_turns(self, n: int) -> list[int]:
        """Return the steps at which a comparison with a fixed value changes."""
        found = set()
        for holds in self._expression.comparisons:
            with suppress(ArithmeticError, ValueError):  # a part that the formula may never compute
                last = holds(self._list_variables(n - 1, n))
                low, high = 0, n - 1
                if holds(self._list_variables(low, n)) == last:
                    continue
                while high - low > 1:  # the change is after low, and at high or before
                    middle = (low + high) // 2
                    low, high = (low, middle) if holds(self._list_variables(middle, n)) == last else (middle, high)
                found.add(high)
        return sorted(found)


@lru_cache(maxsize=128)
def _check_and_find_turns(formula: Formula, n: int) -> tuple[int, ...]:
    """Return the turns of a formula, after a check of its values: at every step of a short phase, else at some steps.

    Raises:
        ConfigError: the first invalid value.
    """
    turns = formula.find_turns(n)
    steps: Sequence[int] = range(n + 1)
    if n > _ALL_STEPS:
        spread = (int(k * _GOLDEN % 1.0 * n) for k in range(_SAMPLE))
        units = (1, n, formula.epoch_steps)
        written = {int(x * unit) for x in formula.numbers() for unit in units if x * unit <= n}
        around = {s + i for s in (*turns, *written) for i in (-1, 0, 1) if 0 <= s + i <= n}
        steps = sorted({*range(0, n, -(-n // _SAMPLE)), *spread, *around, n - 1, n})
    for s in steps:
        formula.value(s, n)
    return tuple(turns)
