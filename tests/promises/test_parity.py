"""Parity: a plan gives an optimizer the same rates as the schedulers of other libraries.

Each row has a scheduler of a library and the equal schedule of lrkit. Both drive an optimizer of the same class with
two parameter groups, and the test records the rates at each optimizer step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_optimizer.lr_scheduler import CosineAnnealingWarmupRestarts, REXScheduler
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from transformers import optimization as hf

from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    Multistep,
    OneCycle,
    Piecewise,
    Polynomial,
    Restarts,
    Rex,
    Schedule,
    Sqrt,
    Step,
    Wsd,
)

LR, HEAD = 0.1, 0.25  # the base rate, and the factor of a second group
GROUPS = (GroupRate("default"), GroupRate("head", HEAD))
CLOSE = 1e-12  # largest difference, as a share of the base rate

Make = Callable[[Optimizer], Any]
Used = list[list[float]]


def optimizer_of(cls: type[Optimizer], **options: Any) -> Optimizer:
    """An optimizer with a group for the body and one for the head. It has no gradients, so a step costs nothing."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": LR * g.lr_scale, "name": g.name} for g in GROUPS]
    return cls(groups, lr=LR, **options)  # type: ignore[call-arg]


def used(optimizer: Optimizer, advance: Callable[[int], Any], steps: int, key: str = "lr") -> Used:
    """The value of ``key`` in each group at each step of the optimizer."""
    rows: Used = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        values = [group[key] for group in optimizer.param_groups]
        rows.append([value[0] if isinstance(value, tuple) else float(value) for value in values])

    handle = optimizer.register_step_post_hook(note)
    for t in range(steps):
        optimizer.step()
        advance(t)
    handle.remove()
    return rows


def plan_of(run: int | None, schedule: Schedule, **parts: Any) -> Plan:
    return resolve_plan(lr=LR, horizon=Horizon(run), groups=GROUPS, schedule=schedule, **parts)


def theirs(make: Make, steps: int, cls: type[Optimizer] = SGD) -> Used:
    optimizer = optimizer_of(cls)
    scheduler = make(optimizer)
    return used(optimizer, lambda _: scheduler.step(), steps)


def ours(plan: Plan, steps: int, cls: type[Optimizer] = SGD) -> Used:
    optimizer = optimizer_of(cls)
    scheduler = PlanScheduler(optimizer, plan)
    rates = used(optimizer, lambda _: scheduler.step(), steps)
    assert rates == [[plan.lr(group, t) for group in plan.groups] for t in range(steps)]  # bit for bit
    return rates


def worst(a: Used, b: Used) -> float:
    """The largest difference, as a share of the group's base."""
    assert len(a) == len(b) > 0
    bases = [LR * group.lr_scale for group in GROUPS]
    return max(abs(x - y) / base for xs, ys in zip(a, b, strict=True) for x, y, base in zip(xs, ys, bases, strict=True))


def chained(warmup: Schedule) -> Schedule:
    return dataclasses.replace(warmup, overlap="multiply")


UP = Linear(start=0.1, length=10)
TORCH: dict[str, tuple[Make, Plan, int]] = {
    # torch's scheduler                                                      lrkit's plan             steps to compare
    "StepLR": (
        lambda o: StepLR(o, step_size=7, gamma=0.3), plan_of(60, Step(every=7, gamma=0.3)), 60),
    "MultiStepLR": (
        lambda o: MultiStepLR(o, [5, 9, 20], gamma=0.5), plan_of(60, Multistep(milestones=[5, 9, 20], gamma=0.5)), 60),
    "ExponentialLR": (
        lambda o: ExponentialLR(o, 0.95), plan_of(300, Exponential(gamma=0.95, every=1)), 300),
    "LinearLR, a decay": (
        lambda o: LinearLR(o, 1.0, 0.1, total_iters=40), plan_of(60, Linear(end=0.1, length=40)), 60),
    "LinearLR, a warmup": (
        lambda o: LinearLR(o, 0.1, 1.0, total_iters=10), plan_of(60, Constant(), warmup=UP), 60),
    "ConstantLR, a warmup": (
        lambda o: ConstantLR(o, 0.1, 10), plan_of(60, Constant(), warmup=Constant(start=0.1, length=10)), 60),
    "PolynomialLR": (
        lambda o: PolynomialLR(o, 40, power=2.0), plan_of(60, Polynomial(length=40, power=2.0)), 60),
    "PolynomialLR, power 0.5": (
        lambda o: PolynomialLR(o, 40, power=0.5), plan_of(60, Polynomial(length=40, power=0.5)), 60),
    # up to T_max; from there on torch's rises again, and ours stays
    "CosineAnnealingLR": (
        lambda o: CosineAnnealingLR(o, T_max=50), plan_of(50, Cosine()), 51),
    "CosineAnnealingWarmRestarts, T_mult 1": (
        lambda o: CosineAnnealingWarmRestarts(o, 10, T_mult=1), plan_of(100, Restarts(period=10)), 100),
    "CosineAnnealingWarmRestarts, T_mult 2": (
        lambda o: CosineAnnealingWarmRestarts(o, 10, T_mult=2), plan_of(160, Restarts(period=10, growth=2)), 160),
    "CosineAnnealingWarmRestarts, T_mult 3": (
        lambda o: CosineAnnealingWarmRestarts(o, 10, T_mult=3), plan_of(200, Restarts(period=10, growth=3)), 200),
    "CosineAnnealingWarmRestarts, whole cycles": (
        lambda o: CosineAnnealingWarmRestarts(o, 10, T_mult=2), plan_of(70, Restarts(cycles=3, growth=2)), 70),
    "CyclicLR, triangular": (
        lambda o: cyclic(o, "triangular"), plan_of(100, Cyclic(up=5, down=8)), 100),
    "CyclicLR, triangular2": (
        lambda o: cyclic(o, "triangular2"), plan_of(100, Cyclic(up=5, down=8, mode="triangular2")), 100),
    "CyclicLR, exp_range": (
        lambda o: cyclic(o, "exp_range"),
        plan_of(100, Cyclic(up=5, down=8, mode="exp_range", gamma=0.97, every=1)), 100),
    "SequentialLR of two": (
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=10), CosineAnnealingLR(o, 40)], [10]),
        plan_of(50, Cosine(), warmup=UP), 50),
    "SequentialLR of three": (
        lambda o: SequentialLR(
            o, [LinearLR(o, 0.1, total_iters=10), ConstantLR(o, 1.0), CosineAnnealingLR(o, 30)], [10, 30]),
        plan_of(60, Constant(), warmup=UP, cooldown=Cosine(length=30)), 60),
    "ChainedScheduler of a warmup and stairs": (
        lambda o: ChainedScheduler([LinearLR(o, 0.1, total_iters=10), StepLR(o, 7, 0.5)]),
        plan_of(60, Step(every=7, gamma=0.5), warmup=chained(UP)), 60),
    "ChainedScheduler of a warmup and a decay": (
        lambda o: ChainedScheduler([LinearLR(o, 0.1, total_iters=10), ExponentialLR(o, 0.9)]),
        plan_of(60, Exponential(gamma=0.9, every=1), warmup=chained(UP)), 60),
    "ChainedScheduler of a constant warmup and a cosine": (
        lambda o: ChainedScheduler([ConstantLR(o, 0.25, 10), CosineAnnealingLR(o, 50)]),
        plan_of(50, Cosine(), warmup=chained(Constant(start=0.25, length=10))), 50),
    "LambdaLR, stairs with a floor": (
        lambda o: LambdaLR(o, lambda t: max(0.2, 0.8 * 0.5 ** (t // 10))),
        plan_of(60, Step(every=10, gamma=0.5, scale=0.8, floor=0.2)), 60),
    "LambdaLR, a start in the middle": (
        lambda o: LambdaLR(o, lambda t: (1 + math.cos(math.pi * (t + 20) / 80)) / 2), plan_of(60, Cosine(skip=20)), 60),
    "ExponentialLR, growth": (
        lambda o: ExponentialLR(o, 1.05), plan_of(60, Exponential(gamma=1.05, every=1)), 60),
    "StepLR, growth": (
        lambda o: StepLR(o, 7, 1.5), plan_of(60, Step(every=7, gamma=1.5)), 60),
    "SequentialLR, unlike parts": (
        lambda o: SequentialLR(o, [ExponentialLR(o, 0.9), StepLR(o, 6, 0.5)], [15]),
        plan_of(60, Piecewise(phases=[Exponential(gamma=0.9, every=1, length=15), Step(every=6, gamma=0.5)])), 60),
}  # fmt: skip


def cyclic(optimizer: Optimizer, mode: Any) -> CyclicLR:
    peaks = [LR, LR * HEAD]
    return CyclicLR(optimizer, [0.1 * p for p in peaks], peaks, 5, 8, mode, gamma=0.97, cycle_momentum=False)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_torch(name: str, cls: type[Optimizer]) -> None:
    make, plan, steps = TORCH[name]
    assert worst(ours(plan, steps, cls), theirs(make, steps, cls)) < CLOSE


def test_a_scheduler_that_steps_once_an_epoch() -> None:
    """As in torch's documentation: ``scheduler.step()`` after each epoch, here of 6 steps."""
    optimizer, epoch = optimizer_of(SGD), 6
    torchs = CosineAnnealingLR(optimizer, T_max=10)
    rows = used(optimizer, lambda t: torchs.step() if t % epoch == epoch - 1 else None, 60)
    plan = resolve_plan(lr=LR, horizon=Horizon(60, epoch), groups=GROUPS, schedule=Cosine(update_every="1ep"))
    assert worst(ours(plan, 60), rows) < CLOSE


def test_after_the_end_torchs_cosine_rises_and_ours_does_not() -> None:
    torchs, held = theirs(TORCH["CosineAnnealingLR"][0], 101), ours(plan_of(50, Cosine()), 101)
    assert torchs[100][0] == pytest.approx(LR)
    assert held[50:] == [[0.0, 0.0]] * 51


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.floats(0.01, 1.0), st.floats(0.2, 4.0), st.integers(1, 40))
def test_torch_whatever_the_numbers_are(n: int, factor: float, power: float, every: int) -> None:
    pairs: list[tuple[Make, Schedule]] = [
        (lambda o: StepLR(o, every, factor), Step(every=every, gamma=factor)),
        (lambda o: LinearLR(o, 1.0, factor, n), Linear(end=factor)),
        (lambda o: PolynomialLR(o, n, power), Polynomial(power=power)),
        (lambda o: CosineAnnealingWarmRestarts(o, every, T_mult=2), Restarts(period=every, growth=2)),
    ]
    for make, schedule in pairs:
        assert worst(ours(plan_of(n, schedule), n), theirs(make, n)) < CLOSE


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(("cls", "key"), [(SGD, "momentum"), (AdamW, "betas")])
def test_one_cycle(cls: type[Optimizer], key: str, anneal: Any, three_phase: bool) -> None:
    """Torch reaches its peak at step ``pct_start * n - 1`` and its last value at step ``n - 1``, one step early."""
    n, options = 50, {"momentum": 0.9} if cls is SGD else {"betas": (0.9, 0.999)}
    schedule = OneCycle(
        length=n - 1,
        up=round(0.3 * n) - 1,
        start=1 / 25,
        end=1 / 25 / 1e4,
        anneal="cosine" if anneal == "cos" else "linear",
        three_phase=three_phase,
        momentum_start=0.95,
        momentum_peak=0.85,
    )
    plan = plan_of(n, schedule, momentum=0.9)
    for looked_at in ("lr", key):
        a, b = optimizer_of(cls, **options), optimizer_of(cls, **options)
        torchs = OneCycleLR(b, [LR, LR * HEAD], n, anneal_strategy=anneal, three_phase=three_phase)
        scheduler = PlanScheduler(a, plan)
        left, right = (used(o, lambda _, s=s: s.step(), n, looked_at) for o, s in ((a, scheduler), (b, torchs)))
        assert worst(left, right) < CLOSE
    if cls is AdamW:
        assert [group["betas"][1] for group in a.param_groups] == [0.999, 0.999]


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("cls", "key"), [(SGD, "momentum"), (AdamW, "betas")])
def test_momentum_moves_against_a_cyclic_rate(cls: type[Optimizer], key: str, mode: Any) -> None:
    """Torch's default: from ``max_momentum`` 0.9 at the lowest rate to ``base_momentum`` 0.8 at the peak."""
    n, options = 60, {"momentum": 0.9} if cls is SGD else {"betas": (0.9, 0.999)}
    schedule = Cyclic(up=5, down=8, mode=mode, gamma=0.97, every=1, momentum_start=0.9, momentum_peak=0.8)
    plan = Plan.from_json(plan_of(n, schedule, momentum=0.9).to_json())  # as a checkpoint has it
    peaks = [LR, LR * HEAD]
    for looked_at in ("lr", key):
        a, b = optimizer_of(cls, **options), optimizer_of(cls, **options)
        torchs = CyclicLR(b, [0.1 * p for p in peaks], peaks, 5, 8, mode, gamma=0.97)
        scheduler = PlanScheduler(a, plan)
        left, right = (used(o, lambda _, s=s: s.step(), n, looked_at) for o, s in ((a, scheduler), (b, torchs)))
        assert worst(left, right) < CLOSE
        if looked_at == key:
            assert 0.8 <= min(row[0] for row in left) < 0.82


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 40).map(lambda i: i / 8), max_size=40),
    st.sampled_from(["min", "max"]), st.sampled_from(["rel", "abs"]), st.integers(0, 3), st.integers(0, 3),
)  # fmt: skip
def test_reduce_on_plateau(metrics: list[float], mode: Any, threshold_mode: Any, patience: int, cooldown: int) -> None:
    """``eps=0``: torch leaves out reductions smaller than 1e-8. For negative metrics see ``test_plateau.py``."""
    rule = {
        "mode": mode, "threshold_mode": threshold_mode, "patience": patience, "cooldown": cooldown, "factor": 0.3,
        "threshold": 0.25,
    }  # fmt: skip
    steps, a, b = 3 * len(metrics) + 1, optimizer_of(SGD), optimizer_of(SGD)
    plan = plan_of(None, Constant(), plateau=Plateau(**rule))
    scheduler, torchs = PlanScheduler(a, plan), ReduceLROnPlateau(b, **rule, eps=0.0)

    def epoch_ends(observe: Callable[[float], Any]) -> Callable[[int], Any]:
        return lambda t: observe(metrics[t // 3]) if t % 3 == 2 and t // 3 < len(metrics) else None

    assert worst(used(a, epoch_ends(scheduler.observe), steps), used(b, epoch_ends(torchs.step), steps)) < CLOSE


# Hugging Face's warmups begin at 0, so that their first step does nothing: ``warmup.start: 0`` says that here.

FROM_0 = Linear(start=0.0, length=8)
HUGGING_FACE: dict[str, tuple[Make, Plan, int]] = {
    "constant": (
        lambda o: hf.get_constant_schedule_with_warmup(o, 8), plan_of(50, Constant(), warmup=FROM_0), 60),
    "linear": (
        lambda o: hf.get_linear_schedule_with_warmup(o, 8, 50), plan_of(50, Linear(), warmup=FROM_0), 60),
    # up to the end; from there on theirs rises again
    "cosine": (
        lambda o: hf.get_cosine_schedule_with_warmup(o, 8, 50), plan_of(50, Cosine(), warmup=FROM_0), 51),
    "cosine to a floor": (
        lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, 8, 50, min_lr_rate=0.1),
        plan_of(50, Cosine(end=0.1), warmup=FROM_0), 51),
    # theirs restart between steps; ours on the nearest step, so the same where 3 divides 42
    "cosine with hard restarts": (
        lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 8, 50, num_cycles=3),
        plan_of(50, Restarts(cycles=3), warmup=FROM_0), 60),
    "inverse_sqrt": (
        lambda o: hf.get_inverse_sqrt_schedule(o, 8), plan_of(50, InverseSqrt(timescale=8), warmup=FROM_0), 50),
    "inverse_sqrt, timescale": (
        lambda o: hf.get_inverse_sqrt_schedule(o, 8, timescale=30),
        plan_of(50, InverseSqrt(timescale=30), warmup=FROM_0), 50),
    "wsd, linear": (
        lambda o: hf.get_wsd_schedule(o, 8, 12, num_stable_steps=30, decay_type="linear"),
        plan_of(50, Wsd(decay=12, shape="linear"), warmup=FROM_0), 60),
    "wsd, cosine": (
        lambda o: hf.get_wsd_schedule(o, 8, 12, num_stable_steps=30, warmup_type="cosine"),
        plan_of(50, Wsd(decay=12, shape="cosine"), warmup=Cosine(start=0.0, length=8)), 60),
    # the floor is also where their warmup begins
    "wsd, 1-sqrt to a floor": (
        lambda o: hf.get_wsd_schedule(o, 8, 12, num_stable_steps=30, decay_type="1-sqrt", min_lr_ratio=0.1),
        plan_of(50, Wsd(decay=12, end=0.1), warmup=Linear(start=0.1, length=8)), 60),
    "wsd, as a cooldown": (
        lambda o: hf.get_wsd_schedule(o, 8, 12, num_stable_steps=30, decay_type="1-sqrt"),
        plan_of(50, Constant(), warmup=FROM_0, cooldown=Sqrt(length=12)), 60),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name: str) -> None:
    make, plan, steps = HUGGING_FACE[name]
    assert worst(ours(plan, steps), theirs(make, steps)) < CLOSE


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_hugging_face_polynomial(power: float) -> None:
    """``lr_end`` is an absolute rate of the constructor's ``lr``; the other groups keep their share of it."""
    plan = plan_of(50, Polynomial(end=0.001 / LR, power=power), warmup=FROM_0)
    rates = theirs(lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 8, 50, lr_end=0.001, power=power), 60)
    assert worst(ours(plan, 60), rates) < CLOSE


# Ignite's schedulers are handlers: they write an absolute value before the step, one group each.


def ignites(name: str, steps: int, **options: Any) -> Used:
    from ignite.handlers import param_scheduler

    columns = []
    for i, group in enumerate(GROUPS):
        scaled = {
            key: [(t, LR * group.lr_scale * m) for t, m in value] if isinstance(value, list)
            else LR * group.lr_scale * value if key in ("start_value", "end_value") else value
            for key, value in options.items()
        }  # fmt: skip
        optimizer = optimizer_of(SGD)
        handler = getattr(param_scheduler, name)(optimizer, "lr", param_group_index=i, **scaled)
        optimizer.register_step_pre_hook(lambda *_, handler=handler: handler(None))
        columns.append([row[i] for row in used(optimizer, lambda _: None, steps)])
    return [list(row) for row in zip(*columns, strict=True)]


IGNITE: dict[str, tuple[str, dict[str, Any], Plan]] = {
    "LinearCyclicalScheduler": (
        "LinearCyclicalScheduler", {"start_value": 0.1, "end_value": 1.0, "cycle_size": 10},
        plan_of(60, Cyclic(start=0.1, up=5))),
    # the value at the middle of the cycle is halved with every cycle
    "LinearCyclicalScheduler, halving": (
        "LinearCyclicalScheduler", {"start_value": 0.0, "end_value": 1.0, "cycle_size": 10, "end_value_mult": 0.5},
        plan_of(60, Cyclic(start=0.0, up=5, mode="triangular2"))),
    "CosineAnnealingScheduler": (
        "CosineAnnealingScheduler", {"start_value": 1.0, "end_value": 0.1, "cycle_size": 60},
        plan_of(60, Cosine(end=0.1))),
    "CosineAnnealingScheduler, growing and falling": (
        "CosineAnnealingScheduler",
        {"start_value": 1.0, "end_value": 0.0, "cycle_size": 8, "cycle_mult": 2.0, "start_value_mult": 0.5},
        plan_of(60, Restarts(period=8, growth=2, decay=0.5))),
    "PiecewiseLinear": (
        "PiecewiseLinear", {"milestones_values": [(0, 0.1), (10, 1.0), (30, 0.3), (50, 0.0)]},
        plan_of(60, Piecewise(phases=[
            Linear(start=0.1, end=1.0, length=10), Linear(start=1.0, end=0.3, length=20),
            Linear(start=0.3, end=0.0, length=20),
        ]))),
    # two places at one step are a jump
    "PiecewiseLinear, a jump": (
        "PiecewiseLinear", {"milestones_values": [(0, 0.2), (10, 0.8), (10, 0.5), (50, 0.0)]},
        plan_of(60, Piecewise(phases=[Linear(start=0.2, end=0.8, length=10), Linear(start=0.5, length=40)]))),
}  # fmt: skip


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\..*` is deprecated")  # importing ignite imports what uses it
@pytest.mark.parametrize("row", IGNITE)
def test_ignite(row: str) -> None:
    name, options, plan = IGNITE[row]
    assert worst(ours(plan, 60), ignites(name, 60, **options)) < CLOSE


def test_a_warmup_in_each_cycle() -> None:
    """Its ``gamma`` multiplies the peak, as ``decay_of=peak`` does."""
    rates = theirs(
        lambda o: CosineAnnealingWarmupRestarts(o, 13, max_lr=LR, min_lr=0.1 * LR, warmup_steps=4, gamma=0.7), 60
    )
    plan = plan_of(60, Restarts(period=13, warmup=4, decay=0.7, decay_of="peak", end=0.1))
    assert max(abs(rates[t][0] - plan.lr(GROUPS[0], t)) for t in range(60)) < CLOSE * LR


def test_rex() -> None:
    """The one in pytorch_optimizer takes its first step at ``min_lr``: constructing it has used up its own first."""
    rates = theirs(lambda o: REXScheduler(o, total_steps=50, max_lr=LR, min_lr=0.1 * LR), 60)
    plan = plan_of(50, Rex(end=0.1))
    assert rates[0][0] == 0.1 * LR
    assert max(abs(rates[t][0] - plan.lr(GROUPS[0], t)) for t in range(1, 60)) < CLOSE * LR
