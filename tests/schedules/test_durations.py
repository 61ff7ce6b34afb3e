"""Durations: the accepted spellings, and their numbers of optimizer steps."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon

RUN = Horizon(steps=1000, steps_per_epoch=100, batch_size=64, tokens_per_sample=128)

WRITTEN = [
    # written     value               unit       steps  printed
    (500,         500,                "steps",   500,   "500"),
    ("500",       500,                "steps",   500,   "500"),
    (0,           0,                  "steps",   0,     "0"),
    (2000,        2000,               "steps",   2000,  "2000"),  # longer than the run: each key has a rule for it
    (10**15,      10**15,             "steps",   10**15, "1000000000000000"),
    (0.05,        Fraction(5, 100),   "share",   50,    "5%"),
    (0.1,         Fraction(1, 10),    "share",   100,   "10%"),  # a tenth, not its binary neighbour
    ("0.05",      Fraction(5, 100),   "share",   50,    "5%"),
    (".5",        Fraction(1, 2),     "share",   500,   "50%"),
    ("5%",        Fraction(5, 100),   "share",   50,    "5%"),
    (" 5 % ",     Fraction(5, 100),   "share",   50,    "5%"),
    ("12.5%",     Fraction(1, 8),     "share",   125,   "12.5%"),
    ("100%",      1,                  "share",   1000,  "100%"),
    ("0%",        0,                  "share",   0,     "0%"),
    (1e-7,        Fraction(1, 10**7), "share",   1,     "0.00001%"),  # never 0, unless 0 was written
    ("2ep",       2,                  "epochs",  200,   "2ep"),
    ("1.5 ep",    Fraction(3, 2),     "epochs",  150,   "1.5ep"),
    ("0.001ep",   Fraction(1, 1000),  "epochs",  1,     "0.001ep"),
    ("64000sp",   64000,              "samples", 1000,  "64000sp"),
    ("1sp",       1,                  "samples", 1,     "1sp"),
    ("0sp",       0,                  "samples", 0,     "0sp"),
    ("6.4e4sp",   64000,              "samples", 1000,  "64000sp"),
    ("6.4e+04 sp", 64000,             "samples", 1000,  "64000sp"),
    ("5e6tok",    5_000_000,          "tokens",  610,   "5000000tok"),  # 64 samples of 128 tokens a step: 610.4
    ("8192tok",   8192,               "tokens",  1,     "8192tok"),
    ("1.5e1tok",  15,                 "tokens",  1,     "15tok"),
    ("0tok",      0,                  "tokens",  0,     "0tok"),
]  # fmt: skip

ROUNDED = [
    # share of a run of     steps  is     to the nearest, halves up
    (0.24,                  10,    2),  # 2.4
    (0.25,                  10,    3),  # 2.5
    (0.26,                  10,    3),  # 2.6
    (0.35,                  10,    4),  # 3.5
    (0.29,                  50,    15),  # 14.5 exactly; as floats 0.29 * 50 = 14.499999999999998
    (0.01,                  10,    1),  # 0.1, but not nothing
    ("99.9%",               10,    10),  # 9.99
    ("0%",                  10,    0),
]  # fmt: skip

REFUSED = [
    # written       the sentence
    (1.0,           "length must be 1 for one step, or 100% for the whole run. Received: 1.0"),
    ("1.0",         "length must be 1 for one step, or 100% for the whole run. Received: 1.0"),
    (1.5,           "length must be a whole number of steps, or a share strictly between 0 and 1; or 500 (optimizer"),
    (0.0,           "length must be a whole number of steps, or a share strictly between 0 and 1"),
    (-0.5,          "length must be a whole number of steps, or a share strictly between 0 and 1"),
    (float("nan"),  "length must be a whole number of steps, or a share strictly between 0 and 1"),
    (float("inf"),  "length must be a whole number of steps, or a share strictly between 0 and 1"),
    (-1,            "length must not be negative. Received: -1"),
    (True,          "length must be a length: 500 (optimizer steps), 5% or 0.05 (a share of the run), 2ep (epochs),"
                    " 64000sp or 6.4e4sp (samples), or 5e6tok (tokens). Received: True"),
    (None,          "length must be a length"),
    ([5],           "length must be a length"),
    ("",            "length must be a length"),
    ("-5",          "length must be a length"),
    ("5 %x",        "length must be a length"),
    ("5%%",         "length must be a length"),
    ("5 steps",     "length must be a length"),
    ("5e",          "length must be a length"),
    ("1e3",         "length must be a length"),
    ("1e1%",        "length must be a length"),
    ("1e1ep",       "length must be a length"),
    ("1e-3tok",     "length must be a length"),
    ("1e999tok",    "length must be a length"),
    ("5 e6tok",     "length must be a length"),
    ("1.",          "length must be a length"),
    ("1,000",       "length must be a length"),
    ("٣%",          "length must be a length"),  # a digit to Python, but not to most readers
    ("150%",        "length must be at most 100% of the run. Received: '150%'"),
]  # fmt: skip

UNKNOWN = [
    # written   what is known            the sentence
    ("5%",      Horizon(None, 100, 64),  "warmup.length needs the total number of optimizer steps, which is not known:"
                                         " set trainer.max_"),
    ("2ep",     Horizon(1000, None, 64), "warmup.length needs the number of optimizer steps in an epoch, which is not"
                                         " known: set horizon.steps_per_epoch"),
    ("64sp",    Horizon(1000, 100, None), "warmup.length needs the number of samples in an optimizer step, which is not"
                                         " known: set data.batch_size"),
    ("5e6tok",  Horizon(1000, 100, 64),  "warmup.length needs the number of tokens in a sample, which is not known: set"
                                         " horizon.tokens_per_sample"),
    ("5e6tok",  Horizon(1000, 100, None, tokens_per_sample=128),
                                         "warmup.length needs the number of samples in an optimizer step"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value", "unit", "steps", "printed"), WRITTEN)
def test_what_can_be_written(written: Any, value: Any, unit: Any, steps: int, printed: str) -> None:
    duration = Duration.parse(written)
    assert duration == Duration(Fraction(value), unit)
    assert duration.steps(RUN) == steps
    assert str(duration) == printed
    assert Duration.parse(duration) is duration


@pytest.mark.parametrize(("share", "run", "steps"), ROUNDED)
def test_rounding(share: Any, run: int, steps: int) -> None:
    assert Duration.parse(share).steps(Horizon(run)) == steps


@pytest.mark.parametrize(("written", "sentence"), REFUSED)
def test_what_cannot_be_meant(written: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Duration.parse(written)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("written", "known", "sentence"), UNKNOWN)
def test_what_the_horizon_does_not_know(written: str, known: Horizon, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Duration.parse(written).steps(known, "warmup.length")
    assert str(caught.value).startswith(sentence)
    assert Duration.parse(7).steps(Horizon(None)) == 7  # steps need to know nothing


@given(
    epochs=st.sampled_from([1, 2, 4, 5, 8, 10, 16, 20, 100]), done=st.integers(0, 100),
    per_epoch=st.integers(1, 10**6), batch=st.integers(1, 10**5),
)  # fmt: skip
def test_all_units_give_one_integer(epochs: int, done: int, per_epoch: int, batch: int) -> None:
    done %= epochs + 1
    run, steps = Horizon(epochs * per_epoch, per_epoch, batch), done * per_epoch
    share = Duration(Fraction(done, epochs), "share")
    for written in (steps, f"{done}ep", f"{steps * batch}sp", str(share)):
        assert Duration.parse(written).steps(run) == steps


@given(st.integers(1, 10**5), st.integers(1, 10**7), st.integers(1, 10**7))
def test_the_nearest_number_of_steps(batch: int, samples: int, total: int) -> None:
    steps, exact = Duration.parse(f"{samples}sp").steps(Horizon(total, None, batch)), Fraction(samples, batch)
    assert isinstance(steps, int)
    assert steps - Fraction(1, 2) <= exact < steps + Fraction(1, 2) or (steps == 1 and exact < 1)


DECIMALS = st.decimals(0, 10**6, places=4).map(lambda d: f"{d:f}")


@given(
    st.integers(0, 10**18)
    | st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
    | st.decimals(0, 100, places=6).map(lambda d: f"{d:f}%")
    | DECIMALS.map(lambda d: f"{d}ep")
    | DECIMALS.map(lambda d: f"{d}sp")
)
def test_printing_and_parsing_are_inverse(written: Any) -> None:
    duration = Duration.parse(written)
    assert Duration.parse(str(duration)) == duration
