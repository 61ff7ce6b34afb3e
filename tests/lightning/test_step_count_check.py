"""The number of optimizer steps is the plan's: one more ends it, one less is reported; such callbacks are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_lightning import Data, Net
from recorded_rates import Recorded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import lrkit
from lrkit.base.errors import ConfigError, RunError
from lrkit.cli.main import main
from lrkit.config.callback_conflicts import find_conflict
from lrkit.config.compose import check, compose
from lrkit.lightning.imports import PACKAGE, Callback, Trainer

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


class Leaves(Net):
    """Leaves out the first step of each epoch."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class Bare(Net):
    """Steps torch's optimizer, which Lightning does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers(use_pl_optimizer=False).step()  # type: ignore[union-attr]
        return loss


class Averages(Net):
    """Brings a callback along that owns the rate."""

    def configure_callbacks(self) -> Any:
        return callbacks.StochasticWeightAveraging(0.1)


class Detached(Net):
    """A loss of which no parameter has a gradient, by its own doing."""

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None


RUN = ("model=custom", "data=custom", "data._target_=plain_lightning.Data", "data.batch_size=10",
       "trainer.max_epochs=2", "trainer.limit_train_batches=6", "optimizer=adamw")  # fmt: skip


def of(name: str, *more: str) -> list[str]:
    said = {word.partition("=")[0] for word in more}
    return [*(word for word in RUN if word.partition("=")[0] not in said), f"model._target_={__name__}.{name}", *more]


def failed(tmp_path: Path) -> dict[str, Any]:
    (metrics,) = tmp_path.rglob("metrics.json")
    content: dict[str, Any] = json.loads(metrics.read_text())
    assert content["status"] == "failed"
    return content


def test_more_steps_than_planned_are_refused_after_the_first_batch(
    train: Callable[..., Any], recorded: Recorded
) -> None:
    told = (
        r"^horizon\.steps must be set: Steps takes 2 steps in its first batch, and the plan has 12 .*horizon\.steps=24"
    )
    with pytest.raises(ConfigError, match=told):
        train(*of("Steps", "+model.times=2"))
    assert len(recorded) == 2


@pytest.mark.parametrize("limit", ["trainer.max_steps=12", "trainer.max_steps=8"])
def test_steps_that_lightning_limits_are_those_planned(
    limit: str, train: Callable[..., Any], recorded: Recorded
) -> None:
    """Two in a batch: half of the batches, but all of the plan."""
    run = train(*of("Steps", "+model.times=2", limit))
    assert (run.status, run.plan.horizon.steps) == ("done", len(recorded)) == ("done", int(limit.partition("=")[2]))


def test_a_step_beyond_the_plan_ends_the_run(train: Callable[..., Any], recorded: Recorded, tmp_path: Path) -> None:
    told = r"^20 steps were planned, and Steps takes step 21 \(epoch 2, batch 5\).*horizon\.steps=24.*last\.ckpt$"
    with pytest.raises(RunError, match=told):
        train(*of("Steps", "+model.times=2", "horizon.steps=20"))
    assert len(recorded) == 20 and failed(tmp_path)["steps"] == 20
    (last,) = tmp_path.rglob("last.ckpt")
    recorded.clear()
    run = train(*of("Steps", "+model.times=2", "horizon.steps=24", f"resume.path={last}", "resume.policy=override"))
    assert (run.status, len(recorded)) == ("done", 4)  # with the batch for which there was no rate
    assert [s["default"][0] for s in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(20, 24)]


def test_no_way_to_step_goes_by_it(train: Callable[..., Any], recorded: Recorded) -> None:
    with pytest.raises(RunError, match=r"^9 steps were planned, and Bare takes step 10.*horizon\.steps=12"):
        train(*of("Bare", "horizon.steps=9"))
    assert len(recorded) == 9


@pytest.mark.parametrize("name", ["Steps", "EverySecond"])
def test_half_of_the_steps_are_told_after_the_first_epoch(
    name: str, train: Callable[..., Any], recorded: Recorded, tmp_path: Path
) -> None:
    more = ["+model.every=2"] if name == "Steps" else []
    told = r"^6 steps were planned for the first epoch, 3 were taken: .*horizon\.steps=6"
    with pytest.raises(RunError, match=told):
        train(*of(name, *more))
    assert len(recorded) == failed(tmp_path)["steps"] == 3


@pytest.mark.parametrize(
    ("limit", "planned", "taken"), [("trainer.max_steps=-1", 12, 10), ("trainer.max_steps=9", 9, 7)]
)
def test_steps_that_were_not_taken_are_told_at_the_end(
    limit: str, planned: int, taken: int, train: Callable[..., Any], recorded: Recorded, tmp_path: Path
) -> None:
    with pytest.raises(
        RunError, match=rf"^{planned} steps were planned, {taken} were taken: .*horizon\.steps={taken}\."
    ):
        train(*of("Leaves", limit))
    assert len(recorded) == taken
    content = failed(tmp_path)
    assert content["steps"] == taken and "were planned" in content["why"]


def test_a_loader_that_ends_before_its_length_is_told_at_the_end(train: Callable[..., Any]) -> None:
    """No batch of the last epoch is its last one, and there was no request to stop."""
    data = "data._target_=kinds_of_loaders.Loaded"
    words = of("Net", "model._target_=plain_lightning.Net", data, "+data.kind=ending", "trainer.max_epochs=3")
    with pytest.raises(RunError, match=r"^18 steps were planned, 12 were taken: "):
        train(*(word for word in words if not word.startswith(f"model._target_={__name__}")))


def test_a_run_that_somebody_ends_is_not_accused(train: Callable[..., Any], recorded: Recorded) -> None:
    run = train(*of("Leaves", "+callbacks.halt={_target_: interrupted_runs.Halt, at: 9}"))
    assert (run.status, len(recorded)) == ("stopped", 7)


def test_the_command_says_it_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *of("Steps", "+model.times=2", "logger=none")]) == 2
    assert main(["train", *of("Leaves", "logger=none")]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("lrkit: horizon.steps must be set")
    assert second.startswith("lrkit: 12 steps were planned, 10 were taken")


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


def test_how_many_there_are_in_an_epoch_can_be_said(train: Callable[..., Any], recorded: Recorded) -> None:
    run = train(*of("Steps", "+model.times=2", "horizon.steps_per_epoch=12"))
    assert (run.status, run.plan.horizon.steps, len(recorded)) == ("done", 24, 24)


def test_lengths_in_epochs_are_of_the_steps_that_were_said(train: Callable[..., Any]) -> None:
    warm = ["+model.times=2", "data.train_samples=60", "warmup=linear", "warmup.length=1ep"]
    assert train(*of("Steps", *warm, "horizon.steps=24")).plan.warmup_steps == 12
    with pytest.raises(
        ConfigError, match=r"^horizon\.steps_per_epoch must be set.* 25 steps do not divide by 2 epochs"
    ):
        train(*of("Steps", *warm, "horizon.steps=25"))


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("trainer.accumulate_grad_batches", "trainer.accumulate_grad_batches=2"),
        ("batch.effective", "batch.effective=20"),
        ("trainer.gradient_clip_val", "trainer.gradient_clip_val=1.0"),
    ],
)
def test_what_lightning_does_only_where_it_steps_is_refused_before_there_is_data(
    key: str, word: str, train: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} is for automatic optimization, and Steps uses"):
        train(*of("Steps", word))


def test_it_must_still_be_true_where_lightning_knows(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^horizon\.steps must be 12, the number"):
        train(*RUN, "model._target_=plain_lightning.Net", "horizon.steps=24")


def test_a_run_without_a_gradient_is_not_done(train: Callable[..., Any]) -> None:
    with pytest.raises(RunError, match=r"^no parameter had a gradient at any step"):
        train(*of("Detached"))


def test_steps_that_the_guard_leaves_out_are_counted(train: Callable[..., Any]) -> None:
    ill = "+callbacks.ill={_target_: diverging_training.Ill, steps: [2, 5]}"
    run = train("guard=skip", ill, "trainer.max_epochs=2")
    assert run.status == "done" and run.plan.horizon.steps == 12
    assert json.loads((run.folder / "metrics.json").read_text())["steps"] == 10


class TestConflicts:
    REFUSED = ("BatchSizeFinder", "GradientAccumulationScheduler", "LearningRateFinder", "StochasticWeightAveraging")

    def test_by_class_and_by_what_inherits_from_it(self) -> None:
        for name in self.REFUSED:
            assert find_conflict(getattr(callbacks, name))
            assert find_conflict(type("Mine", (getattr(callbacks, name),), {}))
        fine = ("EarlyStopping", "LearningRateMonitor", "BackboneFinetuning", "WeightAveraging", "Timer")
        assert not [name for name in fine if find_conflict(getattr(callbacks, name))]
        assert find_conflict(type("BatchSizeFinder", (), {})) is None  # of an unknown package

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

    def test_one_that_a_module_brings_along_is_refused_too(self, train: Callable[..., Any], recorded: Recorded) -> None:
        with pytest.raises(ConfigError, match=r"^StochasticWeightAveraging replaces the schedule"):
            train(*of("Averages"))
        assert not recorded

    @pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
    def test_by_its_name_it_is_refused_before_anything_is_loaded(self, package: str) -> None:
        config = compose([f"+callbacks.x={{_target_: {package}.callbacks.LearningRateFinder}}"])
        with pytest.raises(ConfigError, match=r"^callbacks\.x sets the learning rate"):
            check(config)


QUIET: dict[str, Any] = {
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
}  # fmt: skip


class TestInPlainLightning:
    """Eight batches an epoch, two epochs."""

    def fit(self, module: Any, tmp_path: Path, **more: Any) -> None:
        Trainer(max_epochs=2, logger=False, default_root_dir=tmp_path, **QUIET).fit(
            lrkit.configure(module, lr=0.1, **more), Data()
        )

    def test_more_than_planned(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^steps must be set.*lrkit\.configure\(\.\.\., steps=32\)"):
            self.fit(Steps(times=2), tmp_path)
        with pytest.raises(RunError, match=r"^30 steps were planned, and Steps takes step 31"):
            self.fit(Steps(times=2), tmp_path, steps=30)

    def test_fewer_than_planned(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"^8 steps were planned for the first epoch, 4 were taken.*steps=8\)"):
            self.fit(Steps(every=2), tmp_path)
        with pytest.warns(UserWarning, match=r"^16 steps were planned, 14 were taken.*steps=14\)"):
            self.fit(Leaves(), tmp_path)

    def test_as_many_as_were_said(self, tmp_path: Path, recorded: Recorded) -> None:
        self.fit(Steps(times=2), tmp_path, steps=32, warmup="linear", warmup_length="1ep")
        curve = lrkit.curve("cosine", steps=32, steps_per_epoch=16, warmup="linear", warmup_length="1ep")
        assert [s["default"][0] for s in recorded] == [0.1 * curve(t) for t in range(32)]
        with pytest.raises(ConfigError, match=r"^steps must be 16, the number of optimizer steps"):
            self.fit(Net(), tmp_path, steps=32)


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


class Tuned(Net):
    """A module for Lightning's callback for transfer learning: with a backbone and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(self.body, torch.nn.Linear(8, 8))
        del self.body

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.nn.functional.cross_entropy(self.head(self.backbone(batch["features"])), batch["label"])


def test_a_backbone_that_is_unfrozen_has_a_name_and_the_rates_of_its_callback(
    train: Callable[..., Any], recorded: Recorded
) -> None:
    tunes = "{_target_: pytorch_lightning.callbacks.BackboneFinetuning, unfreeze_backbone_at_epoch: 1}"
    words = of("Tuned", "trainer.max_epochs=4", f"+callbacks.tunes={tunes}", "logger=tensorboard")
    run = train(*words)
    whole = [{name: lr for name, (lr, _) in step.items()} for step in recorded]
    plan, curve = [run.plan.lr(run.plan.groups[0], t) for t in range(24)], run.plan.curve
    assert [step["default"] for step in whole] == plan and len(whole[5]) == 1
    asked = [0.1 * plan[6]]
    asked += [min(2.0 * asked[-1], plan[12])]
    asked += [min(2.0 * asked[-1], plan[18])]
    expected = [asked[t // 6 - 1] * (curve(t) / curve(t - t % 6)) for t in range(6, 24)]
    assert [step["backbone"] for step in whole[6:]] == expected and expected[::6] == asked
    assert [event.step for event in events_of(run.folder).Scalars("lr/backbone")] == [*range(6, 24)]

    recorded.clear()
    first = train(*words, "+callbacks.halt={_target_: interrupted_runs.Halt, at: 18}")
    train(*words, "~callbacks.halt", f"resume.path={first.folder}")
    assert [{name: lr for name, (lr, _) in step.items()} for step in recorded] == whole


def test_the_guard_goes_back_to_weights_with_the_groups_that_joined(
    train: Callable[..., Any], recorded: Recorded
) -> None:
    """The rate of each is halved, from where it was."""
    tunes = "{_target_: pytorch_lightning.callbacks.BackboneFinetuning, unfreeze_backbone_at_epoch: 1}"
    ill = "{_target_: diverging_training.Ill, steps: [7], how: gradient}"
    words = [f"+callbacks.tunes={tunes}", f"+callbacks.ill={ill}", "guard=reduce", "guard.warmup=1"]
    run = train(*of("Tuned", *words))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert (run.status, metrics["steps"]) == ("done", 11)  # the bad step does not count
    for step in recorded[6:]:
        assert step["backbone"][0] == pytest.approx(0.1 * step["default"][0], rel=1e-12)
    assert recorded[-1]["default"][0] == pytest.approx(0.5 * run.plan.lr(run.plan.groups[0], 10))


def events_of(folder: Path) -> EventAccumulator:
    (file,) = folder.rglob("events.out.tfevents*")
    return EventAccumulator(str(file.parent)).Reload()


def axis(run: Any) -> tuple[list[int], list[int]]:
    """The steps of the rates and of the losses, in TensorBoard."""
    events = events_of(run.folder)
    rates, losses = events.Scalars("lr/default"), events.Scalars("train_loss")
    return [event.step for event in rates], [event.step for event in losses]


EACH = ("logger=tensorboard", "trainer.log_every_n_steps=1")


def test_the_losses_of_a_batch_lie_at_its_last_step(train: Callable[..., Any]) -> None:
    rates, losses = axis(train(*of("Steps", "+model.times=2", "horizon.steps=24", *EACH)))
    assert rates == [*range(24)] and losses == [*range(1, 24, 2)]
    rates, losses = axis(train(*of("Steps", "+model.every=2", "horizon.steps=6", *EACH)))
    assert rates == [*range(6)] and losses == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


def test_steps_that_the_guard_leaves_out_have_no_place_on_the_axis(train: Callable[..., Any]) -> None:
    ill = "+callbacks.ill={_target_: diverging_training.Ill, steps: [2, 5]}"
    run = train("guard=skip", ill, "trainer.max_epochs=2", *EACH)
    events = events_of(run.folder)
    assert [event.step for event in events.Scalars("lr/default")] == [*range(10)]
    assert sorted({event.step for event in events.Scalars("train/loss")}) == [*range(10)]


class TestOneAxisAfterAnotherBatchSize:
    NET = (*RUN[:3], "model._target_=plain_lightning.Net", "optimizer=adamw", "trainer.limit_train_batches=1.0", *EACH)

    def go_on(self, train: Callable[..., Any], first: list[str], then: list[str]) -> Any:
        before = train(*self.NET, *first)
        return train(*self.NET, *then, f"resume.path={before.folder}", "resume.policy=override")

    @pytest.mark.parametrize(
        ("first", "then", "place", "steps"),
        [
            ("10", "20", 6, 12),  # 60 samples: 6 batches an epoch, then 3
            ("20", "10", 6 * 2, 24),
            ("59", "10", 6 * 2, 24),  # 2 batches an epoch, one of them of a single sample: by samples it would be 24
            ("10", "59", 2 * 2, 8),
        ],
    )
    def test_at_the_end_of_an_epoch(
        self, first: str, then: str, place: int, steps: int, train: Callable[..., Any], recorded: Recorded
    ) -> None:
        run = self.go_on(
            train,
            [f"data.batch_size={first}", "trainer.max_epochs=2"],
            [f"data.batch_size={then}", "trainer.max_epochs=4"],
        )
        assert (run.status, run.plan.horizon.steps) == ("done", steps)
        assert axis(run) == ([*range(place, steps)], [*range(place, steps)])
        rates = [step["default"][0] for step in recorded][-(steps - place) :]
        assert rates == [run.plan.lr(run.plan.groups[0], t) for t in range(place, steps)]
        metrics = json.loads((run.folder / "metrics.json").read_text())
        assert (metrics["steps"], metrics["epochs"]) == (steps, 4)

    def test_max_steps_counts_as_the_plan_does(self, train: Callable[..., Any], recorded: Recorded) -> None:
        run = self.go_on(
            train,
            ["data.batch_size=10", "trainer.max_epochs=-1", "trainer.max_steps=12"],
            ["data.batch_size=20", "trainer.max_epochs=-1", "trainer.max_steps=12"],
        )
        assert (run.status, len(recorded)) == ("done", 12 + 6)
        assert axis(run) == ([*range(6, 12)], [*range(6, 12)])
