"""Schedules of a third party in a config: the options of every schedule come with each option of the group."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan
from lrkit.planning.plan import Plan
from lrkit.schedules import Schedule

ME = "test_own_schedules"


@dataclass(frozen=True)
class Half(Schedule):
    """A bare shape."""

    at: float = 0.5

    def value(self, s: int, n: int) -> float:
        return 1.0 if s < self.at * n else 0.1


@dataclass(frozen=True)
class Called(Schedule):
    """One with its own ``__call__``, and its own ``scale``."""

    scale: float = 3.0

    def __call__(self, s: int, n: int) -> float:
        return self.scale


class ByHand(Schedule):
    """One whose argument is no field."""

    def __init__(self, at: float = 0.5, length: int | None = None) -> None:
        super().__init__(length=length)
        object.__setattr__(self, "at", at)

    def __call__(self, s: int, n: int) -> float:
        return 1.0


def planned(name: str, *words: str) -> Plan:
    return plan(compose(["schedule=constant", "~schedule.start", f"schedule._target_={ME}.{name}", *words]))


def said(name: str, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(name, *words)
    return str(caught.value)


def test_a_bare_shape_takes_the_options_of_every_schedule() -> None:
    made = planned("Half", "+schedule.at=0.2", "schedule.floor=0.3", "schedule.scale=0.5", "warmup=linear",
                   "warmup.overlap=join")  # fmt: skip
    assert [made.curve(s) for s in (100, 113, 114, 500)] == [0.5, 0.5, 0.3, 0.3]
    assert Plan.from_json(made.to_json()).curve == made.curve


@pytest.mark.parametrize("option", ["floor=0.3", "skip=5", "update_every=1ep"])
def test_a_class_with_its_own_call_refuses_them_by_name(option: str) -> None:
    name = option.partition("=")[0]
    assert said("Called", f"schedule.{option}").startswith(
        f"schedule.{name} cannot be set for Called, which has its own __call__: rename it to value. Received: "
    )


def test_an_option_of_its_own_is_its_own() -> None:
    assert planned("Called", "schedule.scale=2.0", "schedule.length=10").curve(3) == 2.0
    overlapped = planned("Called", "schedule.scale=2.0", "warmup=linear", "warmup.overlap=join", "warmup.start=0.5")
    assert overlapped.curve(0) == 1.0 and overlapped.curve(100) == 2.0


def test_arguments_that_are_no_fields_would_be_lost() -> None:
    assert said("ByHand", "+schedule.at=0.2").startswith(
        "schedule._target_ must be a dataclass without __init__, because the plan saves its fields: write @dataclass"
    )
