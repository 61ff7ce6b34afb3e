"""Steps planned are steps taken: one too many ends the run, one too few is told; callbacks that do it are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Recorded
from foreign import Data, Net
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import lrkit
from lrkit.callback_conflicts import conflict
from lrkit.errors import ConfigError, RunError
from lrkit.lightning import PACKAGE, Callback, Trainer

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
callbacks: Any = import_module(f"{PACKAGE}.callbacks")


class Steps(Net):
    """Optimizes by itself: ``times`` steps at every ``every``-th batch, as SAM and accumulation by hand do."""

    def __init__(self, times: int = 1, every: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.times, self.every = times, every

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for _ in range(self.times if batch_idx % self.every == 0 else 0):
            optimizer.step()
        return loss


class EverySecond(Net):
    """Its own ``optimizer_step``, as Lightning's documentation has it."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2 == 0:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class Detached(Net):
    """A loss of which no parameter has a gradient, by its own doing."""

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None


RUN = ("model=custom", "data=custom", "data._target_=foreign.Data", "data.batch_size=10", "trainer.max_epochs=2",
       "trainer.limit_train_batches=6", "optimizer=adamw")  # fmt: skip


def of(name: str, *more: str) -> list[str]:
    return [*RUN, f"model._target_={__name__}.{name}", *more]


def test_a_step_beyond_the_plan_ends_the_run(train: Callable[..., Any], recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"takes step 13 \(epoch 2, batch 1\), and 12 are planned.*horizon\.steps"):
        train(*of("Steps", "+model.times=2"))
    assert len(recorded) == 12
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["status"] == "failed"


@pytest.mark.parametrize(("name", "taken"), [("Steps", 6), ("EverySecond", 6)])
def test_steps_that_were_not_taken_are_told(
    name: str, taken: int, train: Callable[..., Any], recorded: Recorded, tmp_path: Path
) -> None:
    more = ["+model.every=2"] if name == "Steps" else []
    with pytest.raises(RunError, match=rf"^12 steps were planned, {taken} were taken: .*horizon\.steps"):
        train(*of(name, *more))
    assert len(recorded) == taken
    (metrics,) = tmp_path.rglob("metrics.json")
    content = json.loads(metrics.read_text())
    assert (content["status"], content["steps"]) == ("failed", taken) and "were planned" in content["why"]


@pytest.mark.parametrize(
    ("name", "more", "steps"),
    [("Steps", "+model.times=2", 24), ("Steps", "+model.every=2", 6), ("EverySecond", "", 6)],
)
def test_how_many_there_are_can_be_said(
    name: str, more: str, steps: int, train: Callable[..., Any], recorded: Recorded
) -> None:
    run = train(*of(name, f"horizon.steps={steps}", *([more] if more else [])))
    assert run.status == "done" and run.plan.horizon.steps == steps
    assert [s["default"][0] for s in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(steps)]


def test_it_must_still_be_true_where_lightning_knows(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^horizon\.steps must be what the run will take, 12"):
        train(*RUN, "model._target_=foreign.Net", "horizon.steps=24")


def test_a_run_without_a_gradient_is_not_done(train: Callable[..., Any]) -> None:
    with pytest.raises(RunError, match=r"^no parameter had a gradient at any step"):
        train(*of("Detached"))


def test_steps_that_the_guard_leaves_out_are_counted(train: Callable[..., Any]) -> None:
    ill = "+callbacks.ill={_target_: ill.Ill, steps: [2, 5]}"
    run = train("guard=skip", ill, "trainer.max_epochs=2")
    assert run.status == "done" and run.plan.horizon.steps == 12
    assert json.loads((run.folder / "metrics.json").read_text())["steps"] == 10


class TestConflicts:
    REFUSED = ("BatchSizeFinder", "GradientAccumulationScheduler", "LearningRateFinder", "StochasticWeightAveraging")

    def test_by_class_and_by_what_inherits_from_it(self) -> None:
        for name in self.REFUSED:
            assert conflict(getattr(callbacks, name))
            assert conflict(type("Mine", (getattr(callbacks, name),), {}))
        fine = ("EarlyStopping", "LearningRateMonitor", "BackboneFinetuning", "WeightAveraging", "Timer")
        assert not [name for name in fine if conflict(getattr(callbacks, name))]
        assert conflict(type("BatchSizeFinder", (), {})) is None  # of nobody we know

    @pytest.mark.parametrize(
        ("name", "arguments", "advice"),
        [
            ("BatchSizeFinder", {}, "data.batch_size"),
            ("GradientAccumulationScheduler", {"scheduling": {0: 1}}, "accumulate_grad_batches"),
            ("LearningRateFinder", {}, "lrkit find"),
            ("StochasticWeightAveraging", {"swa_lrs": 0.1}, "cooldown"),
        ],
    )
    def test_they_are_refused_in_train_and_in_configure(
        self, name: str, arguments: dict[str, Any], advice: str, train: Callable[..., Any], tmp_path: Path
    ) -> None:
        node = json.dumps({"_target_": f"pytorch_lightning.callbacks.{name}", **arguments})
        with pytest.raises(ConfigError, match=rf"^callbacks\.x .*{advice}"):
            train("+callbacks.x=" + node.replace('"', "").replace(":", ": "))
        callback = getattr(callbacks, name)(**arguments)
        trainer = Trainer(max_epochs=1, callbacks=[callback], logger=False, default_root_dir=tmp_path, **QUIET)
        with pytest.raises(ConfigError, match=rf"^{name} .*{advice}"):
            trainer.fit(lrkit.configure(Net(), lr=0.1), Data())


QUIET: dict[str, Any] = {
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
}  # fmt: skip


def test_in_plain_lightning_it_is_said_too(tmp_path: Path) -> None:
    trainer = Trainer(max_epochs=2, logger=False, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(RunError, match="takes step 17"):
        trainer.fit(lrkit.configure(Steps(times=2), lr=0.1), Data())
    trainer = Trainer(max_epochs=2, logger=False, default_root_dir=tmp_path, **QUIET)
    with pytest.warns(UserWarning, match="^16 steps were planned, 8 were taken"):
        trainer.fit(lrkit.configure(Steps(every=2), lr=0.1), Data())


class Joins(Callback):
    """Lets the frozen half join at an epoch, at a tenth of the rate, and doubles its rate at each later one."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        (optimizer,) = trainer.optimizers
        if trainer.current_epoch == 1:
            rate = 0.1 * optimizer.param_groups[0]["lr"]
            optimizer.add_param_group({"params": [*pl_module.late.parameters()], "lr": rate})
        elif trainer.current_epoch > 1:
            rate = optimizer.param_groups[1]["lr"] = 2.0 * optimizer.param_groups[1]["lr"]
        else:
            return
        self.asked.append(rate)


class Half(Net):
    def __init__(self) -> None:
        super().__init__()
        self.late = torch.nn.Linear(4, 2)
        self.late.requires_grad_(False)


def test_a_group_that_joins_has_the_rate_that_it_asks_for(tmp_path: Path) -> None:
    used: list[list[float]] = []

    class Looks(Callback):
        def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            used.append([float(group["lr"]) for group in optimizer.param_groups])

    joins = Joins()
    trainer = Trainer(max_epochs=4, callbacks=[joins, Looks()], logger=False, default_root_dir=tmp_path, **QUIET)
    module = lrkit.configure(Half(), lr=0.1, schedule="cosine")
    trainer.fit(module, Data())
    curve = lrkit.curve("cosine", steps=32)
    later = [rates[1] for rates in used if len(rates) == 2]
    assert [later[0], later[8], later[16]] == joins.asked
    for epoch, asked in enumerate(joins.asked, 1):  # and in between it follows the curve
        for t in range(8 * epoch, 8 * epoch + 8):
            assert later[t - 8] == pytest.approx(asked * curve(t) / curve(8 * epoch), rel=1e-12)
    assert [rates[0] for rates in used] == [0.1 * curve(t) for t in range(32)]


def test_rates_and_losses_have_one_axis_after_another_batch_size(train: Callable[..., Any]) -> None:
    first = train(*RUN, "model._target_=foreign.Net", "logger=tensorboard", "trainer.log_every_n_steps=1")
    again = train(
        *RUN[:3], "data.batch_size=20", "trainer.limit_train_batches=3", "model._target_=foreign.Net",
        "optimizer=adamw", "trainer.max_epochs=4", "logger=tensorboard", "trainer.log_every_n_steps=1",
        f"resume.path={first.folder}", "resume.policy=override",
    )  # fmt: skip
    assert again.status == "done" and again.plan.horizon.steps == 12
    events = EventAccumulator(str(next(again.folder.rglob("events.out.tfevents*")).parent)).Reload()
    rates = [event.step for event in events.Scalars("lr/default")]
    losses = [event.step for event in events.Scalars("train_loss")]
    assert rates == losses == [*range(6, 12)]
