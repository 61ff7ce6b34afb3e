"""The loss recorder: bounded memory for a run of any length, by joined windows; and a resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrkit.callbacks.loss_recorder import LossRecorder
from lrkit.runs.event_reader import Series


def recorded(losses: list[float], trace: LossRecorder | None = None, first: int = 1) -> LossRecorder:
    trace = trace or LossRecorder()
    for step, loss in enumerate(losses, start=first):
        trace.add(torch.tensor(loss), lambda: 0.5, step)
    return trace


@given(st.integers(0, 3000))
def test_windows_are_of_one_length_and_hold_the_mean(batches: int) -> None:
    trace = recorded([float(i) for i in range(batches)])
    curves = trace.curves()
    n, size = len(curves.train.steps), trace.size
    assert n < LossRecorder.most and (size == 1 or n >= LossRecorder.most // 2)
    assert curves.train.steps == [size * (i + 1) for i in range(n)]
    assert curves.train.values == pytest.approx([size * i + (size - 1) / 2 for i in range(n)])
    assert batches - size < n * size <= batches
    assert math.isnan(curves.first) if batches == 0 else curves.first == 0.0


def test_where_the_loss_was_lost_stays_known() -> None:
    curves = recorded([1.0] * 50 + [math.nan] * 5000).curves()
    assert math.isnan(curves.train.values[-1])
    assert next(s for s, v in zip(curves.train.steps, curves.train.values, strict=True) if math.isnan(v)) == 51


def test_one_bad_batch_is_not_the_end() -> None:
    curves = recorded([1.0] * 50 + [math.nan] + [1.0] * 5000).curves()
    assert sum(map(math.isnan, curves.train.values)) == 1 and curves.train.steps[-1] > 5000


def test_it_goes_on_where_it_was() -> None:
    losses = [1.0 / (1 + i) for i in range(1001)]
    whole, first, then = recorded(losses), recorded(losses[:613]), LossRecorder()
    first.validated = Series([600], [0.5])
    then.load_state_dict(first.state_dict())
    recorded(losses[613:], then, first=614)
    assert then.curves().validated == Series([600], [0.5])
    assert then.curves().train.steps == whole.curves().train.steps
    assert then.curves().train.values == pytest.approx(whole.curves().train.values)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_records_its_losses_rates_and_validations(
    accumulate: int, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[LossRecorder] = []
    made = LossRecorder.__init__
    monkeypatch.setattr(LossRecorder, "__init__", lambda self: (made(self), kept.append(self))[0])  # type: ignore[func-returns-value]
    run = train(
        "schedule=cosine", "trainer.max_epochs=2", f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.log_every_n_steps=1",
    )  # fmt: skip
    curves = kept[0].curves()
    assert curves.train.steps[-1] == run.plan.horizon.steps == 12 // accumulate
    assert curves.rates[-1] == run.plan.lr(run.plan.groups[0], run.plan.horizon.steps - 1)
    of_the_last_step = curves.train.values[-accumulate:]
    assert sum(of_the_last_step) / accumulate == pytest.approx(run.final["train/loss"])
    assert curves.validated.steps == [6 // accumulate, 12 // accumulate]
    assert curves.validated.values[-1] == run.final["val/loss"]
