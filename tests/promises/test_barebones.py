"""``trainer.barebones``, checkpoints and averages: refused before the data, with the words to type, or trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan

BARE = ["trainer.barebones=true", "trainer.enable_checkpointing=false", "trainer.num_sanity_val_steps=0",
        "trainer.log_every_n_steps=null", "logger=none"]  # fmt: skip


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_barebones_run_follows_its_plan(train: Callable[..., Any], recorded: Recorded) -> None:
    run = train(*BARE, "warmup=linear", "trainer.max_epochs=2")
    assert [step["default"][0] for step in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(12)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.barebones=true"], f"trainer.barebones measures the speed alone, and needs {' '.join(BARE[1:])}"),
        ([*BARE, "trainer.profiler=simple", "trainer.detect_anomaly=true"],
         "trainer.barebones measures the speed alone, and needs trainer.detect_anomaly=false trainer.profiler=null."),
        ([*BARE, "plateau=reduce"], "plateau and trainer.barebones cannot be used together: no metric is logged"),
        ([*BARE, "monitor=val/loss"], "monitor and trainer.barebones cannot be used together: no metric is logged"),
        (["callbacks=checkpoint_every", "trainer.enable_checkpointing=false"],
         "callbacks.checkpoint_every and trainer.enable_checkpointing=false cannot be used together"),
        (["callbacks=[ema,swa]"],
         "callbacks.ema must be the only average: a run has one, and callbacks.swa is another"),
    ],
)  # fmt: skip
def test_a_refusal_before_the_data(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(compose(words))
    assert str(refused.value).startswith(said)
