"""The divergence guard in real runs that diverge at chosen steps, on one process and on two."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diverging_training import Ill
from locations import CONF, environment
from plain_lightning import Data, Net
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lrkit
from lrkit.base.errors import Diverged
from lrkit.callbacks import divergence_guard as watch
from lrkit.callbacks.divergence_guard import FEW, gradient_norm, gradient_norm_value
from lrkit.config.compose import compose
from lrkit.lightning.imports import PACKAGE, Trainer
from lrkit.optim.factory import build_optimizer
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Cosine
from lrkit.training_objects.optimizers import optimizer_of

MixedPrecision: Any = import_module(f"{PACKAGE}.plugins.precision").MixedPrecision

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml") if path.stem != "custom")


def ill(steps: list[int], how: str = "batch", **more: Any) -> str:
    told = "".join(f", {name}: {value}" for name, value in more.items())
    return f"+callbacks.ill={{_target_: diverging_training.Ill, steps: {steps}, how: {how}{told}}}"


def left(folder: Path, rank: int = 0) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"left{rank}.json").read_text())
    return result


def events(folder: Path) -> list[dict[str, Any]]:
    file = folder / "events.json"
    result: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return result


#: From step 30 on the loss is multiplied by a hundred.
RISEN = ("trainer.max_epochs=4", "trainer.limit_train_batches=20", "schedule=constant", "guard.patience=10",
         ill(list(range(30, 80)), "loss"))  # fmt: skip
LONGER = ("trainer.max_epochs=2", "trainer.limit_train_batches=20", "trainer.limit_val_batches=1")


@pytest.mark.parametrize("how", ["batch", "gradient"])
def test_stop_ends_the_run_before_the_step_is_taken(how: str, train: Any, tmp_path: Path) -> None:
    run = train(*LONGER, ill([25], how, out=tmp_path))
    assert run.status == "diverged"
    assert left(tmp_path)["finite"] and left(tmp_path)["applied"] == 25 and left(tmp_path)["error"] == "Diverged"
    (event,) = events(run.folder)
    assert (event["step"], event["event"]) == (25, "stop")
    assert event["why"] == ("the loss is nan" if how == "batch" else "the norm of the gradients is inf")
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert (metrics["status"], metrics["steps"]) == ("diverged", 25)
    kept = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 20 and all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_a_run_that_was_stopped_goes_on_with_another_policy(train: Any, tmp_path: Path) -> None:
    stopped = train(*LONGER, ill([25]))
    more = train(*LONGER, f"resume.path={stopped.folder}", "guard=skip", ill([25, 30]))
    assert more.status == "done"
    assert [(e["step"], e["event"]) for e in events(more.folder)] == [(25, "skip"), (29, "skip")]


def test_off_trains_on_to_a_bad_end(train: Any) -> None:
    run = train(*LONGER, "guard=off", ill([25]))
    assert run.status == "diverged" and events(run.folder) == []
    assert math.isnan(run.final["train/loss"]) and json.loads((run.folder / "metrics.json").read_text())["steps"] == 40


def test_skip_leaves_out_what_is_bad_and_no_more(train: Any, tmp_path: Path) -> None:
    run = train(*LONGER, "guard=skip", "trainer.log_every_n_steps=1", "logger=tensorboard", ill([5, 25], out=tmp_path))
    assert run.status == "done" and left(tmp_path)["finite"] and left(tmp_path)["applied"] == 38
    assert [(e["step"], e["skipped"]) for e in events(run.folder)] == [(5, 1), (24, 2)]
    read = EventAccumulator(str(run.folder)).Reload()
    (logged,) = [tag for tag in read.Tags()["scalars"] if tag == "guard"]
    assert [e.step for e in read.Scalars(logged)] == [5, 24]
    assert [e.step for e in read.Tensors("guard/text_summary")] == [5, 24]


def test_skip_sees_a_spike_and_nothing_when_there_is_none(train: Any, tmp_path: Path) -> None:
    calm = train(*LONGER, "guard=skip")
    assert events(calm.folder) == []
    run = train(*LONGER, "guard=skip", ill([30], "spike"))
    (event,) = events(run.folder)
    assert event["step"] == 30 and "where it was" in event["why"]
    unwatched = train(*LONGER, "guard=skip", "guard.spike=null", ill([30], "spike"))
    assert events(unwatched.folder) == []


def test_skip_gives_up_when_nothing_else_is_left(train: Any) -> None:
    run = train(*LONGER, "guard=skip", "guard.patience=3", ill(list(range(25, 40))))
    assert run.status == "diverged"
    assert [e["event"] for e in events(run.folder)] == ["skip"] * 3 + ["stop"]
    assert events(run.folder)[-1]["why"].startswith("4 steps in a row")


def test_reduce_goes_back_and_on_at_half_the_rate(train: Any, recorded: Any, tmp_path: Path) -> None:
    run = train(
        *LONGER, "guard=reduce", "guard.warmup=4", "guard.every=5", "schedule=constant", "optimizer.lr=0.2",
        ill([23], out=tmp_path),
    )  # fmt: skip
    assert run.status == "done" and left(tmp_path)["finite"]
    rates = [step["default"][0] for step in recorded]
    assert rates[:23] == [0.2] * 23
    # The step that was bad did not count; from there the gain rises to a half within four steps.
    assert rates[24:28] == pytest.approx([0.025, 0.05, 0.075, 0.1]) and set(rates[27:]) == {0.1}
    (event,) = events(run.folder)
    assert (event["step"], event["event"], event["gain"]) == (23, "reduce", 0.5)
    assert run.final["val/loss"] < 2.0


def test_reduce_puts_back_weights_and_optimizer(train: Any, tmp_path: Path) -> None:
    seen: list[bool] = []
    original = watch.DivergenceGuard._roll_back

    def go_back(self: Any, trainer: Any, module: Any) -> None:
        remembered = [value.clone() for value in self.good[0][0].values()]
        original(self, trainer, module)
        momenta = [s["momentum_buffer"].clone() for s in trainer.optimizers[0].state.values()]
        saved = [s["momentum_buffer"] for s in self.good[0][1]["state"].values()]
        seen.append(
            all(torch.equal(a, b) for a, b in zip(remembered, module.state_dict().values(), strict=True))
            and all(torch.equal(a, b) for a, b in zip(momenta, saved, strict=True))
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch.DivergenceGuard, "_roll_back", go_back)
        train(*LONGER, "guard=reduce", "guard.every=5", ill([23]))
    assert seen == [True]


def test_reduce_gives_up_after_most(train: Any) -> None:
    run = train(*LONGER, "guard=reduce", "guard.most=2", ill([23, 27, 31]))
    assert run.status == "diverged"
    assert [e["event"] for e in events(run.folder)] == ["reduce", "reduce", "stop"]
    assert [e.get("gain") for e in events(run.folder)] == [0.5, 0.25, None]


def test_reduce_acts_on_spikes_in_a_row_alone(train: Any) -> None:
    once = train(*LONGER, "guard=reduce", ill([30], "spike"))
    assert events(once.folder) == []
    thrice = train(*LONGER, "guard=reduce", ill([30, 31, 32], "spike"))
    (event,) = events(thrice.folder)
    assert event["step"] == 32 and "3 times in a row" in event["why"]


def test_the_gain_stacks_on_the_plateau_and_survives_a_resume(train: Any, recorded: Any) -> None:
    options = (*LONGER, "guard=reduce", "guard.warmup=1", "guard.every=5", "schedule=constant", "optimizer.lr=0.2",
               "plateau=reduce", "plateau.threshold=1e9", "plateau.threshold_mode=abs", "plateau.patience=0",
               "plateau.factor=0.1")  # fmt: skip
    first = train(*options, ill([7]))
    whole = [step["default"][0] for step in recorded]
    assert whole[-1] == pytest.approx(0.2 * 0.5) and first.status == "done"
    recorded.clear()
    longer = [o if "max_epochs" not in o else "trainer.max_epochs=3" for o in options]
    train(*longer, "~callbacks.ill", f"resume.path={first.folder}", "resume.policy=override")
    assert recorded[0]["default"][0] == pytest.approx(0.2 * 0.5 * 0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_left_out_leaves_every_optimizer_as_it_was(name: str) -> None:
    target, options = optimizer_of(compose([f"optimizer={name}"]))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    lr = 1.0 if name == "prodigy" else 0.01
    optimizer = build_optimizer(target, options, [{"params": list(net.parameters()), "lr": lr, "name": "default"}])
    scheduler = PlanScheduler(optimizer, resolve_plan(lr=lr, schedule=Cosine(), horizon=Horizon(10), optimizer=target))
    if hasattr(optimizer, "train"):
        optimizer.train()

    def step(x: torch.Tensor, leave_out: bool = False) -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        scheduler.skip(leave_out)
        optimizer.step()
        scheduler.step()

    def state() -> Any:
        weights = [p.detach().clone() for p in net.parameters()]
        inner = json.dumps(
            optimizer.state_dict(), default=lambda t: t.tolist() if isinstance(t, torch.Tensor) else str(t)
        )
        return [w.tolist() for w in weights], inner, scheduler.applied

    data = torch.randn(4, 16, 8)
    step(data[0])
    step(data[1])
    before = state()
    step(data[2], leave_out=True)
    assert state() == before
    step(data[3])
    assert state() != before and scheduler.applied == 3


@pytest.mark.parametrize("where", range(3))
def test_a_window_of_accumulation_is_left_out_as_a_whole(where: int, train: Any, tmp_path: Path) -> None:
    run = train(
        "trainer.max_epochs=1", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1",
        "trainer.accumulate_grad_batches=3", "guard=skip",
        f"+callbacks.ill={{_target_: diverging_training.Micro, batch: {3 + where}}}",
    )  # fmt: skip
    assert [(e["step"], e["why"]) for e in events(run.folder)] == [(1, "the loss is nan")]


@pytest.mark.parametrize(("steps", "ends"), [([3, 4, 5], False), (list(range(5, 40)), True)])
def test_a_gradient_scaler_may_look_for_its_scale(steps: list[int], ends: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", growth_interval=1000)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    scaled = plain(guard="stop", callbacks=[Ill(steps, "gradient")], plugins=[precision])
    if not ends:
        assert scaled.fit() == "" and scaled.watch.in_a_row == 0
        return
    # Lightning lets the scaler leave out as many steps as it takes to bring 2**16 down to 1; then it is not the scale.
    assert scaled.fit() == "diverged at step 5: the norm of the gradients is inf"
    assert scaled.trainer.global_step == 5 + watch.SCALER_TRIES


def test_what_is_far_above_the_beginning_for_long_is_a_divergence(train: Any) -> None:
    run = train(*RISEN, "guard.far=5")
    assert run.status == "diverged"
    (event,) = events(run.folder)
    assert event["step"] == 39 and "at the beginning, 10 times in a row" in event["why"]
    alone = train(*RISEN, "guard.far=null")
    assert events(alone.folder) == []


def test_a_guard_changes_nothing_of_a_healthy_run(train: Any, tmp_path: Path) -> None:
    runs = []
    for i, policy in enumerate(("off", "stop", "skip", "reduce")):
        out = tmp_path / str(i)
        out.mkdir()
        train(f"guard={policy}", ill([], out=out))
        runs.append(left(out)["weights"])
    assert len(set(runs)) == 1


@dataclass
class Fit:
    """A training by plain Lightning."""

    module: Any
    trainer: Trainer

    def fit(self) -> str:
        """Return the exception that ended the run, if there was one."""
        try:
            self.trainer.fit(self.module, Data(n=400))
        except Diverged as error:
            return str(error)
        return ""

    @property
    def watch(self) -> watch.DivergenceGuard:
        return next(c for c in self.trainer.callbacks if isinstance(c, watch.DivergenceGuard))  # type: ignore[attr-defined]


def plain(guard: Any, **options: Any) -> Fit:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, enable_model_summary=False, **quiet, **options)
    return Fit(lrkit.configure(Net(), lr=0.1, guard=guard), trainer)


def test_it_works_in_a_plain_trainer() -> None:
    healthy = plain(guard="skip")
    assert healthy.fit() == "" and healthy.watch.levels.seen == 50
    sick = plain(guard=lrkit.Guard(policy="stop"), callbacks=[Ill([7], "gradient")])
    assert sick.fit() == "diverged at step 7: the norm of the gradients is inf"


# On a GPU the guard does not wait for the loss, and reads it LAG steps later. Simulated here with the same order.


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = watch.DivergenceGuard.on_train_start

    def on_train_start(self: Any, trainer: Any, module: Any) -> None:
        started(self, trainer, module)
        self.waits = self.guard.policy != "stop"

    monkeypatch.setattr(watch.DivergenceGuard, "on_train_start", on_train_start)
    monkeypatch.setattr(watch, "HostCopy", lambda values: SimpleNamespace(read=values.clone))
    yield


@pytest.mark.usefixtures("as_on_a_gpu")
def test_late_news_ends_the_run_and_no_checkpoint_is_written_in_between(train: Any, tmp_path: Path) -> None:
    run = train(*LONGER, ill([23], out=tmp_path))
    assert run.status == "diverged"
    (event,) = events(run.folder)
    assert (event["step"], event["why"]) == (23, "the loss is nan")
    assert left(tmp_path)["applied"] == 23 + watch.LAG + 1
    at_the_edge = train(*LONGER, ill([39], out=tmp_path))  # the last step of an epoch, before a validation and a save
    assert at_the_edge.status == "diverged"
    kept = torch.load(at_the_edge.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 20
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


@pytest.mark.usefixtures("as_on_a_gpu")
def test_late_news_of_what_is_far_above(train: Any) -> None:
    run = train(*RISEN, "guard.far=5")
    assert run.status == "diverged"
    (event,) = events(run.folder)
    assert "10 times in a row" in event["why"] and 39 <= event["step"] <= 39 + 2 * watch.LAG


@pytest.mark.usefixtures("as_on_a_gpu")
def test_late_news_of_a_healthy_run_is_no_news(train: Any) -> None:
    assert train(*LONGER).status == "done"


@pytest.mark.parametrize(
    ("policy", "how", "applied"),
    [("stop", "batch", 12), ("stop", "gradient", 12), ("skip", "batch", 18), ("skip", "gradient", 18),
     ("skip", "spike", 18), ("reduce", "batch", 18)],
)  # fmt: skip
@pytest.mark.slow
def test_two_processes_act_alike_whichever_is_ill(policy: str, how: str, applied: int, tmp_path: Path) -> None:
    steps = [12] if policy == "stop" else [12, 15] if how != "spike" else [25, 28]
    batches = 20 if how != "spike" else 30
    command = [
        sys.executable, "-m", "lrkit", "train", "trainer.devices=2", "trainer.accelerator=cpu",
        "trainer.strategy=ddp", "logger=none", f"guard={policy}", "trainer.max_epochs=1", "data.batch_size=8",
        f"trainer.limit_train_batches={batches}", "trainer.limit_val_batches=1",
        ill(steps, how, rank=1, out=tmp_path),
    ]  # fmt: skip
    env = environment()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == (3 if policy == "stop" else 0), done.stdout + done.stderr
    first, second = left(tmp_path, 0), left(tmp_path, 1)
    assert first == second and first["finite"]
    assert first["applied"] == (applied if how != "spike" else 28)
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    expected = {"stop": 1}.get(policy, 2)
    assert [e["event"] for e in events(folder)] == [policy] * expected
    why = events(folder)[0]["why"]
    assert "(process 1)" in why if how != "gradient" else why == "the norm of the gradients is nan" or "inf" in why


@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_step_waits_for_the_device(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that lrkit has on by default: twice as many steps ask the device for no value more."""
    asked: list[str] = []
    for name in ("item", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        real = getattr(torch.Tensor, name)

        def ask(tensor: Any, *args: Any, real: Any = real, name: str = name, **kwargs: Any) -> Any:
            asked.append(name)
            return real(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, ask)

    def values_asked_for(steps: int) -> int:
        asked.clear()
        train("trainer.max_epochs=1", "trainer.log_every_n_steps=1000", f"trainer.limit_train_batches={steps}",
              "data.batch_size=8", "optimizer=adamw")  # fmt: skip
        return len(asked)

    assert values_asked_for(100) == values_asked_for(50)


@pytest.mark.parametrize("count", [1, 3, FEW + 1])
@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_norm_is_that_of_all_gradients(count: int, bad: float | None, dtype: torch.dtype) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(5, dtype=dtype)) for _ in range(count + 1)]
    for parameter in parameters[:count]:  # the last has none
        parameter.grad = torch.randn(5, dtype=dtype) * 1e4
    if bad is not None:
        parameters[0].grad[2] = bad  # type: ignore[index]
    all_of_them = torch.cat([p.grad for p in parameters[:count]]).double()  # type: ignore[misc]
    sgd = torch.optim.SGD(parameters)
    for norm in (gradient_norm_value(sgd), gradient_norm(sgd).item()):
        assert norm == pytest.approx(all_of_them.norm().item(), rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("count", [0, 3])
def test_a_norm_may_be_nothing_or_too_large_to_be_squared(count: int) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(3)]
    for parameter in parameters[:count]:
        parameter.grad = torch.full((5,), 1e200, dtype=torch.float64)
    assert gradient_norm_value(torch.optim.SGD(parameters)) == (math.inf if count else 0.0)
