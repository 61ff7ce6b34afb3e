"""``horizon.steps`` against the steps that the trainer takes, before data is read."""

from __future__ import annotations

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.declared_steps import check_declared_steps


@pytest.mark.parametrize("words", [["horizon.steps=1000"], ["horizon.steps=100", "schedule=step", "schedule.every=90"]])
def test_another_length_is_refused_with_the_words_that_take_it(words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_declared_steps(compose(words))
    steps = words[0].partition("=")[2]
    assert str(caught.value) == (
        "horizon.steps must be 570, the number of optimizer steps of the run;"
        f" trainer.max_epochs=null trainer.max_steps={steps} takes {steps}. Received: {steps}"
    )
    typed = ["trainer.max_epochs=null", f"trainer.max_steps={steps}"]
    check_declared_steps(compose([*words, *typed]))


@pytest.mark.parametrize(
    "words",
    [
        ["horizon.steps=570"],
        ["horizon.steps=15ep"],
        ["horizon.steps=1000", "horizon.stop_after=100"],
        ["horizon.steps=1000", "optimizer.lr=auto", "trainer.max_epochs=null", "trainer.max_steps=1000"],
        ["horizon.steps=1000", "model=custom", "model._target_=mine.Manual"],  # may decide itself when to step
        ["horizon.steps=1000", "data=arrays", "data.path=table.csv"],  # its samples are counted later
    ],
)
def test_an_equal_or_unknown_length_is_accepted(words: list[str]) -> None:
    check_declared_steps(compose(words))
