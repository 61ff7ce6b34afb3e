"""Real runs with all parts of lrkit: the optimizer used the rates of the plan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError
from lrkit.config.compose import CONF_DIR, build, compose
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon


def options(group: str) -> list[str]:
    names = (path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    return sorted(name for name in names if name != "custom")  # for a class of the user's


GROUPS = ("optimizer", "schedule", "warmup", "cooldown", "batch_scaling", "plateau", "param_groups")
# Each option of each group at least once, and every optimizer with two schedules: groups turn at different speeds.
COVER = [
    {group: names[(i + turn * j) % len(names)] for j, group in enumerate(GROUPS) for names in [options(group)]}
    for turn in (0, 1)
    for i in range(max(len(options(group)) for group in GROUPS[: 2 - turn]))
]


def test_the_covering_set_covers() -> None:
    for group in GROUPS:
        assert {row[group] for row in COVER} == set(options(group))


@pytest.mark.parametrize("row", COVER, ids=lambda row: "-".join(row.values()))
def test_the_rate_that_was_used_is_the_rate_of_the_plan(
    row: dict[str, str], train: Callable[..., Any], recorded: Recorded
) -> None:
    if row["schedule"] == "plateau" and row["plateau"] == "none":
        row = {**row, "plateau": "reduce"}
    if row["optimizer"] == "prodigy" and row["param_groups"] == "layerwise":
        row = {**row, "param_groups": "default"}  # refused: it has one rate for all groups
    chosen = [f"{group}={name}" for group, name in row.items()]
    run = train(*chosen, "trainer.limit_train_batches=12", "model.hidden=[8]", "data.batch_size=16")
    assert len(recorded) == run.plan.horizon.steps == 12
    for t, step in enumerate(recorded):
        for group in run.plan.groups:
            lr, momentum = step[group.name]
            assert lr == run.plan.lr(group, t)
            if run.plan.momentum is not None:
                assert momentum == run.plan.momentum(t)
    assert all(math.isfinite(value) for value in run.final.values())


Ways = dict[str, Any]


@pytest.fixture(scope="module")
def ways() -> dict[str, Ways]:
    """The options of the plain curves, built: group -> name -> schedule, or node of an optimizer or a rule."""
    shapes = ("schedule", "warmup", "cooldown", "plateau")
    built = {
        group: {name: build(compose([f"{group}={name}"])[group], group) for name in options(group)} for group in shapes
    }
    nodes = {
        group: {name: compose([f"{group}={name}"])[group] for name in options(group)}
        for group in ("optimizer", "batch_scaling")
    }
    return built | nodes


def resolve_and_step(ways: dict[str, Ways], schedule: str, warmup: Any, cooldown: Any, node: Any, rule: Any) -> None:
    """The rates that the scheduler sets are the base learning rate, scaled, times the curve."""
    horizon = Horizon(40, 10, 512)
    scale = batch_scale(rule["rule"], rule["base_batch_size"], horizon.batch_size, node["_target_"])
    plan = resolve_plan(
        lr=node["lr"], optimizer=node["_target_"], momentum=0.9, horizon=horizon, schedule=ways["schedule"][schedule],
        warmup=warmup, cooldown=cooldown, scale=scale,
        plateau=ways["plateau"]["reduce"] if schedule == "plateau" else None,
    )  # fmt: skip
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    sgd = torch.optim.SGD([parameter], lr=1.0, momentum=0.5)
    scheduler = PlanScheduler(sgd, plan)
    base = node["lr"] * scale.factor
    for t in islice(range(40), 0, None, 8):
        scheduler.applied = t
        scheduler.step()
        assert abs(sgd.param_groups[0]["lr"] - base * plan.curve(t)) <= 1e-12 * base


def test_each_curve_resolves_and_steps(ways: dict[str, Ways]) -> None:
    """Every schedule x warmup x cooldown, and every schedule x optimizer x batch-scaling option; the rest in turn."""
    ends = [*product(ways["warmup"].values(), ways["cooldown"].values())]
    steps = [*product(ways["optimizer"].values(), ways["batch_scaling"].values())]
    for turn, schedule in enumerate(ways["schedule"]):
        for number in range(max(len(ends), len(steps))):
            resolve_and_step(ways, schedule, *ends[number % len(ends)], *steps[(number + turn) % len(steps)])


@pytest.mark.slow
def test_the_whole_product_resolves_and_steps(ways: dict[str, Ways]) -> None:
    """Every optimizer x schedule x warmup x cooldown x batch-scaling option, on plain curves."""
    done = 0
    for schedule, warmup, cooldown in product(ways["schedule"], ways["warmup"].values(), ways["cooldown"].values()):
        for node, rule in product(ways["optimizer"].values(), ways["batch_scaling"].values()):
            resolve_and_step(ways, schedule, warmup, cooldown, node, rule)
            done += 1
    assert done == math.prod(len(options(g)) for g in ("optimizer", "schedule", "warmup", "cooldown", "batch_scaling"))


@pytest.mark.parametrize(
    ("overrides", "batch"),
    [
        (["data.batch_size=64"], 64),
        (["data.batch_size=16", "trainer.accumulate_grad_batches=4"], 64),
        (["data.batch_size=32", "batch.effective=64"], 64),
    ],
)
def test_the_same_effective_batch_by_any_route_gives_the_same_rate(
    overrides: list[str], batch: int, train: Callable[..., Any], recorded: Recorded
) -> None:
    run = train(*overrides, "batch_scaling=linear", "batch_scaling.base_batch_size=32", "schedule=constant")
    assert run.plan.scale.batch == batch
    assert {step["default"][0] for step in recorded} == {0.2}
    assert run.plan.rate_line() == "lr 0.2 = 0.1 x 2 (linear: batch 64 / base 32)"


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.max_epochs=3", "trainer.limit_train_batches=null"],
        ["trainer.max_epochs=2", "trainer.limit_train_batches=7", "trainer.accumulate_grad_batches=3"],
        ["trainer.max_epochs=2", "trainer.limit_train_batches=0.2"],
        ["trainer.max_epochs=5", "trainer.max_steps=9", "trainer.limit_train_batches=4"],
        ["trainer.max_epochs=null", "trainer.max_steps=9", "trainer.limit_train_batches=4"],
        ["data.drop_last=true", "data.batch_size=500", "trainer.limit_train_batches=null"],
        ["data.batch_size=1197", "trainer.limit_train_batches=null"],
    ],
)
def test_the_planned_steps_are_the_steps_taken(
    overrides: list[str], train: Callable[..., Any], recorded: Recorded
) -> None:
    run = train(*overrides)
    assert run.plan.horizon.steps == len(recorded)


def test_plateau_multiplies_warmup_and_cosine(train: Callable[..., Any], recorded: Recorded) -> None:
    run = train(
        "schedule=cosine", "warmup=linear", "warmup.length=3", "plateau=reduce", "plateau.patience=0",
        "plateau.factor=0.5", "plateau.threshold=1e9", "plateau.threshold_mode=abs", "trainer.max_epochs=4",
        "trainer.limit_train_batches=5",
    )  # fmt: skip
    # Checks after steps 5, 10 and 15: the first sets the best, no later one can be better by 1e9.
    gains = [1.0] * 10 + [0.5] * 5 + [0.25] * 5
    assert [step["default"][0] for step in recorded] == [
        run.plan.lr(run.plan.groups[0], t, gain) for t, gain in enumerate(gains)
    ]


def test_plateau_does_not_judge_a_warmup(train: Callable[..., Any], recorded: Recorded) -> None:
    train(
        "warmup=linear", "warmup.length=15", "plateau=reduce", "plateau.patience=0", "plateau.threshold=1e9",
        "plateau.threshold_mode=abs", "trainer.max_epochs=4", "trainer.limit_train_batches=5", "schedule=constant",
    )  # fmt: skip
    rates = [step["default"][0] for step in recorded]
    assert rates[15:] == [0.1] * 5 and rates[:15] == sorted(rates[:15])


def test_plateau_on_a_training_metric(train: Callable[..., Any], recorded: Recorded) -> None:
    train(
        "plateau=reduce", "plateau.monitor=train/loss", "plateau.patience=0", "plateau.threshold=1e9",
        "plateau.threshold_mode=abs", "trainer.max_epochs=3", "trainer.limit_train_batches=2", "schedule=constant",
        "plateau.factor=0.5",
    )  # fmt: skip
    assert [step["default"][0] for step in recorded] == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_monitor_that_nothing_logs_is_caught_before_training(train: Callable[..., Any], recorded: Recorded) -> None:
    for key in ("plateau.monitor", "monitor"):
        with pytest.raises(ConfigError, match=f"^{key} names a metric .* Did you mean 'val/loss'"):
            train("plateau=reduce", f"{key}=val/los")
    assert not recorded


def test_checkpoints_load_safely_and_best_is_best(train: Callable[..., Any]) -> None:
    run = train("trainer.max_epochs=4", "optimizer.lr=2.0", "trainer.limit_train_batches=20", short=True)
    checkpoints = {p.stem: torch.load(p, weights_only=True) for p in (run.folder / "checkpoints").iterdir()}
    assert set(checkpoints) == {"best", "last", "previous"}
    assert [checkpoints[name]["global_step"] for name in ("last", "previous")] == [80, 60]
    saved = json.loads((run.folder / "metrics.json").read_text())
    assert checkpoints["best"]["global_step"] == saved["best"]["step"]
    assert saved["best"]["val/loss"] <= saved["final"]["val/loss"] and saved["status"] == "done"


@pytest.mark.parametrize("optimizer", ["schedule_free_adamw", "schedule_free_sgd"])
def test_schedule_free_weights_are_evaluated_and_saved(optimizer: str, train: Callable[..., Any]) -> None:
    """The saved weights give the logged validation loss: both are the averaged ones."""
    run = train(f"optimizer={optimizer}", "schedule=constant", "trainer.limit_val_batches=null")
    checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["train_mode"] is False
    from lrkit.data.digits import Digits
    from lrkit.lightning.supervised import Supervised
    from lrkit.models import Mlp

    data = Digits(batch_size=300)
    data.setup("fit")
    module = Supervised(Mlp(data.inputs, data.outputs))
    module.load_state_dict(checkpoint["state_dict"])
    x, y = next(iter(data.val_dataloader()))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(module.eval()(x), y)
    assert float(loss) == pytest.approx(run.final["val/loss"], rel=1e-5)


def test_a_run_that_ends_within_an_epoch_is_validated_at_its_end(train: Callable[..., Any]) -> None:
    run = train("trainer.max_steps=8", "trainer.max_epochs=5", "trainer.limit_train_batches=6")
    saved = json.loads((run.folder / "metrics.json").read_text())
    assert saved["steps"] == 8 and "val/loss" in saved["final"]
    checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    assert train("trainer.max_steps=3", "trainer.limit_train_batches=6").best["val/loss"] > 0


def test_the_same_seed_gives_the_same_run(train: Callable[..., Any]) -> None:
    one, two, other = train("seed=3"), train("seed=3"), train("seed=4")
    assert one.final == two.final != other.final


def test_no_validation_means_no_best(train: Callable[..., Any]) -> None:
    run = train("trainer.limit_val_batches=0")
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert run.monitor is None and run.final["train/loss"] > 0


def test_the_run_folder(train: Callable[..., Any], tmp_path: Path) -> None:
    run = train("schedule=one_cycle")
    files = {"config.json", "config.yaml", "environment.json", "plan.json", "metrics.json"}
    assert {p.name for p in run.folder.iterdir()} == {"checkpoints", *files}
    plan = json.loads((run.folder / "plan.json").read_text())
    assert plan["horizon"]["steps"] == 6 and plan["config"]["schedule"]["_target_"] == "lrkit.schedules.OneCycle"


def test_a_gradient_accumulation_scheduler_is_refused(train: Callable[..., Any]) -> None:
    callback = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {0: 1}}"
    with pytest.raises(ConfigError, match=r"^callbacks\.grow changes accumulation"):
        train(f"+callbacks.grow={callback}")


def test_a_run_that_ends_without_a_finite_loss_has_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrkit.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["optimizer.lr=1e30", "allow_extreme_lr=true", "trainer.max_epochs=1", "logger=none"]
    assert main(["train", *words]) == 3
    (metrics,) = tmp_path.glob("outputs/runs/*/metrics.json")
    assert json.loads(metrics.read_text())["status"] == "diverged"


def test_the_test_data_are_looked_at_when_asked(train: Callable[..., Any]) -> None:
    run = train("test=true")
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert {"test/loss", "test/accuracy"} <= set(metrics["test"])
    assert "test" not in json.loads((train().folder / "metrics.json").read_text())
