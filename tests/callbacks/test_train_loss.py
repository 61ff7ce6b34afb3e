"""``train/loss`` is the mean over all samples since its last value, wherever it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrkit.callbacks.train_loss import SampleMean
from lrkit.lightning.batch_loss import count_samples, read_loss
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import step_of

SPY = "+callbacks.spy={_target_: test_train_loss.Spy}"
LOGS = ("logger=tensorboard", "trainer.log_every_n_steps=4", "trainer.limit_train_batches=1.0", "trainer.max_epochs=1",
        "data.batch_size=96", "schedule=linear", SPY)  # fmt: skip
#: 1197 samples: 12 batches of 96 and one of 45.
SIZES = [96] * 12 + [45]


class Spy(Callback):
    """Keeps the loss, the size and the optimizer steps after each batch, and ``train/loss`` at each validation."""

    batches: list[tuple[float, int, int]] = []  # noqa: RUF012
    validated: list[float] = []  # noqa: RUF012

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Spy.batches, Spy.validated = [], []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = read_loss(trainer, outputs)
        assert loss is not None
        Spy.batches.append((float(loss), count_samples(batch), step_of(trainer)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            Spy.validated.append(float(trainer.callback_metrics["train/loss"]))


def points(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def means(after: list[int]) -> list[float]:
    """The means of the batches of ``Spy`` up to each of the numbers of optimizer steps."""
    found, first = [], 0
    for end in after:
        part = [(loss, size) for loss, size, steps in Spy.batches if first < steps <= end]
        found.append(sum(loss * size for loss, size in part) / sum(size for _, size in part))
        first = end
    return found


@pytest.mark.parametrize(
    ("more", "after"),
    [
        ([], [4, 8, 12, 13]),
        (["trainer.val_check_interval=6"], [4, 6, 8, 12, 13]),
        (["trainer.max_steps=7"], [4, 7]),  # the end of the run, not the value of step 4 again
        (["horizon.stop_after=6"], [4, 6]),
    ],
)
def test_it_is_a_mean_over_samples(more: list[str], after: list[int], train: Callable[..., Any]) -> None:
    run = train(*LOGS, *more)
    assert [size for _, size, _ in Spy.batches] == SIZES[: len(Spy.batches)]
    wanted = means(after)
    logged = points(run.folder)
    assert [step + 1 for step in logged] == after and [*logged.values()] == pytest.approx(wanted, rel=1e-5)
    assert run.final["train/loss"] == pytest.approx(wanted[-1], rel=1e-5)
    results = json.loads((run.folder / "metrics.json").read_text())
    assert results["final"]["train/loss"] == run.final["train/loss"]
    at_validations = [wanted[1], wanted[3]] if more == ["trainer.val_check_interval=6"] else [wanted[-1]]
    assert Spy.validated == pytest.approx(at_validations, rel=1e-5) and results["best"]["train/loss"] in Spy.validated


def test_an_accumulated_step_counts_all_its_batches(train: Callable[..., Any]) -> None:
    run = train(*LOGS, "trainer.accumulate_grad_batches=3")
    whole = [(loss, size, index // 3 + 1) for index, (loss, size, _) in enumerate(Spy.batches)]
    Spy.batches = whole
    assert [*points(run.folder).values()] == pytest.approx(means([4, 5]), rel=1e-5)


def test_a_resumed_run_has_the_values_of_an_uninterrupted_one(train: Callable[..., Any]) -> None:
    whole = points(train(*LOGS).folder)
    part = train(*LOGS, "horizon.stop_after=6")
    assert (
        torch.load(part.folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["AsOne"]["TrainLoss"][
            "samples"
        ]
        == 2 * 96
    )
    rest = train(*LOGS, f"resume.path={part.folder}", "horizon.stop_after=null")
    assert points(rest.folder) == {step: whole[step] for step in (7, 11, 12)}


def test_a_step_that_the_guard_left_out_does_not_count(train: Callable[..., Any]) -> None:
    run = train(*LOGS, "guard=skip", "+callbacks.ill={_target_: diverging_training.Ill, steps: [5, 12]}")
    assert run.status == "done" and all(map(math.isfinite, points(run.folder).values()))
    assert math.isfinite(run.final["train/loss"])


def test_a_mean_reads_nothing_before_it_is_asked() -> None:
    """On the meta device a tensor has no value: reading it would raise."""
    mean, window = SampleMean(), SampleMean()
    for _ in range(3):
        window.add(torch.zeros((), device="meta"), 2)
    mean.join(window)
    assert mean.samples == 6 and window.samples == 0 and mean.sum is not None and mean.sum.device.type == "meta"
