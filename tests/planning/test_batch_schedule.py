"""The plan of a run whose batch size changes: what is shown, what is saved, and what it cannot be used with."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import check, compose, plan
from lrkit.planning import plan_schema, render
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.picture import draw_picture
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.planning.weight_decay_rule import WeightDecayRule
from lrkit.schedules import Constant, Cosine
from lrkit.schedules.batch_sizes import BatchSizes
from lrkit.schedules.horizon import Horizon


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return compose(["batch.schedule=[[0,32],[50%,64]]"])


@pytest.fixture
def config(composed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(composed)


#: 6 batches of 32 an epoch: 6 steps, then 3 an epoch.
SIZES = BatchSizes(((0, 32), (6, 64), (9, 192)), 32, 6)
HORIZON = Horizon(12, batch_sizes=SIZES)


def made(rule: str = "linear", **parts: object) -> Plan:
    known: dict[str, object] = {"lr": 0.1, "schedule": Constant(), "horizon": HORIZON, "optimizer": "torch.optim.AdamW"}
    return resolve_plan(**{**known, "scale": batch_scale(rule, 128, 32), **parts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "factors"), [("linear", (0.25, 0.5, 1.5)), ("sqrt", (0.5, 0.5**0.5, 1.5**0.5)), ("none", (1.0, 1.0, 1.0))]
)
def test_the_rate_has_the_factor_of_each_batch(rule: str, factors: tuple[float, ...]) -> None:
    run = made(rule, groups=(GroupRate("default"), GroupRate("head", 10.0)))
    for group in run.groups:
        rates = [run.lr(group, step) for step in range(12)]
        expected = [0.1 * factors[0]] * 6 + [0.1 * factors[1]] * 3 + [0.1 * factors[2]] * 3
        assert rates == [rate * group.lr_scale for rate in expected]
        assert run.phase_rates(0, group) == {"first": rates[0], "peak": max(rates), "last": rates[-1]}


@pytest.mark.parametrize("rule", ["independent", "timescale"])
def test_a_step_takes_the_same_share_of_the_weights_whatever_its_batch(rule: str) -> None:
    decay = WeightDecayRule(rule, 100 if rule == "timescale" else None)
    run = made(weight_decay=0.01, weight_decay_rule=decay)
    (group,) = run.groups
    assert [run.lr(group, step) * run.weight_decay(group, step) for step in (0, 6, 9)] == pytest.approx([0.01] * 3)


def test_text_csv_and_json_have_the_batch_of_each_step(tmp_path: Path) -> None:
    run = made(schedule=Cosine(), plateau=Plateau(monitor="val/loss"))
    text = render.render_text(run)
    assert "lr 0.025 from step 0, 0.05 from step 6, 0.15 from step 9 = 0.1 x linear(batch / 128)" in text
    assert "batch_scale(t) (linear: 0.25 from step 0, 0.5 from step 6, 1.5 from step 9; base 128) x curve(t)" in text
    assert (
        "samples a step: 32 from step 0, 64 from step 6, 192 from step 9 (accumulate 1 -> 2 -> 6 batches of 32); 6 ste"
        in text
    )
    rows = [*csv.DictReader(io.StringIO(render.render_csv(run)))]
    assert [(int(row["batch/effective"]), float(row["lr/default"])) for row in rows] == [
        (SIZES.at(step), run.lr(run.groups[0], step)) for step in range(12)
    ]
    plain = json.loads(render.render_json(run))
    assert plain["horizon"]["batch_sizes"] == {
        "stages": [[0, 32, 0.25], [6, 64, 0.5], [9, 192, 1.5]], "micro": 32, "batches": 6, "by": "accumulation",
    }  # fmt: skip
    again = Plan.from_json(plain)
    assert again.horizon == run.horizon
    assert [again.lr(again.groups[0], step) for step in range(12)] == [run.lr(run.groups[0], s) for s in range(12)]
    assert draw_picture({"": run}, tmp_path / "plan.svg").read_text().count("batch 192") == 1


def test_a_plan_without_the_key_is_a_plan(config: dict[str, Any]) -> None:
    config["batch"] |= {"schedule": None}
    plain = json.loads(render.render_json(plan(config)))
    assert "batch_sizes" not in plain["horizon"]
    del plain["config"]["batch"]["schedule"], plain["config"]["batch"]["by"]
    assert plan_schema.checked(plain).horizon.batch_sizes is None


@pytest.mark.parametrize(
    ("stages", "must"),
    [
        ([[1, 32, 1.0]], "must be "),
        ([[0, 32, 1.0], [0, 64, 1.0]], "must be a whole number >= 1"),
        ([[0, 33, 1.0]], "must be multiples of 32"),
        ([[0, 32]], "must be a list of 3 values"),
    ],
)
def test_stages_that_no_run_has_are_refused(stages: list[list[float]], must: str, config: dict[str, Any]) -> None:
    plain = json.loads(render.render_json(plan(config)))
    plain["horizon"]["batch_sizes"]["stages"] = stages
    with pytest.raises(ConfigError, match=must):
        plan_schema.checked(plain)


TOGETHER = "and batch.schedule cannot be used together: "
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"batch.effective": 64}, f"batch.effective {TOGETHER}both set the samples in a step"),
    ({"trainer.accumulate_grad_batches": 2}, f"trainer.accumulate_grad_batches {TOGETHER}both set"),
    ({"optimizers": {"a": {}, "b": {}}}, f"optimizers {TOGETHER}with several optimizers"),
    ({"trainer.strategy": "deepspeed"}, f"trainer.strategy {TOGETHER}DeepSpeed accumulates by itself"),
    ({"optimizer.lr": "auto"}, f"optimizer.lr=auto {TOGETHER}a search measures at one batch size"),
    ({"horizon.batch_size": 64}, f"horizon.batch_size {TOGETHER}"),
    ({"horizon.steps_per_epoch": 6}, f"horizon.steps_per_epoch {TOGETHER}"),
    ({"data.batch_size": 48}, "batch.schedule[0] must be a multiple of 48 = data.batch_size 48 x 1 device(s): 48 is p"),
    ({"batch.by": "x"}, "batch.by must be accumulation or loader. Received: 'x'"),
    ({"batch.by": "loader", "guard": {"policy": "skip"}}, f"batch.by=loader, guard {TOGETHER}a skipped step"),
    ({"batch.by": "loader", "trainer.precision": "16-mixed"}, f"batch.by=loader, trainer.precision {TOGETHER}"),
    ({"batch.by": "loader", "trainer.val_check_interval": 5}, "batch.by=loader, trainer.val_check_interval and b"),
    ({"batch.by": "loader", "trainer.reload_dataloaders_every_n_epochs": 1}, "batch.by=loader, trainer.reload_data"),
    ({"batch.by": "loader", "batch.schedule": None}, "batch.by needs batch.schedule: without it a step has data.batch"),
    ({"weight_decay_rule": {"rule": "timescale", "timescale": "1ep"}}, f"weight_decay_rule.timescale {TOGETHER}"),
    ({"schedule.update_every": "1ep"}, f"schedule.update_every {TOGETHER}the steps of 1ep change with the batch size"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_cannot_be_used_with_it(changes: dict[str, Any], sentence: str, config: dict[str, Any]) -> None:
    for key, value in changes.items():
        node, (*above, name) = config, key.split(".")
        for each in above:
            node = node[each]
        node[name] = value
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert str(caught.value).startswith(sentence)


def test_the_number_of_steps_alone_is_enough(config: dict[str, Any]) -> None:
    config["data"]["train_samples"] = None
    config["horizon"]["steps"] = 100
    assert plan(config).horizon.batch_sizes == BatchSizes(((0, 32), (50, 64)), 32)


def test_a_run_of_unknown_length_is_checked(config: dict[str, Any]) -> None:
    config["data"]["train_samples"] = None
    config["batch"]["schedule"] = [[0, 32], ["1ep", 64], [9, 96000]]
    config["warmup"] = {"_target_": "lrkit.schedules.Linear", "start": 0.0, "length": "1ep"}
    assert check(config) is None
    config["batch"]["schedule"] = [[0, 32], ["1ep", 65]]
    with pytest.raises(ConfigError, match=r"^batch\.schedule\[1\] must be a multiple of 32"):
        check(config)
