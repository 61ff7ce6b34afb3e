"""The scheduler: an optimizer follows a plan, in plain torch loops."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrkit.base.errors import ConfigError
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    Linear,
    Multistep,
    OneCycle,
    Piecewise,
    Polynomial,
    Product,
    Restarts,
    Schedule,
    Sqrt,
    Step,
    Wsd,
)

RUN = 24
BODY, HEAD, FROZEN = GroupRate("body"), GroupRate("head", 10.0), GroupRate("frozen", 0.0)
CYCLE = OneCycle(up=8, momentum_start=0.95, momentum_peak=0.85)
INSIDE = Piecewise(phases=[Linear(length=2), dataclasses.replace(CYCLE, up=4, length=10), Sqrt()])
SCHEDULES: list[Schedule] = [
    Constant(), Cosine(), Linear(start=0.3, end=0.1), Step(every=5, gamma=0.3), Multistep(milestones=[3, 9]),
    Exponential(gamma=0.9, every=3), Restarts(period=3, growth=2), Cyclic(up=4, mode="triangular2"), CYCLE,
    Cyclic(up=4, mode="exp_cycle", momentum_start=0.9, momentum_peak=0.8), Wsd(decay=3, shape="tanh", milestones=[6]),
    Restarts(period=5, shape=Polynomial(power=1.0, k=2.0), decay=0.5, decay_of="peak", end=0.3),
    Product(factors=[INSIDE, Step(every=5)]),
]  # fmt: skip


def plan_of(schedule: Schedule | None = None, groups: Any = (BODY, HEAD), lr: float = 0.1, **parts: Any) -> Plan:
    if schedule is not None and schedule.momentum(0.9) is not None:
        parts = {"momentum": 0.9, **parts}
    return resolve_plan(lr=lr, schedule=schedule or Cosine(), horizon=Horizon(RUN), groups=groups, **parts)


def optimizer_of(
    cls: Any = SGD, names: Any = ("body", "head"), lr: Any = 0.1, seed: int = 0, **options: Any
) -> Optimizer:
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": [nn.Parameter(torch.randn(3, generator=generator))], "name": name} for name in names]
    optimizer: Optimizer = cls(groups, lr=lr, **options)
    return optimizer


def train(
    optimizer: Optimizer,
    scheduler: PlanScheduler,
    steps: int,
    each: Callable[[int], Any] = lambda t: None,
) -> list[list[float]]:
    """Train, and return the rates that were in the groups while the optimizer took each step."""
    used: list[list[float]] = []
    handle = optimizer.register_step_post_hook(lambda o, *_: used.append([float(g["lr"]) for g in o.param_groups]))
    for t in range(steps):
        each(t)
        optimizer.zero_grad()
        sum(p.square().sum() for group in optimizer.param_groups for p in group["params"]).backward()
        optimizer.step()
        scheduler.step()
    handle.remove()
    return used


def rates(plan: Plan, steps: int, gain: float = 1.0) -> list[list[float]]:
    return [[plan.lr(group, t, gain) for group in plan.groups] for t in range(steps)]


def weights(optimizer: Optimizer) -> list[list[float]]:
    return [p.tolist() for group in optimizer.param_groups for p in group["params"]]


# The rate that was planned is the rate that is used, bit for bit.


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_the_planned_rate_is_the_rate_that_is_used(cls: Any, gain: float, schedule: Schedule) -> None:
    groups = (BODY, HEAD, FROZEN)
    scale = batch_scale("sqrt", 48, 1000)
    optimizer = optimizer_of(cls, [group.name for group in groups])
    plan = plan_of(schedule, groups, scale=scale, warmup=Linear(start=0.1, length=4), cooldown=Sqrt(length=4))
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.gain = gain
    assert train(optimizer, scheduler, RUN + 3) == rates(plan, RUN + 3, gain)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(SCHEDULES), st.floats(1e-6, 1.0), st.lists(st.floats(0.0, 100.0), min_size=1, max_size=4),
    st.floats(0.0, 2.0), st.integers(0, 5),
)  # fmt: skip
def test_whatever_the_numbers_are(schedule: Schedule, lr: float, scales: Any, gain: float, warmup: int) -> None:
    groups = [GroupRate(f"g{i}", scale) for i, scale in enumerate(scales)]
    optimizer = optimizer_of(SGD, [group.name for group in groups])
    plan = plan_of(schedule, groups, lr, warmup=Linear(start=0.01, length=warmup))
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.gain = gain
    assert train(optimizer, scheduler, 15) == rates(plan, 15, gain)


def test_names_find_their_groups_in_any_order() -> None:
    plan, optimizer = plan_of(), optimizer_of(names=("head", "body"))
    used = train(optimizer, PlanScheduler(optimizer, plan), 5)
    assert used == [[head, body] for body, head in rates(plan, 5)]


def test_groups_without_names_are_taken_in_order() -> None:
    plan = plan_of()
    optimizer = SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in plan.groups], lr=7.0)
    assert train(optimizer, PlanScheduler(optimizer, plan), 5) == rates(plan, 5)


def test_a_loop_that_never_steps_the_scheduler_follows_the_plan_all_the_same() -> None:
    plan, optimizer = plan_of(), optimizer_of()
    PlanScheduler(optimizer, plan)
    for t in range(5):
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == rates(plan, 6)[t]


# Constructing, looking and stepping twice change nothing.


def test_constructing_changes_nothing() -> None:
    optimizer = optimizer_of(AdamW, lr=0.3, betas=(0.7, 0.8))
    before = copy.deepcopy(optimizer.state_dict())
    step = optimizer.step.__func__  # type: ignore[attr-defined]
    scheduler = PlanScheduler(optimizer, plan_of(CYCLE))
    assert optimizer.state_dict() == before
    assert optimizer.step.__func__ is step  # type: ignore[attr-defined]
    assert (scheduler.applied, scheduler.last_epoch, scheduler.total_gain) == (0, 0, 1.0)
    assert scheduler.get_last_lr() == [0.3, 0.3]


def test_stepping_the_scheduler_alone_changes_nothing() -> None:
    """Rates move with applied steps; the scheduler's own ``step`` only writes them down ahead of time."""
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    assert train(optimizer, scheduler, 6, each=lambda t: [scheduler.step() for _ in range(3)]) == rates(plan, 6)
    assert scheduler.get_last_lr() == scheduler.get_lr() == rates(plan, 7)[6]  # those of the step to come
    assert isinstance(scheduler, LRScheduler)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_rate_that_is_written_by_hand_is_not_used_even_once(ahead: bool) -> None:
    """The scheduler writes the plan's rate again before the step if other code changed it, and warns once."""
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)

    def meddle(t: int) -> None:
        if t >= 3:
            optimizer.param_groups[1]["lr"] = 123.0
            if ahead:
                scheduler.step()

    with pytest.warns(
        UserWarning, match=r"rate of group 'head' was set to 123 by other code.*use set_gain\(x\)"
    ) as said:
        assert train(optimizer, scheduler, 6, each=meddle) == rates(plan, 6)
    assert len(said) == 1


# The gain.


@pytest.mark.parametrize("gain", [0.5, 2, 0])
def test_a_gain_counts_from_the_next_step_on(gain: float) -> None:
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)

    def change(t: int) -> None:
        if t == 3:
            scheduler.set_gain(gain)
            assert scheduler.get_last_lr() == rates(plan, 4, gain)[3]

    assert train(optimizer, scheduler, 6, each=change) == [*rates(plan, 3), *rates(plan, 6, gain)[3:]]


@pytest.mark.parametrize("gain", [-0.1, float("nan"), float("inf"), "0.5", None, True])
def test_a_gain_is_a_number_that_is_not_negative(gain: Any) -> None:
    scheduler = PlanScheduler(optimizer_of(), plan_of())
    with pytest.raises(ConfigError, match=r"^gain must be (>= 0|a number)\. Received: "):
        scheduler.set_gain(gain)
    assert scheduler.total_gain == 1.0


def test_gains_multiply() -> None:
    """A gain set by hand, a gain of reduce-on-plateau, and the schedule multiply."""
    plan, optimizer = plan_of(plateau=Plateau(factor=0.1, patience=0)), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.gain = 0.5
    changed: list[bool] = []
    metrics = {1: 1.0, 2: float("nan"), 3: 1.0, 4: 0.5}
    used = train(optimizer, scheduler, 6, each=lambda t: t in metrics and changed.append(scheduler.observe(metrics[t])))
    assert changed == [False, False, True, False]
    assert used == [*rates(plan, 3, 0.5), *rates(plan, 6, 0.5 * 0.1)[3:]]
    assert scheduler.total_gain == 0.5 * 0.1


def test_without_a_plateau_a_metric_says_nothing() -> None:
    scheduler = PlanScheduler(optimizer_of(), plan_of())
    assert [scheduler.observe(1.0) for _ in range(50)] == [False] * 50
    assert scheduler.total_gain == 1.0


# Only applied steps count.


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("skipped", [{0}, {2, 3}, {0, 5}, set(range(6))], ids=str)
def test_a_step_that_mixed_precision_skips_does_not_count(skipped: set[int], fused: bool) -> None:
    """A fused optimizer is called by the scaler all the same, and does nothing; others are not called."""
    plan, optimizer = plan_of(), optimizer_of(AdamW, fused=fused)
    scheduler = PlanScheduler(optimizer, plan)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    counts, changed, used = [], [], []
    for t in range(6):
        before = weights(optimizer)
        optimizer.zero_grad()
        scaler.scale(sum(p.sum() for g in optimizer.param_groups for p in g["params"])).backward()
        if t in skipped:
            optimizer.param_groups[1]["params"][0].grad.fill_(float("inf"))
        scaler.step(optimizer)
        used.append([group["lr"] for group in optimizer.param_groups])
        scaler.update()
        scheduler.step()
        counts.append(scheduler.applied)
        changed.append(weights(optimizer) != before)
    applied = [t not in skipped for t in range(6)]
    assert changed == applied
    assert counts == [sum(applied[: t + 1]) for t in range(6)]
    assert [row for row, was in zip(used, applied, strict=True) if was] == rates(plan, sum(applied))


def test_accumulation_does_not_count() -> None:
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    for micro in range(12):
        sum(p.square().sum() for g in optimizer.param_groups for p in g["params"]).backward()
        if micro % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
    assert scheduler.applied == 3
    assert scheduler.get_last_lr() == rates(plan, 4)[3]


def test_a_closure_is_one_step() -> None:
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    for _ in range(3):
        optimizer.step(lambda: 1.0)
    assert scheduler.applied == 3


# Groups that join.


@pytest.mark.parametrize("name", ["adapter", None])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_group_that_joins_has_the_rate_it_asks_for_and_follows_the_curve(name: str | None, ahead: bool) -> None:
    """From the very next step, whether or not the scheduler has already written that step's rates (``ahead``)."""
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    before = train(optimizer, scheduler, 4)
    group = {"params": [nn.Parameter(torch.ones(2))], "lr": 0.02, **({} if name is None else {"name": name})}
    optimizer.add_param_group(group)
    if ahead:
        scheduler.step()
    after = train(optimizer, scheduler, 5)
    assert before == rates(plan, 4)
    assert after == [[*row, 0.02 * (plan.curve(t) / plan.curve(4))] for t, row in enumerate(rates(plan, 9)) if t >= 4]
    assert after[0][-1] == 0.02


@pytest.mark.parametrize("at", range(RUN - 1))
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_rate_that_a_group_asks_for_is_had_to_the_bit(at: int, gain: float) -> None:
    """Also for a base that rounds: 0.02 divided by the curve, and multiplied by it again."""
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.set_gain(gain)
    train(optimizer, scheduler, at)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.013})
    assert train(optimizer, scheduler, 1)[0][-1] == 0.013


def test_where_the_curve_is_zero_what_a_group_asks_for_is_its_base() -> None:
    plan, optimizer = plan_of(Cosine(), warmup=Linear(start=0.0, length=4)), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.02})
    assert [row[-1] for row in train(optimizer, scheduler, RUN)] == [0.02 * plan.curve(t) for t in range(RUN)]


@pytest.mark.parametrize("names", [("body", "head"), tuple(f"block{i}" for i in range(10))])
def test_who_owns_a_group_that_joined_may_give_it_another_rate(names: tuple[str, ...]) -> None:
    """Nothing is said, for it is not the plan's; the rates of the plan's own groups stay."""
    plan = plan_of(groups=[GroupRate(name) for name in names])
    optimizer = optimizer_of(names=names)
    scheduler = PlanScheduler(optimizer, plan)
    train(optimizer, scheduler, 4)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.02, "name": "adapter"})
    train(optimizer, scheduler, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.param_groups[-1]["lr"] = 0.05
        after = train(optimizer, scheduler, 2)
        optimizer.param_groups[-1]["lr"] = 0.07  # and another one joins before that was seen
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01, "name": "more"})
        last = train(optimizer, scheduler, 1)
    assert [row[-1] for row in after] == [0.05, 0.05 * (plan.curve(7) / plan.curve(6))]
    assert last[0][-2:] == [0.07, 0.01]
    assert [row[: len(names)] for row in after + last] == rates(plan, 9)[6:]


def test_joined_groups_of_older_checkpoints_keep_their_base() -> None:
    plan, optimizer = plan_of(), optimizer_of(names=("body", "head", "adapter"))
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.step()
    scheduler.load_state_dict({**scheduler.state_dict(), "applied": 4, "joined": {"adapter": [0.02, 0.0]}})
    assert train(optimizer, scheduler, 1)[0][-1] == 0.02 * plan.curve(4)


def test_a_group_that_joined_is_remembered() -> None:
    plan, optimizer = plan_of(), optimizer_of()
    scheduler = PlanScheduler(optimizer, plan)
    train(optimizer, scheduler, 4)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.02, "name": "adapter"})
    train(optimizer, scheduler, 2)
    again = optimizer_of(names=("body", "head", "adapter"))
    again.load_state_dict(optimizer.state_dict())
    resumed = PlanScheduler(again, plan)
    resumed.load_state_dict(scheduler.state_dict())
    assert train(again, resumed, 5) == train(optimizer, scheduler, 5)


# Momentum.


@pytest.mark.parametrize(("cls", "options"), [(SGD, {"momentum": 0.9}), (AdamW, {"betas": (0.9, 0.98)})])
def test_momentum_is_driven_where_it_is_kept(cls: Any, options: dict[str, Any]) -> None:
    plan, optimizer = plan_of(CYCLE, warmup=Linear(start=0.1, length=4)), optimizer_of(cls, **options)
    assert plan.momentum is not None
    scheduler, used = PlanScheduler(optimizer, plan), []

    def note(optimizer: Optimizer, *_: Any) -> None:
        used.append([group["betas"][0] if cls is AdamW else group["momentum"] for group in optimizer.param_groups])

    optimizer.register_step_post_hook(note)
    train(optimizer, scheduler, RUN)
    assert used == [[plan.momentum(t)] * 2 for t in range(RUN)]
    assert used[:5] == [[0.95, 0.95]] * 5  # held while the rate warms up
    assert min(used) == [0.85, 0.85] == used[4 + 8]  # lowest where the rate is highest
    for group in optimizer.param_groups:
        assert ("momentum" in group) != ("betas" in group)
        if cls is AdamW:
            assert group["betas"][1] == 0.98


def test_momentum_of_a_schedule_inside_another_is_resumed() -> None:
    plan = plan_of(Product(factors=[INSIDE, Step(every=5)]))
    assert (
        plan.momentum is not None and Plan.from_json(json.loads(json.dumps(plan.to_json()))).momentum == plan.momentum
    )
    assert [plan.momentum(t) for t in (0, 1, 2, 6, 12, 23)] == pytest.approx([0.9, 0.9, 0.95, 0.85, 0.9, 0.9])
    planned, used = [plan.momentum(t) for t in range(RUN)], list[float]()
    optimizer = optimizer_of(SGD, momentum=0.9)
    scheduler = PlanScheduler(optimizer, plan)
    for run in range(2):
        optimizer.register_step_post_hook(lambda o, *_: used.append(o.param_groups[0]["momentum"]))
        train(optimizer, scheduler, 8 if run == 0 else RUN - 8)
        state, optimizer = scheduler.state_dict(), optimizer_of(SGD, momentum=0.9)
        scheduler = PlanScheduler(optimizer, plan)
        scheduler.load_state_dict(state)
    assert used == planned


def test_momentum_stays_where_the_plan_leaves_it() -> None:
    optimizer = optimizer_of(AdamW, betas=(0.7, 0.8))
    train(optimizer, PlanScheduler(optimizer, plan_of(Cosine())), 5)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.7, 0.8)] * 2


@pytest.mark.parametrize(("cls", "key"), [(SGD, "momentum"), (AdamW, "betas")])
def test_momentum_on_a_schedule_of_its_own(cls: Any, key: str) -> None:
    optimizer = optimizer_of(cls, **({"momentum": 0.8} if cls is SGD else {"betas": (0.8, 0.98)}))
    plan = plan_of(momentum=0.8, coschedule={"momentum": Linear(end=0.5)}, warmup=Linear(start=0.1, length=4))
    assert plan.momentum is not None
    assert [plan.momentum(t) for t in (0, 12, 24, 99)] == pytest.approx([0.8, 0.6, 0.4, 0.4])
    train(optimizer, PlanScheduler(optimizer, plan), 12)
    now = plan.momentum(12)  # already written for the step to come
    assert [group[key] for group in optimizer.param_groups] == [now if cls is SGD else (now, 0.98)] * 2


def test_weight_decay_on_a_schedule_of_its_own() -> None:
    """A multiple of each group's own weight decay, over the whole run; a group that joins keeps its own as the base."""
    groups = (BODY, GroupRate("head", 10.0, weight_decay=0.0), GroupRate("stem", 1.0, weight_decay=0.5))
    plan = plan_of(groups=groups, weight_decay=0.1, coschedule={"weight_decay": Linear(end=0.0)})
    optimizer = optimizer_of(AdamW, [group.name for group in groups], weight_decay=0.1)
    scheduler, used = PlanScheduler(optimizer, plan), []
    optimizer.register_step_post_hook(lambda o, *_: used.append([g["weight_decay"] for g in o.param_groups]))
    train(optimizer, scheduler, 12)
    assert used == [[plan.weight_decay(group, t) for group in groups] for t in range(12)]
    assert used[0] == [0.1, 0.0, 0.5]
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "weight_decay": 0.2, "name": "adapter"})
    optimizer.step()
    assert used[12] == pytest.approx([0.05, 0.0, 0.25, 0.1])


def test_weight_decay_stays_where_the_plan_leaves_it() -> None:
    optimizer = optimizer_of(AdamW, weight_decay=0.3)
    train(optimizer, PlanScheduler(optimizer, plan_of(weight_decay=0.1)), 5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3]


# Rates that are tensors, for compiled optimizers.


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_a_tensor_is_written_in_place(cls: Any) -> None:
    plan = plan_of()
    groups = [
        {"params": [nn.Parameter(torch.ones(2))], "name": group.name, "lr": torch.tensor(0.5, dtype=torch.float64)}
        for group in plan.groups
    ]
    optimizer = cls(groups, lr=torch.tensor(0.5), foreach=False)
    scheduler = PlanScheduler(optimizer, plan)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.5]
    scheduler.step()  # takes tensors of its own, once
    kept: list[Tensor] = [group["lr"] for group in optimizer.param_groups]
    assert train(optimizer, scheduler, 6) == rates(plan, 6)
    assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, kept, strict=True))


def test_a_tensor_that_groups_share_is_taken_apart_and_stays_the_callers() -> None:
    mine = torch.tensor(0.1, dtype=torch.float64)
    parameters = [{"params": [nn.Parameter(torch.ones(1))], "name": name} for name in ("a", "b")]
    sgd = SGD(parameters, lr=mine, foreach=False)
    plan = resolve_plan(lr=0.1, schedule=Constant(), horizon=Horizon(3), groups=[GroupRate("a"), GroupRate("b", 10.0)])
    train(sgd, PlanScheduler(sgd, plan), 2)
    assert [float(group["lr"]) for group in sgd.param_groups] == [0.1, 1.0] and float(mine) == 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it looks into its optimizer
def test_a_compiled_optimizer_is_not_compiled_anew_at_each_change() -> None:
    from torch._dynamo.testing import CompileCounter

    parameter = nn.Parameter(torch.ones(4))
    adam = torch.optim.AdamW([{"params": [parameter], "name": "default"}], lr=torch.tensor(0.1), foreach=False)
    scheduler = PlanScheduler(adam, resolve_plan(lr=0.1, schedule=Linear(), horizon=Horizon(20)))
    scheduler.write()
    counter = CompileCounter()
    step = torch.compile(adam.step, backend=counter)
    seen = []
    for _ in range(20):
        parameter.grad = torch.ones(4)
        step()
        seen.append(float(adam.param_groups[0]["lr"]))
        scheduler.step()
    assert counter.frame_count <= 4 and len(set(seen)) == 20, counter.frame_count


# State.


def fresh(schedule: Schedule, cls: Any) -> tuple[Optimizer, PlanScheduler]:
    parts = {"plateau": Plateau(factor=0.5, patience=1), "warmup": Linear(start=0.1, length=3)}
    optimizer = optimizer_of(cls, **({"momentum": 0.9} if cls is SGD else {}))
    return optimizer, PlanScheduler(optimizer, plan_of(schedule, **parts))


def watched(scheduler: PlanScheduler) -> Callable[[int], Any]:
    """Feedback of both kinds, at fixed steps."""

    def each(_: int) -> None:
        if scheduler.applied % 2 == 1:
            scheduler.observe(1.0)
        if scheduler.applied == 7:
            scheduler.set_gain(0.25)

    return each


@pytest.mark.parametrize("cls", [SGD, AdamW])
@pytest.mark.parametrize("schedule", [Cosine(), Step(every=4), CYCLE], ids=lambda schedule: type(schedule).__name__)
def test_a_run_resumed_at_any_step_ends_in_the_same_bits(schedule: Schedule, cls: Any) -> None:
    optimizer, scheduler = fresh(schedule, cls)
    whole = train(optimizer, scheduler, RUN, watched(scheduler))
    for cut in range(RUN + 1):
        a, first = fresh(schedule, cls)
        done = train(a, first, cut, watched(first))
        file = io.BytesIO()
        torch.save({"weights": weights(a), "optimizer": a.state_dict(), "scheduler": first.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        b, second = fresh(schedule, cls)
        second.write()
        for p, value in zip((p for g in b.param_groups for p in g["params"]), saved["weights"], strict=True):
            p.data.copy_(torch.tensor(value))
        b.load_state_dict(saved["optimizer"])
        second.load_state_dict(saved["scheduler"])
        assert second.state_dict() == first.state_dict()
        assert done + train(b, second, RUN - cut, watched(second)) == whole
        assert weights(b) == weights(optimizer)


def test_the_state_is_a_count_and_the_feedback() -> None:
    optimizer, scheduler = fresh(Cosine(), SGD)
    train(optimizer, scheduler, 8, watched(scheduler))
    assert scheduler.state_dict() == {
        "applied": 8,
        "gain": 0.25,
        "plateau": {"best": 1.0, "bad": 1, "waiting": 0, "gain": 0.5},
        "reduction": {"gain": 1.0, "since": 0, "over": 0, "times": 0},
        "joined": {},
    }


def test_an_early_look_at_the_rates_after_a_resume_is_right() -> None:
    """A restored count is a restored rate, even into an optimizer whose own rates were not restored."""
    optimizer, scheduler = fresh(Cosine(), SGD)
    train(optimizer, scheduler, 9)
    other, resumed = fresh(Cosine(), SGD)
    resumed.load_state_dict(scheduler.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.1, 0.1]  # loading writes nothing either
    assert train(other, resumed, 3) == rates(resumed.plan, 12)[9:]


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (lambda p: SGD(p, lr=0.1, weight_decay=0.5), None),
        (lambda p: AdamW(p, lr=0.1, weight_decay=0.5), Cosine()),
        (lambda p: AdamW(p, lr=torch.tensor(0.1), weight_decay=0.5), Cosine()),
        (lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.5), CYCLE),
    ],
    ids=["no state", "state", "a rate as a tensor", "with momentum that moves"],
)
@pytest.mark.parametrize("written", [True, False])
def test_the_step_by_which_torch_creates_a_state_changes_nothing(
    make: Callable[..., Optimizer], schedule: Schedule | None, written: bool
) -> None:
    """``torch.distributed.checkpoint`` takes it at rate 0 before it saves or loads a state."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model = nn.Linear(3, 2)
    optimizer, before = make(model.parameters()), copy.deepcopy(model.state_dict())
    scheduler = PlanScheduler(optimizer, plan_of(schedule, groups=(GroupRate("all"),)))
    if written:
        scheduler.write()
    rates = scheduler.get_last_lr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_optimizer_state_dict(model, optimizer, get_optimizer_state_dict(model, optimizer))
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert scheduler.applied == 0 and scheduler.get_last_lr() == rates
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert scheduler.applied == 1 and not torch.equal(model.weight, before["weight"])


def test_such_a_step_after_the_last_one_does_not_count_where_the_rate_is_0() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = PlanScheduler(optimizer, plan_of(Linear(), groups=(GroupRate("all"),)))
    scheduler.applied = RUN
    scheduler.write()
    assert optimizer.param_groups[0]["lr"] == 0
    get_optimizer_state_dict(model, optimizer)
    assert scheduler.applied == RUN


def test_a_step_without_a_gradient_at_a_rate_of_0_counts_where_the_plan_has_it() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = SGD([parameter], lr=0.1)
    scheduler = PlanScheduler(optimizer, plan_of(Linear(start=0.0, end=1.0), groups=(GroupRate("all"),)))
    scheduler.write()
    parameter.grad = torch.zeros(2)
    optimizer.step()
    assert scheduler.applied == 1
