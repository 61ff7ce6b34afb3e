"""Groups with schedules of their own: what torch's lists of functions, Megatron's groups and ULMFiT do, by a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, MultiplicativeLR, SequentialLR

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config.shipped_options import option_names
from lrkit.optim.factory import build_optimizer
from lrkit.optim.param_groups import split_parameters
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import Plan
from lrkit.schedules.shapes import Constant, Cosine, Cyclic, Exponential, Linear, Piecewise, Schedule, Step

RUN, LR = 40, 0.1


def optimizer_of(names: Sequence[str], cls: Any = SGD, lr: Any = LR, **options: Any) -> Optimizer:
    generator = torch.Generator().manual_seed(0)
    groups = [{"params": [nn.Parameter(torch.randn(3, 2, generator=generator))], "name": name} for name in names]
    optimizer: Optimizer = cls(groups, lr=lr, **options)
    return optimizer


def used(optimizer: Optimizer, advance: Callable[[], Any], steps: int = RUN, key: str = "lr") -> list[list[float]]:
    """Train, and return the value of each group at each optimizer step."""
    rows: list[list[float]] = []
    for _ in range(steps):
        optimizer.zero_grad()
        sum(p.square().sum() for group in optimizer.param_groups for p in group["params"]).backward()
        optimizer.step()
        values = [group[key] for group in optimizer.param_groups]
        rows.append([value[0] if isinstance(value, tuple) else float(value) for value in values])
        advance()
    return rows


def plan_of(rules: Sequence[dict[str, Any]], schedule: Any = "constant", **parts: Any) -> Plan:
    named = [{"pattern": rule["name"], **rule} for rule in rules]
    return lrkit.plan(
        **{"lr": LR, "steps": RUN, "optimizer": "sgd", "schedule": schedule, "param_groups": named, **parts}
    )


def rates(plan: Plan, steps: int = RUN) -> list[list[float]]:
    return [[plan.lr(group, t) for group in plan.groups] for t in range(steps)]


def close(theirs: list[list[float]], ours: list[list[float]]) -> bool:
    return all(a == pytest.approx(b, abs=1e-12 * LR) for a, b in zip(theirs, ours, strict=True))


RULES = [
    {"name": "a", "schedule": "linear", "delay": 7, "lr_scale": 3},
    {"name": "b", "warmup": {"name": "linear", "length": 5}, "cooldown": {"name": "sqrt", "length": 4}},
    {"name": "c", "schedule": {"name": "one_cycle", "up": 9, "momentum_start": 0.95, "momentum_peak": 0.85}},
    {"name": "d", "lr_scale": 0.5},
]


@pytest.mark.parametrize("lr", [LR, torch.tensor(LR)], ids=["float", "tensor"])
@pytest.mark.parametrize("run", ["cosine", "one_cycle"])
def test_the_planned_rates_are_those_in_use(run: str, lr: Any) -> None:
    plan = plan_of(RULES, run, optimizer="adamw", allow_extreme_lr=True)
    optimizer = optimizer_of([group.name for group in plan.groups][::-1], AdamW, lr)
    plan_in_order = plan.with_groups(plan.groups[::-1])
    scheduler = PlanScheduler(optimizer, plan)
    planned = rates(plan_in_order, RUN + 2)
    if isinstance(lr, torch.Tensor):
        planned = [[float(torch.tensor(rate)) for rate in row] for row in planned]
    assert used(optimizer, scheduler.step, RUN + 2) == planned


def test_momentum_is_cycled_for_the_groups_of_its_schedule_alone() -> None:
    plan = plan_of(RULES, "cosine", optimizer="adamw")
    optimizer = optimizer_of([group.name for group in plan.groups], AdamW)
    momenta = used(optimizer, PlanScheduler(optimizer, plan).step, key="betas")
    assert [row[2] for row in momenta] == [plan.hyper(t)["momentum/c"] for t in range(RUN)]
    assert {value for row in momenta for i, value in enumerate(row) if i != 2} == {0.9}


def test_a_gain_multiplies_every_group_and_a_restored_count_restores_every_rate() -> None:
    plan = plan_of(RULES, "cosine")
    optimizer = optimizer_of([group.name for group in plan.groups])
    scheduler = PlanScheduler(optimizer, plan)
    used(optimizer, scheduler.step, 10)
    scheduler.set_gain(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [plan.lr(group, 10, 0.5) for group in plan.groups]
    other = optimizer_of([group.name for group in plan.groups])
    resumed = PlanScheduler(other, plan)
    resumed.load_state_dict(scheduler.state_dict())
    assert used(other, resumed.step, 5) == [[plan.lr(group, t, 0.5) for group in plan.groups] for t in range(10, 15)]


def test_a_group_that_joins_follows_the_runs_curve() -> None:
    plan = plan_of([{"name": "a", "delay": 10}], "linear")
    optimizer = optimizer_of(["a", "default"])
    scheduler = PlanScheduler(optimizer, plan)
    used(optimizer, scheduler.step, 5)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.035})
    rows = used(optimizer, scheduler.step, RUN - 5)
    assert [row[:2] for row in rows] == rates(plan)[5:]
    assert [row[2] for row in rows] == pytest.approx([0.4 * plan.lr(plan.groups[1], t) for t in range(5, RUN)])


# Other libraries.

PER_GROUP: dict[str, tuple[Callable[[Optimizer], Any], tuple[Schedule, Schedule]]] = {
    "LambdaLR": (
        lambda o: LambdaLR(o, [lambda t: 1 - t / RUN, lambda t: 0.95**t]),
        (Linear(), Exponential(gamma=0.95, every=1)),
    ),
    "LambdaLR with a cosine and steps": (
        lambda o: LambdaLR(o, [lambda t: (1 + math.cos(math.pi * t / RUN)) / 2, lambda t: 0.1 ** (t // 15)]),
        (Cosine(), Step(every=15)),
    ),
    "MultiplicativeLR": (
        lambda o: MultiplicativeLR(o, [lambda t: 0.9, lambda t: 0.5 if t % 10 == 0 else 1.0]),
        (Exponential(gamma=0.9, every=1), Step(every=10, gamma=0.5)),
    ),
    "CyclicLR": (
        lambda o: CyclicLR(o, [0.01, 0.05], [0.1, 0.2], step_size_up=4, step_size_down=6, cycle_momentum=False),
        (Cyclic(up=4, down=6, start=0.1, peak=1.0), Cyclic(up=4, down=6, start=0.5, peak=2.0)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", PER_GROUP)
def test_torchs_lists_of_one_schedule_per_group(row: str) -> None:
    make, (first, second) = PER_GROUP[row]
    plan = plan_of([{"name": "a", "schedule": first}, {"name": "b", "schedule": second}])
    plan = plan.with_groups(plan.groups[:2])
    theirs, ours = optimizer_of(["a", "b"]), optimizer_of(["a", "b"])
    assert close(used(theirs, make(theirs).step), used(ours, PlanScheduler(ours, plan).step))


def test_sequential_of_a_list_is_a_warmup_for_one_group() -> None:
    theirs, ours = optimizer_of(["a", "b"]), optimizer_of(["a", "b"])
    warm = LambdaLR(theirs, [lambda t: 0.1 + 0.9 * t / 5, lambda t: 1 - t / RUN])
    rest = LambdaLR(theirs, [lambda t: 1 - t / (RUN - 5), lambda t: 1 - (t + 5) / RUN])
    plan = plan_of([{"name": "a", "warmup": {"name": "linear", "start": 0.1, "length": 5}}, {"name": "b"}], "linear")
    plan = plan.with_groups(plan.groups[:2])
    assert close(used(theirs, SequentialLR(theirs, [warm, rest], [5]).step), used(ours, PlanScheduler(ours, plan).step))


def megatron(t: int, most: float, least: float, warmup: int) -> float:
    """``OptimizerParamScheduler.get_lr`` of Megatron-LM, with a cosine; ``max_lr`` and ``min_lr`` are a group's own."""
    if t <= warmup:
        return most * t / warmup
    return least + (most - least) * 0.5 * (math.cos(math.pi * (t - warmup) / (RUN - warmup)) + 1.0)


def test_megatrons_highest_and_lowest_rate_of_each_group() -> None:
    ends = {"a": (0.1, 0.01), "b": (0.4, 0.1)}
    warmup = {"name": "linear", "start": 0.0, "length": 8}
    rules = [
        {"name": name, "lr_scale": most / LR, "schedule": {"name": "cosine", "end": least / most}}
        for name, (most, least) in ends.items()
    ]
    plan = plan_of(rules, warmup=warmup)
    expected = [[megatron(t, most, least, 8) for most, least in ends.values()] for t in range(RUN)]
    assert close(expected, [row[:2] for row in rates(plan)])


def slanted(t: int, steps: int, cut_frac: float = 0.1, ratio: float = 32) -> float:
    """The slanted triangle of ULMFiT, equation 3 of Howard and Ruder 2018, in optimizer steps."""
    cut = math.floor(steps * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return (1 + p * (ratio - 1)) / ratio


def test_ulmfit_unfreezes_a_group_after_another_and_raises_its_rate() -> None:
    """Gradual unfreezing with discriminative rates: a layer is 1/2.6 of the one above it, and begins a stage later."""
    stage, names = 10, ["top", "middle", "bottom"]
    triangle = lambda steps: Piecewise(  # noqa: E731
        phases=[Linear(start=1 / 32, end=1.0, length=steps // 10), Linear(start=1.0, end=1 / 32)]
    )
    rules = [
        {"name": name, "lr_scale": 2.6**-i, "delay": i * stage, "schedule": triangle(RUN - i * stage)}
        for i, name in enumerate(names)
    ]
    plan = plan_of(rules, triangle(RUN))
    for i in range(len(names)):
        steps = RUN - i * stage
        ramp = [LR * 2.6**-i * slanted(t, steps) for t in range(steps)]
        assert [plan.lr(plan.groups[i], t) for t in range(RUN)] == pytest.approx([0.0] * (i * stage) + ramp, abs=1e-15)


def test_a_delayed_group_is_as_under_torchs_function_that_is_0() -> None:
    """Weights and the averages of the optimizer, to the bit."""
    plan = plan_of([{"name": "a", "delay": 15}], optimizer="adamw")
    theirs, ours = (optimizer_of(["a", "default"], AdamW) for _ in range(2))
    used(theirs, LambdaLR(theirs, [lambda t: float(t >= 15), lambda t: 1.0]).step)
    used(ours, PlanScheduler(ours, plan).step)
    assert ours.param_groups[0]["params"][0].equal(theirs.param_groups[0]["params"][0])
    states = [[*each.state.values()] for each in (ours, theirs)]
    assert all(a[key].equal(b[key]) for a, b in zip(*states, strict=True) for key in a)


ONE_RATE = ("prodigy", "adabound_paper")


@pytest.mark.parametrize("option", [name for name in option_names("optimizer") if name not in (*ONE_RATE, "custom")])
def test_a_delayed_group_stands_still_with_every_optimizer(option: str) -> None:
    parts = {"lr": 0.01, "steps": 20, "schedule": Constant(), "allow_extreme_lr": True}
    plan = lrkit.plan(**parts, optimizer=option, param_groups=[{"name": "late", "pattern": "x", "delay": 6}])
    from lrkit.api.arguments import RunParts

    target, options = RunParts(lr=0.01, optimizer=option).target()
    generator = torch.Generator().manual_seed(0)
    late, other = (nn.Parameter(torch.randn(4, 4, generator=generator)) for _ in range(2))
    groups = [{"params": [late], "name": "late"}, {"params": [other], "name": "default"}]
    optimizer = build_optimizer(target, options, [{**group, "lr": 0.01} for group in groups])
    if callable(train := getattr(optimizer, "train", None)):
        train()
    begun, scheduler = [late.detach().clone(), other.detach().clone()], PlanScheduler(optimizer, plan)
    used(optimizer, scheduler.step, 6)
    assert late.equal(begun[0]) and not other.equal(begun[1])
    used(optimizer, scheduler.step, 6)
    assert not late.equal(begun[0]) and late.isfinite().all()


# Muon, and its half of AdamW.

MUON = [
    {"name": "embed", "pattern": "embed", "adamw": True, "lr_scale": 0.5},
    {"name": "rest", "adamw": True, "lr_scale": 0.1, "schedule": "linear", "delay": 3},
]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv, self.head = nn.Embedding(5, 4), nn.Conv1d(4, 4, 3), nn.Linear(4, 2)


def test_a_rule_is_muons_half_of_adamw_with_a_rate_and_a_schedule_of_its_own() -> None:
    torch.manual_seed(0)
    model, twin = Network(), Network()
    twin.load_state_dict(model.state_dict())
    plan = lrkit.plan(lr=0.02, steps=10, schedule="constant", optimizer="muon", param_groups=MUON)
    groups = split_parameters(model, {"rules": MUON})
    assert {group.name: group.names for group in groups} == {
        "embed": ("embed.weight",),
        "rest": ("conv.weight", "conv.bias", "head.bias"),
        "default": ("head.weight",),
    }
    ours = build_optimizer("lrkit.optim.muon.Muon", {}, [group.options(0.02) for group in groups])
    scheduler = PlanScheduler(ours, plan)
    same = [{"params": [p for n, p in twin.named_parameters() if n in g.names], "name": g.name} for g in groups[:2]]
    theirs = AdamW(same, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)
    beside = PlanScheduler(theirs, plan)
    for _ in range(10):
        for network, optimizer, each in ((model, ours, scheduler), (twin, theirs, beside)):
            optimizer.zero_grad()
            sum((p * p).sum() + p.sum() for p in network.parameters()).backward()
            optimizer.step()
            assert [g["lr"] for g in optimizer.param_groups] == [
                plan.lr(rate, each.applied - 1) for rate in plan.groups
            ][: len(optimizer.param_groups)]
            each.step()
    for name, parameter in model.named_parameters():
        if name != "head.weight":
            assert torch.allclose(parameter, twin.get_parameter(name), rtol=1e-5, atol=1e-7), name
    assert (
        "momentum_buffer" in ours.state[model.head.weight] and "momentum_buffer" not in ours.state[model.embed.weight]
    )


def test_the_half_of_adamw_is_shown_and_refused_elsewhere() -> None:
    text = str(lrkit.plan(lr=0.02, steps=10, optimizer="muon", param_groups=MUON))
    assert "rest: AdamW updates all of it, matrices too" in text and "rest 0.1" in text
    with pytest.raises(ConfigError, match=r"^param_groups\.rules\[0\]\.adamw needs optimizer=muon"):
        lrkit.plan(lr=0.02, steps=10, optimizer="adamw", param_groups=MUON)
    with pytest.raises(ConfigError, match=r"^param_groups\.rules\[0\] must have a pattern or a max_ndim"):
        lrkit.plan(lr=0.02, steps=10, optimizer="muon", param_groups=[{"name": "rest"}])


def test_a_plain_loop_by_a_mounted_config_has_the_curves_of_its_rules() -> None:
    rule = {"name": "head", "pattern": "^1", "delay": 3, "schedule": {"_target_": "lrkit.schedules.Linear", "end": 0.5}}
    cfg = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": LR},
        "schedule": {"_target_": "lrkit.schedules.Cosine"},
        "param_groups": {"rules": [rule], "no_decay": True},
    }
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer, scheduler = lrkit.from_config(cfg, model, steps=10)
    assert [group["name"] for group in optimizer.param_groups] == ["head", "head_no_decay", "default", "no_decay"]
    rows = used(optimizer, scheduler.step, 10)
    assert rows == rates(scheduler.plan, 10) and [row[0] for row in rows[2:4]] == [0.0, LR]
    rule["schedule"] = {"_target_": "os.system"}
    with pytest.raises(ConfigError, match=r"^param_groups\.rules\[0\]\.schedule\._target_"):
        lrkit.from_config(cfg, model, steps=10)
