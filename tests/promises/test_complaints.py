"""Known complaints about learning-rate schedules with torch and Lightning: each is reproduced, and solved by lrkit.

Each test quotes a complaint. Its first part, below "The fault", reproduces the fault with torch and Lightning;
the rest shows that lrkit does what the user asked for. The complaints that are tested elsewhere:

  10  the suggestion of the range test is noise         tests/lr_finder/test_curve_analysis.py, benchmarks/find.py
  11  the suggested rate is applied wrongly             tests/lr_finder/test_find.py
  15  a loss of NaN trains to the end                   tests/callbacks/test_divergence_guard.py; plateau is below
  21  a sweep cannot be resumed                         tests/sweep/test_sweep.py; the other half is below
  23  jobs share a process and a GPU                    tests/sweep/test_sweep.py; the random state is below
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from locations import environment
from omegaconf import OmegaConf
from plain_lightning import fit
from recorded_rates import Recorded
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from two_processes import RANKS, TWO, both_ranks

from lrkit import api
from lrkit.base.errors import ConfigError
from lrkit.cli import main, output_folders
from lrkit.lightning.imports import PACKAGE, LightningModule, MisconfigurationException
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plateau import Plateau, PlateauState
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.curve import Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Cosine, Linear, Piecewise, Restarts, Step

BaseFinetuning: Any = import_module(f"{PACKAGE}.callbacks").BaseFinetuning
GradientAccumulationScheduler: Any = import_module(f"{PACKAGE}.callbacks").GradientAccumulationScheduler

Train = Callable[..., Any]

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Net(LightningModule):
    """One weight, a gradient of 1, and a record of rates and gradients; optimizers as ``make`` has them."""

    def __init__(self, make: Callable[[Net], Any] = lambda net: net.sgd()) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.make = make
        self.rates: list[float] = []
        self.gradients: list[float] = []

    @property
    def weight(self) -> float:
        return float(self.layer.weight.detach())

    def sgd(self, lr: float = 0.1) -> SGD:
        return SGD(self.layer.parameters(), lr=lr)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).mean()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).mean(), batch_size=1)

    def configure_optimizers(self) -> Any:
        return self.make(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.gradients.append(float(self.layer.weight.grad))  # type: ignore[arg-type]


def sgd(lr: float = 0.1) -> SGD:
    """An optimizer of one weight, outside of Lightning."""
    return SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def loop(optimizer: Optimizer, scheduler: Any, steps: int, advance: int = 1) -> list[float]:
    """The rates of a plain loop that steps the scheduler ``advance`` times after each optimizer step."""
    rates = []
    for _ in range(steps):
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(advance):
            scheduler.step()
    return rates


def planned(optimizer: Optimizer, schedule: Any, steps: int, **parts: Any) -> PlanScheduler:
    return PlanScheduler(optimizer, resolve_plan(lr=0.1, schedule=schedule, horizon=Horizon(steps), **parts))


def rates_of(recorded: Recorded) -> list[float]:
    return [step["default"][0] for step in recorded]


# A. Silently wrong


def test_pain_01_the_schedule_advances_in_the_wrong_unit(train: Train, recorded: Recorded) -> None:
    """ "lr_scheduler does not work when interval: step": the default is epochs, and says little or nothing."""

    def cycle(net: Net) -> Any:
        steps = int(net.trainer.estimated_stepping_batches)
        optimizer = net.sgd()
        return [optimizer], [OneCycleLR(optimizer, 0.1, total_steps=steps)]

    # The fault: the right number of steps, and yet the rate never leaves the bottom of the ramp.
    net = Net(cycle)
    fit(net, batches=10, max_epochs=3)
    assert len(net.rates) == 30 and max(net.rates) < 0.1 / 5

    def decay(net: Net) -> Any:
        optimizer = net.sgd()
        return [optimizer], [StepLR(optimizer, 4)]  # meant: 4 steps

    net = Net(decay)
    fit(net, batches=10)
    assert net.rates == [0.1] * 10

    train("schedule=one_cycle", "trainer.max_epochs=3")
    assert max(rates_of(recorded)) > 0.09
    seen = []
    for every in ("6", "1ep", "33.4%", "192sp"):  # one length in each unit: 6 of 18 steps, of 32 samples each
        recorded.clear()
        train("schedule=step", f"schedule.every={every}", "trainer.max_epochs=3")
        seen.append(rates_of(recorded))
    assert all(rates == seen[0] for rates in seen) and sorted({*seen[0]}) == pytest.approx([0.001, 0.01, 0.1])
    with pytest.raises(ConfigError, match=r"^schedule\.every"):
        train("schedule=step", "schedule.every=6epoch")


def test_pain_02_what_is_changed_on_resume_is_ignored(tmp_path: Path, train: Train, recorded: Recorded) -> None:
    """ "Easier change optimizer/learning rate": lr 0.1 -> 0.01 resumed at the old rate, without a warning."""

    def cosine(lr: float, steps: int) -> Net:
        def make(net: Net) -> Any:
            optimizer = net.sgd(lr)
            return [optimizer], [{"scheduler": CosineAnnealingLR(optimizer, steps), "interval": "step"}]

        return Net(make)

    # The fault: another rate and another length are asked for; the old rate goes on, and climbs back.
    file = tmp_path / "plain.ckpt"
    fit(cosine(0.1, 8), max_steps=4).save_checkpoint(file)
    net = cosine(0.01, 16)
    fit(net, max_epochs=4, resume=file)
    assert net.rates[0] == pytest.approx(0.05) and net.rates[-1] > 0.08

    run = train("trainer.max_epochs=2", "trainer.max_steps=6", "schedule=constant")
    recorded.clear()
    changed = ["optimizer.lr=0.01", "schedule=cosine", "trainer.max_epochs=2", "trainer.max_steps=-1",
               f"resume.path='{run.folder}'"]  # fmt: skip
    with pytest.raises(ConfigError, match=r"^resume\.policy must be set.* base rate") as caught:
        train(*changed)
    assert "0.1" in caught.value.details and "0.01" in caught.value.details and not recorded
    again = train(*changed, "resume.policy=override")
    assert rates_of(recorded) == [again.plan.lr(again.plan.groups[0], t) for t in range(6, 12)]


def test_pain_03_resuming_lands_at_the_wrong_place(tmp_path: Path) -> None:
    """ "SequentialLR last_epoch=N": it continues at 0.1 instead of 0.081."""

    def sequence(optimizer: Optimizer, last: int = -1) -> SequentialLR:
        warm = LinearLR(optimizer, 0.1, total_iters=2, last_epoch=last)
        decay = ExponentialLR(optimizer, 0.9, last_epoch=-1 if last < 0 else last - 2)
        return SequentialLR(optimizer, [warm, decay], [2], last_epoch=last)

    # The fault:
    optimizer = sgd()
    whole = loop(optimizer, sequence(optimizer), 8)
    resumed = sgd()
    resumed.param_groups[0]["initial_lr"] = 0.1
    assert whole[4] == pytest.approx(0.081)
    assert loop(resumed, sequence(resumed, last=4), 1) == [0.1]

    shapes = [
        Cosine(),
        Step(every=3),
        Restarts(cycles=2),
        Piecewise(phases=[Linear(end=0.5, length=4), Cosine(start=0.5)]),
    ]
    for schedule in shapes:
        optimizer = sgd()
        scheduler = planned(optimizer, schedule, 12, warmup=Linear(start=0.1, length=2))
        whole = [*loop(optimizer, scheduler, 12)]
        for at in range(12):
            other = sgd(lr=7.0)
            restored = planned(other, schedule, 12, warmup=Linear(start=0.1, length=2))
            restored.load_state_dict({**scheduler.state_dict(), "applied": at})
            assert loop(other, restored, 12 - at) == whole[at:]


def test_pain_04_the_total_of_steps_is_wrong(train: Train, recorded: Recorded) -> None:
    """ "16 000 steps of warmup became 1 000"; 16 estimated, 10 taken; "Tried to step 11 times"."""
    # The fault: accumulation that changes is not counted, though the docstring promises an error.
    net = Net(lambda net: (setattr(net, "estimate", net.trainer.estimated_stepping_batches), net.sgd())[1])
    fit(net, batches=8, max_epochs=2, callbacks=[GradientAccumulationScheduler({0: 1, 1: 4})])
    assert (net.estimate, len(net.rates)) == (16, 10)
    # And a run that is longer than its schedule dies.
    optimizer = sgd()
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        loop(optimizer, OneCycleLR(optimizer, 0.1, total_steps=10), 11)

    grow = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {0: 1, 1: 4}}"
    with pytest.raises(ConfigError, match=r"^callbacks\.grow changes accumulation"):
        train(f"+callbacks.grow={grow}")
    run = train("trainer.accumulate_grad_batches=4", "trainer.max_epochs=2")
    assert run.plan.horizon.steps == len(recorded) == 4  # 6 batches are one full and one partial step
    optimizer = sgd()
    assert loop(optimizer, planned(optimizer, Cosine(end=0.1), 10), 13)[10:] == [0.1 * 0.1] * 3


def test_pain_05_the_scheduler_is_stepped_once_per_process() -> None:
    """ "that's exactly how our scheduler wrapper behaves": with 2 processes a schedule runs twice as fast.

    Shown by stepping twice, as accelerate's wrapper does it; with two real processes in test_two_processes and in
    test_steps_planned_are_taken.
    """
    # The fault: 10 steps of a linear decay over 20 are at its end already.
    optimizer = sgd()
    assert loop(optimizer, LinearLR(optimizer, 1.0, 0.0, total_iters=20), 11, advance=2)[10] == 0.0
    once, twice = sgd(), sgd()
    one, two = planned(once, Linear(), 20), planned(twice, Linear(), 20)
    assert loop(once, one, 20) == loop(twice, two, 20, advance=2)


PLAIN_RANKS = """
import json, sys
from pathlib import Path
import torch
from lrkit.lightning.imports import Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from plain_lightning import Points, RankLoss

class Plain(RankLoss):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

if __name__ == "__main__":
    trainer = Trainer(devices=2, accelerator="cpu", strategy="ddp", max_epochs=4, logger=False,
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Plain(), DataLoader(Points(40), batch_size=10), DataLoader(Points(20), batch_size=10))
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    Path(f"plain{trainer.global_rank}.json").write_text(json.dumps(rate))
"""


@pytest.mark.slow
def test_pain_06_plateau_decides_differently_on_each_rank(tmp_path: Path) -> None:
    """ "LR not synchronised": 1e-4 on rank 0 and 0.1 on rank 1, no warning. Lightning with two processes."""
    # The fault: the rank whose metric gets worse trains with another rate than the other.
    script = tmp_path / "plain.py"
    script.write_text(PLAIN_RANKS)
    env = environment()
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rates = [json.loads((tmp_path / f"plain{rank}.json").read_text()) for rank in (0, 1)]
    assert rates[0] == 0.1 and rates[1] == pytest.approx(1e-4)
    first, second, _ = both_ranks(
        tmp_path, "model=custom", "model._target_=plain_lightning.RankLoss", "data=custom",
        "data._target_=plain_lightning.Data", "+data.n=40", "data.batch_size=10", "trainer.max_epochs=4",
        "plateau=reduce", "plateau.monitor=val_loss", "plateau.patience=0", "schedule=constant", "optimizer.lr=0.1",
    )  # fmt: skip
    assert first == second and first[-1] == pytest.approx([0.001])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_pain_07_skipped_steps_consume_the_schedule(fused: bool) -> None:
    """ "Mixed precision skips steps, the scheduler does not": StepLR advanced on both skipped steps."""

    def scaled(make: Callable[[Optimizer], Any], infinite: set[int]) -> tuple[Any, list[float]]:
        weight = torch.ones(1, requires_grad=True)
        optimizer = AdamW([weight], lr=0.1, fused=fused)
        scheduler, scaler, rates = make(optimizer), torch.amp.GradScaler("cpu", init_scale=2.0), []
        for t in range(6):
            optimizer.zero_grad()
            scaler.scale((weight * (float("inf") if t in infinite else 1.0)).sum()).backward()
            rates.append(optimizer.param_groups[0]["lr"])
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
        return scheduler, rates

    # The fault: after six batches, two of them skipped, six steps of the schedule are used up.
    plain, _ = scaled(lambda optimizer: StepLR(optimizer, 2, 0.5), {0, 3})
    assert plain.last_epoch == 6 and plain.get_last_lr() == [0.1 * 0.5**3]
    ours, rates = scaled(lambda optimizer: planned(optimizer, Step(every=2, gamma=0.5), 6), {0, 3})
    assert ours.applied == 4 and ours.get_last_lr() == [0.025]
    assert rates[1:] == [0.1, 0.1, 0.05, 0.05, 0.05]


def test_pain_08_schedulers_do_not_compose() -> None:
    """ChainedScheduler(restarts, multistep): "0.1, .00999, .00996, .0099, .0984"; the order of construction matters."""
    # The fault: the drop by 10 at step 1 is there for one step, and then forgotten.
    optimizer = sgd()
    chained = ChainedScheduler([CosineAnnealingWarmRestarts(optimizer, 4), MultiStepLR(optimizer, [1])], optimizer)
    rates = loop(optimizer, chained, 5)
    assert rates[1] < 0.01 and rates[2] == 0.05 and rates[4] == 0.1
    # And a scheduler that is only constructed has changed the rate already.
    optimizer = sgd()
    LinearLR(optimizer, 0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)

    optimizer = sgd()
    planned(optimizer, Step(every=1), 8, warmup=Linear(start=0.1, length=2))
    assert optimizer.param_groups[0]["lr"] == 0.1
    for schedule in (Cosine(), Restarts(cycles=2), Step(every=3), Linear(end=0.3)):
        alone, wrapped = (Curve.build(s, Horizon(20)) for s in (schedule, Piecewise(phases=[schedule])))
        assert wrapped.values() == alone.values()
        joined = Curve.build(Piecewise(phases=[Cosine(length=7), schedule]), Horizon(20))
        first, second = Curve.build(Cosine(), Horizon(7)), Curve.build(schedule, Horizon(13))
        assert joined.values() == [*first.values(), *second.values()]


def test_pain_09_cosine_rises_again_after_its_end() -> None:
    """ "T_max=10: LR 0.0 @10, 0.05 @15, 0.1 @20." """
    # The fault:
    optimizer = sgd()
    rates = loop(optimizer, CosineAnnealingLR(optimizer, 10), 21)
    assert rates[10] == 0.0 and rates[20] == pytest.approx(0.1)
    for schedule in (Cosine(), Linear(), Cosine(end=0.1), Cosine(length=10)):
        optimizer = sgd()
        rates = loop(optimizer, planned(optimizer, schedule, 10), 30)
        assert rates == sorted(rates, reverse=True) and len({*rates[10:]}) == 1


def test_pain_12_nobody_knows_who_multiplies_what(train: Train, recorded: Recorded) -> None:
    """ "Why can not this be automated?", "with accumulation?": many configs set lr wrongly for their batch."""
    # The fault: four times the batch by accumulation, and the rate is whatever was typed, in both.
    one, four = Net(), Net()
    fit(one, batches=8)
    fit(four, batches=8, accumulate_grad_batches=4)
    assert {*one.rates} == {*four.rates} == {0.1}

    linear = ["batch_scaling=linear", "batch_scaling.base_batch_size=32", "schedule=constant"]
    run = train("trainer.accumulate_grad_batches=4", "trainer.max_steps=1", "trainer.max_epochs=2", *linear)
    assert run.plan.rate_line() == "lr 0.4 = 0.1 x 4 (linear: batch 128 / base 32)"
    train("data.batch_size=128", *linear)
    assert {*rates_of(recorded)} == {0.4}
    recorded.clear()
    # A resume does not multiply once more.
    train("trainer.max_steps=-1", "trainer.max_epochs=2", f"resume.path='{run.folder}'",
          "resume.policy=override", *linear)  # fmt: skip
    assert {*rates_of(recorded)} == {0.4}
    adam = train("optimizer=adamw", "optimizer.lr=0.001", *linear)
    assert any("linear batch-size scaling is a rule for SGD" in line for line in adam.plan.warnings)


def test_pain_13_warmup_starts_at_zero_and_misses_its_peak(train: Train) -> None:
    """ "LambdaLR(step/warmup): first LR is 0.0", "with warmup_prefix LR never reaches lr_min"."""
    # The fault: the first step does nothing.
    net = Net(
        lambda net: (lambda o: [[o], [{"scheduler": LambdaLR(o, lambda t: t / 4), "interval": "step"}]])(net.sgd())
    )
    before = net.weight
    fit(net, max_steps=1)
    assert net.rates == [0.0] and net.weight == before

    for warm, total in ((1, 2), (1, 20), (5, 20), (19, 20)):
        curve = Curve.build(Cosine(end=0.1), Horizon(total), warmup=Linear(start=0.01, length=warm))
        assert curve(0) == 0.01 and curve(warm) == 1.0 and curve(total) == 0.1
    assert train("warmup=linear", "warmup.length=2").plan.curve(0) > 0.0
    assert "step 0 is a no-op: its learning rate is 0" in train("warmup=linear", "warmup.start=0").plan.warnings
    for length in (6, 7):
        with pytest.raises(ConfigError, match=r"^warmup\.length must leave steps for the schedule"):
            train("warmup=linear", f"warmup.length={length}")


def test_pain_14_a_partial_window_of_accumulation_counts_for_less() -> None:
    """ "10 micro-batches, accumulate 4 -> gradients [1.0, 1.0, 0.5]"."""
    # The fault:
    net = Net()
    fit(net, batches=10, accumulate_grad_batches=4)
    assert net.gradients == [1.0, 1.0, 0.5]
    net = api.configure(Net(), lr=0.1, optimizer=SGD, schedule="constant")
    fit(net, batches=10, accumulate_grad_batches=4)
    assert net.gradients == [1.0, 1.0, 1.0]


def test_pain_15_plateau_reduces_on_nan() -> None:
    """ "loss NaN from step 2: all 6 epochs, exit 0; plateau 'reduced' 0.1 -> 1e-6 on NaN"."""
    # The fault:
    optimizer = sgd()
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(6):
        scheduler.step(float("nan"))
    assert optimizer.param_groups[0]["lr"] < 1e-6

    plateau, state = Plateau(patience=0), PlateauState()
    for _ in range(6):
        state = plateau.observe(state, float("nan"))
    assert state == PlateauState()


def test_pain_16_a_callback_bypasses_the_schedule() -> None:
    """ "Unfrozen group never scheduled"; add_param_group mid-run: ValueError from LambdaLR, KeyError from OneCycle."""
    # The fault; LambdaLR of torch 2.8 gives the group no schedule, and no error:
    for make, error in (
        (lambda o: LambdaLR(o, lambda t: 0.5), ValueError),
        (lambda o: OneCycleLR(o, 0.1, 9), KeyError),
    ):
        optimizer = sgd()
        scheduler = make(optimizer)
        optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.01})
        try:
            loop(optimizer, scheduler, 2)
        except error:
            continue
        assert error is ValueError and optimizer.param_groups[1]["lr"] == 0.01

    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module: LightningModule) -> None:
            self.freeze(pl_module.backbone)  # type: ignore[arg-type]

        def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
            if epoch == 2:
                self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.02)  # type: ignore[arg-type]

    class Tuned(Net):
        """A head that trains from the start, a backbone that Lightning's callback unfreezes later."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Linear(1, 1, bias=False)
            self.joined: list[float] = []

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss: Tensor = self.layer(self.backbone(batch)).mean()
            return loss

        def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            self.joined += [group["lr"] for group in optimizer.param_groups[1:]]

    net = api.configure(Tuned(), lr=0.1, optimizer=SGD, schedule="linear")
    fit(net, max_epochs=4, callbacks=[Unfreeze()])
    share = [1 - t / 16 for t in range(16)]
    assert net.rates == [0.1 * m for m in share]
    assert net.joined == [0.02 * (m / share[8]) for m in share[8:]]  # 0.02 at first, as it asked


# B. Late crashes


def test_pain_17_warmup_and_plateau_cannot_be_combined() -> None:
    """ "SequentialLR does not support ReduceLROnPlateau"."""
    # The fault:
    optimizer = sgd()
    with pytest.raises(ValueError, match="does not support"):
        SequentialLR(optimizer, [LinearLR(optimizer, 0.1), ReduceLROnPlateau(optimizer)], [5])

    def run_it(steps: range, state: dict[str, Any] | None) -> tuple[list[float], dict[str, Any]]:
        optimizer = sgd()
        plateau, warm = Plateau(patience=1, factor=0.5), Linear(start=0.2, length=5)
        scheduler = planned(optimizer, Constant(), 14, warmup=warm, plateau=plateau)
        if state is not None:
            scheduler.load_state_dict(state)
        rates = []
        for t in steps:
            rates += loop(optimizer, scheduler, 1)
            if t >= 5:  # as the callback does: a warmup is not judged
                scheduler.observe(1.0)
        return rates, scheduler.state_dict()

    rates, _ = run_it(range(14), None)
    assert rates[:5] == sorted({*rates[:5]}) and rates[5:] == [0.1] * 3 + [0.05] * 2 + [0.025] * 2 + [0.0125] * 2
    for at in range(1, 14):
        first, state = run_it(range(at), None)
        assert [*first, *run_it(range(at, 14), state)[0]] == rates


def test_pain_18_a_misnamed_monitor_is_found_after_an_epoch(train: Train, recorded: Recorded) -> None:
    """ "val/loss" for "val_loss": raised only after the whole epoch and its validation."""

    def plateau(net: Net) -> Any:
        optimizer = net.sgd()
        monitored = {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": monitored}

    # The fault: the epoch is trained, and lost.
    net = Net(plateau)
    with pytest.raises(MisconfigurationException, match="not available"):
        fit(net, batches=9, validate=True)
    assert len(net.rates) == 9
    with pytest.raises(ConfigError, match=r"^plateau\.monitor names a metric .* Did you mean 'val/loss'"):
        train("plateau=reduce", "plateau.monitor=val_loss")
    assert not recorded
    train("plateau=reduce", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3")
    assert len(recorded) == 18


def test_pain_19_objects_in_the_checkpoint_prevent_the_resume(tmp_path: Path, train: Train) -> None:
    """ "weights_only vs OmegaConf in hparams": UnpicklingError on fit(ckpt_path=...)."""

    class Configured(Net):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.save_hyperparameters()

    # The fault:
    config, file = OmegaConf.create({"width": 3}), tmp_path / "plain.ckpt"
    fit(Configured({"model": config})).save_checkpoint(file)
    with pytest.raises(pickle.UnpicklingError):
        fit(Configured({"model": config}), max_epochs=2, resume=file)

    run = train("trainer.max_steps=4", "optimizer=adamw", "warmup=linear", "warmup.length=2", "plateau=reduce")
    for file in (run.folder / "checkpoints").iterdir():
        assert torch.load(file, weights_only=True)["lrkit"]["step"] in (4, 0)
    same = ["optimizer=adamw", "warmup=linear", "warmup.length=2", "plateau=reduce", "trainer.max_steps=-1"]
    assert train(*same, f"resume.path='{run.folder}'", "resume.policy=override").status == "done"


@pytest.mark.slow
def test_pain_20_a_sweep_on_two_devices_starts_twice(tmp_path: Path) -> None:
    """ "rank 1 starts its own sweep in a second multirun/<time> dir". lrkit's half alone, with real processes."""
    argv = ["train", "-m", "optimizer.lr=0.1,0.01", *TWO, "trainer.max_epochs=1", "trainer.limit_train_batches=3"]
    env = environment()
    command = [sys.executable, str(RANKS), str(tmp_path), *argv]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    jobs = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    assert [json.loads((job / "config.json").read_text())["optimizer"]["lr"] for job in jobs] == [0.1, 0.01]
    assert not (tmp_path / "multirun").exists() and not (tmp_path / "outputs" / "runs").exists()


def test_pain_21_sweeps_of_the_same_second_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "jobs in the same second share a dir"."""
    # The fault: Hydra's folders are named by the second, and by nothing else.
    default = yaml.safe_load((resources.files("hydra") / "conf/hydra/output/default.yaml").read_text())
    assert default["sweep"]["dir"] == "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"
    made = [output_folders.create_folder(tmp_path / "sweeps") for _ in range(20)]
    assert len({*made}) == 20 and all(Path(folder).is_dir() for folder in made)


HYDRA_APP = """
import hydra

@hydra.main(version_base=None, config_path=None)
def app(config):
    raise RuntimeError(f"job {config.n} failed")

app()
"""

FRAGILE = """
from torch import nn

class Net(nn.Linear):
    def __init__(self, n):
        super().__init__(64, 10)
        self.n = n

    def forward(self, x):
        if self.n % 2:
            raise RuntimeError(f"job {self.n} failed")
        return super().forward(x)
"""


@pytest.mark.slow
def test_pain_22_failures_of_a_sweep_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ "only first exception shown, no log"; one bad job kills the others."""
    # The fault: two jobs fail, one of them is heard of.
    script = tmp_path / "app.py"
    script.write_text(HYDRA_APP)
    command = [sys.executable, str(script), "-m", "+n=1,2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "job 1 failed" in done.stdout + done.stderr and "job 2 failed" not in done.stdout + done.stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fragile", raising=False)
    (tmp_path / "fragile.py").write_text(FRAGILE)
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "logger=none"]
    code = main.main(["train", "-m", *short, "model=custom", "model._target_=fragile.Net", "+model.n=1,2,3,4"])
    said = capsys.readouterr()
    assert code == 1 and "of 4 jobs 2 failed" in said.err
    assert "job 1 failed" in said.out and "job 3 failed" in said.out
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    ended = [json.loads(path.read_text())["status"] for path in sorted(sweep.glob("*/metrics.json"))]
    assert ended == ["failed", "done", "failed", "done"]


def test_pain_23_jobs_of_one_process_leak_random_state(train: Train) -> None:
    """Jobs share a process: "global RNG of job k" depends on what ran before."""
    # The fault: the second of two equal trainings begins elsewhere.
    one, two = Net(), Net()
    assert one.weight != two.weight
    first = train("model.dropout=0.5", "optimizer.lr=0.05")
    train("seed=7", "optimizer=adamw", "model.hidden=[3]")
    assert train("model.dropout=0.5", "optimizer.lr=0.05").final == first.final
