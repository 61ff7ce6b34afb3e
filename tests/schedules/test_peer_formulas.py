"""Each option that another library has, against that library's formula.

A formula is written from the library's source, in float64: a function of the step ``t`` and of the length ``n``, as a
share of the base rate. The test of a whole run, with the library itself where it is installed, is
``tests/promises/test_parity.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lrkit.schedules.curve import Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    Linear,
    Logarithmic,
    Piecewise,
    Polynomial,
    Restarts,
    Schedule,
    Tanh,
    Wsd,
)

CLOSE = 1e-12
N = 60

Formula = Callable[[int], float]


def timm_cosine(t: int, *, low: float = 0.1, k: float = 1.0) -> float:
    """timm/scheduler/cosine_lr.py, one cycle."""
    return low + 0.5 * (1.0 - low) * (1 + math.cos(math.pi * t**k / N**k))


def timm_poly(t: int, *, low: float = 0.1, power: float, k: float) -> float:
    """timm/scheduler/poly_lr.py, one cycle."""
    return low + (1.0 - low) * (1 - t**k / N**k) ** power


def timm_tanh(t: int, *, low: float, lb: float, ub: float) -> float:
    """timm/scheduler/tanh_lr.py, one cycle."""
    tr = t / N
    return low + 0.5 * (1.0 - low) * (1 - math.tanh(lb * (1.0 - tr) + ub * tr))


def timm_restarts(t: int, *, period: int, mul: float, decay: float, low: float) -> float:
    """timm/scheduler/cosine_lr.py, with cycles."""
    if mul != 1:
        i = math.floor(
            math.log(1 - t / period * (1 - mul), mul) + 1e-9
        )  # theirs has no 1e-9: the cycle that begins at t
        length = mul**i * period
        inside = t - (1 - mul**i) / (1 - mul) * period
    else:
        i, length, inside = t // period, float(period), float(t % period)
    return low + 0.5 * (decay**i - low) * (1 + math.cos(math.pi * inside / length))


def timm_wsd(t: int, *, decay_t: int, low: float, decay: Callable[[float], float], stable: Formula) -> float:
    """timm/scheduler/wsd_lr.py, without warmup."""
    lr = max(stable(t), low)
    into = t - (N - decay_t)
    return lr if into <= 0 else low + (lr - low) * decay(min(into / decay_t, 1.0))


def megatron_wsd(t: int, *, decay_steps: int, low: float) -> float:
    """megatron/core/optimizer_param_scheduler.py: lr_wsd_decay_style exponential."""
    into = t - (N - decay_steps)
    coefficient = 1.0 if into <= 0 else 2.0 * math.pow(0.5, into / decay_steps) - 1.0
    return low + coefficient * (1.0 - low)


def optax_cosine(t: int, *, alpha: float, exponent: float) -> float:
    """optax/schedules/_schedule.py: cosine_decay_schedule."""
    return (1 - alpha) * (0.5 * (1 + math.cos(math.pi * min(t, N) / N))) ** exponent + alpha


def optax_sgdr(t: int, *, steps: int, warmup: int, decay: float, low: float) -> float:
    """optax: sgdr_schedule of cycles of equal length, whose init_value is their end_value."""
    k, t = divmod(t, steps)
    peak = decay**k
    if t < warmup:
        return low + (peak - low) * t / warmup
    alpha = low / peak
    return peak * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) + alpha)


def keras_polynomial(t: int, *, steps: int, low: float, power: float) -> float:
    """keras/src/optimizers/schedules/learning_rate_schedule.py: PolynomialDecay(cycle=True)."""
    steps *= 1 if t == 0 else math.ceil(t / steps)
    return (1.0 - low) * (1 - t / steps) ** power + low


def keras_restarts(t: int, *, period: int, t_mul: float, m_mul: float, alpha: float) -> float:
    """keras: CosineDecayRestarts."""
    done = t / period
    i = math.floor(math.log(1.0 - done * (1.0 - t_mul)) / math.log(t_mul) + 1e-9)
    done = (done - (1.0 - t_mul**i) / (1.0 - t_mul)) / t_mul**i
    return (1 - alpha) * 0.5 * m_mul**i * (1.0 + math.cos(math.pi * done)) + alpha


def keras_inverse_time(t: int, *, steps: int, rate: float) -> float:
    """keras: InverseTimeDecay(staircase=True)."""
    return 1.0 / (1.0 + rate * math.floor(t / steps))


def addons_cyclic(t: int, *, low: float, step_size: int, scale: Callable[[float], float]) -> float:
    """tensorflow_addons/optimizers/cyclical_learning_rate.py, scale_mode="cycle"."""
    cycle = math.floor(1 + t / (2 * step_size))
    x = abs(t / step_size - 2 * cycle + 1)
    return low + (1.0 - low) * max(0.0, 1 - x) * scale(cycle)


def square(u: float) -> float:
    return 1.0 - u**2


def timm_exp(u: float, ratio: float = 0.1) -> float:
    return (ratio**u - ratio) / (1.0 - ratio)


SCHEDULES: dict[str, tuple[Formula, Schedule]] = {
    "timm cosine, k_decay 2": (lambda t: timm_cosine(t, k=2.0), Cosine(end=0.1, k=2.0)),
    "timm cosine, k_decay 0.5": (lambda t: timm_cosine(t, k=0.5), Cosine(end=0.1, k=0.5)),
    "timm poly, k_decay 1.5": (lambda t: timm_poly(t, power=0.5, k=1.5), Polynomial(end=0.1, power=0.5, k=1.5)),
    # Its ends are those of the tangent: 0.9999992 and 0.0025 of the way, where ours are exact.
    "timm tanh": (
        lambda t: timm_tanh(t, low=0.1, lb=-7.0, ub=3.0),
        Tanh(start=0.1 + 0.45 * (1 - math.tanh(-7)), end=0.1 + 0.45 * (1 - math.tanh(3)), lower=-7.0, upper=3.0)),
    "timm cosine, cycle_decay to a floor": (
        lambda t: timm_restarts(t, period=20, mul=1.0, decay=0.5, low=0.1),
        Restarts(period=20, decay=0.5, decay_of="peak", end=0.1)),
    "timm cosine, cycle_mul 1.5 between whole steps": (
        lambda t: timm_restarts(t, period=16, mul=1.5, decay=0.7, low=0.0),
        Restarts(period=16, growth=1.5, decay=0.7)),  # cycles begin at 0, 16, 40 and 76
    "timm wsd, power 2": (
        lambda t: timm_wsd(t, decay_t=20, low=0.1, decay=square, stable=lambda t: 1.0),
        Wsd(decay=20, end=0.1, shape=Polynomial(power=1.0, k=2.0))),
    "timm wsd, exp": (
        lambda t: timm_wsd(t, decay_t=20, low=0.1, decay=timm_exp, stable=lambda t: 1.0),
        Wsd(decay=20, end=0.1, shape="exponential")),
    "timm wsd, stable power 0.3": (
        lambda t: timm_wsd(t, decay_t=1, low=0.0, decay=square, stable=lambda t: (1.0 + t / 10) ** -0.3),
        InverseSqrt(timescale=10, power=0.3)),
    "megatron wsd, exponential": (
        lambda t: megatron_wsd(t, decay_steps=25, low=0.2),
        Wsd(decay=25, end=0.2, shape=Exponential(end=0.0, ratio=0.5))),
    "optax cosine, exponent 2": (
        lambda t: optax_cosine(t, alpha=0.1, exponent=2.0), Cosine(end=0.1, power=2.0)),
    "keras polynomial, cycle": (
        lambda t: keras_polynomial(t, steps=13, low=0.1, power=0.7), Polynomial(end=0.1, power=0.7, period=13)),
    "keras restarts to a floor": (
        lambda t: keras_restarts(t, period=5, t_mul=2.0, m_mul=0.7, alpha=0.1),
        Restarts(period=5, growth=2, decay=0.7, end=0.1)),
    "optax sgdr, a warmup in each cycle": (
        lambda t: optax_sgdr(t, steps=20, warmup=4, decay=0.5, low=0.1),
        Restarts(period=20, warmup=4, decay=0.5, decay_of="peak", end=0.1)),
    "keras inverse time, staircase": (
        lambda t: keras_inverse_time(t, steps=7, rate=0.5), InverseTime(gamma=0.5, every=7, update_every=7)),
    "fastai SchedPoly 2": (lambda t: 1.0 + (0.1 - 1.0) * (t / N) ** 2, Polynomial(end=0.1, power=1.0, k=2.0)),
    "fastai SchedPoly 3, rising": (
        lambda t: 0.1 + (1.0 - 0.1) * (t / N) ** 3, Polynomial(start=0.1, end=1.0, power=1.0, k=3.0)),
    "pytorch_optimizer 1-square": (
        lambda t: 1.0 if t < 30 else 1.0 - math.pow((t - 30) / 30, 2),
        Wsd(decay=30, shape=Polynomial(power=1.0, k=2.0))),
    # sklearn/linear_model/_sgd_fast.pyx: eta = eta0 / pow(t, power_t), t = 1, 2, ...
    "scikit-learn invscaling 0.25": (lambda t: 1.0 / (t + 1) ** 0.25, InverseSqrt(timescale=1, power=0.25)),
    # its cycles are counted from 1, so that the first one is scaled too
    "addons exponential cyclical": (
        lambda t: addons_cyclic(t, low=0.1, step_size=5, scale=lambda cycle: 0.7**cycle),
        Cyclic(start=0.1, peak=0.1 + 0.9 * 0.7, up=5, mode="exp_cycle", gamma=0.7)),
    "addons custom scale_fn": (
        lambda t: addons_cyclic(t, low=0.1, step_size=5, scale=lambda cycle: 0.5 * (1 + math.sin(cycle * math.pi / 2))),
        Cyclic(start=0.1, up=5, mode="formula", formula="0.5*(1+sin(cycle*pi/2))")),
    "addons triangular2": (
        lambda t: addons_cyclic(t, low=0.1, step_size=5, scale=lambda cycle: 1 / 2.0 ** (cycle - 1)),
        Cyclic(start=0.1, up=5, mode="exp_cycle", gamma=0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_follows_the_peers_formula(name: str) -> None:
    formula, schedule = SCHEDULES[name]
    assert max(abs(schedule(t, N) - formula(t)) for t in range(N)) < CLOSE


def deepspeed_log(t: int, *, steps: int) -> float:
    """deepspeed/runtime/lr_schedules.py: the factor of WarmupLR, warmup_type log."""
    return math.log(t + 1) / math.log(steps) if t < steps else 1.0


def deepspeed_warmup_decay(t: int, *, warmup: int, low: float) -> float:
    """DeepSpeed's WarmupDecayLR."""
    factor = deepspeed_log(t, steps=warmup) if t < warmup else (N - t) / (N - warmup)
    return low + (1.0 - low) * factor


def deepspeed_warmup_cosine(t: int, *, warmup: int, low: float) -> float:
    """DeepSpeed's WarmupCosineLR, warmup_type log: its cosine is one step ahead."""
    if t < warmup:
        return deepspeed_log(t, steps=warmup)
    return low + (1.0 - low) * (1 + math.cos(math.pi * min(1.0, (t - warmup + 1) / (N - warmup)))) / 2


def deepspeed_one_cycle(t: int, *, first: int, second: int, low: float, rate: float, decay_step: int) -> float:
    """DeepSpeed's OneCycle: one step ahead, then an inverse time decay of the lowest rate."""
    size = first + second
    if t < size:
        x = (t + 1) / size - math.floor((t + 1) / size) if t + 1 < size else 0.0
        ratio = first / size
        return low + (1.0 - low) * (x / ratio if x <= ratio else (x - 1) / (ratio - 1))
    return low / (1 + rate * (t - size + 1) / decay_step)


def power_scheduler(t: int, *, warmup: int, decay: int, exponent: float) -> float:
    """Shen et al. 2024, arXiv:2408.13359, section 4, as a share of the rate at the end of the warmup."""

    def power(t: int) -> float:
        return (t / warmup) ** -exponent

    if t < warmup:
        return t / warmup * power(warmup)
    return power(t) if t < N - decay else (N - t) / decay * power(N - decay)


CURVES: dict[str, tuple[Formula, Curve]] = {
    # ``log(t + 1) / log(W)`` is 1 after W - 1 steps, and for one step more.
    "deepspeed WarmupDecayLR, log": (
        lambda t: deepspeed_warmup_decay(t, warmup=10, low=0.0),
        Curve.build(
            Piecewise(phases=[Constant(length=1), Linear()]), Horizon(N),
            warmup=Logarithmic(start=0.0, base=10.0, length=9))),
    "deepspeed WarmupDecayLR, log from a floor": (
        lambda t: deepspeed_warmup_decay(t, warmup=10, low=0.1),
        Curve.build(
            Piecewise(phases=[Constant(length=1), Linear(end=0.1)]), Horizon(N),
            warmup=Logarithmic(start=0.1, base=10.0, length=9))),
    "deepspeed WarmupCosineLR, log": (
        lambda t: deepspeed_warmup_cosine(t, warmup=10, low=0.0001),
        Curve.build(
            Piecewise(phases=[
                Logarithmic(start=0.0, end=1.0, base=10.0, length=9), Constant(length=1),
                Cosine(end=0.0001, skip=1, length=N - 11),
            ]), Horizon(N))),
    "deepspeed OneCycle": (
        lambda t: deepspeed_one_cycle(t, first=15, second=15, low=0.1, rate=0.5, decay_step=10),
        Curve.build(
            Piecewise(phases=[
                Linear(start=0.1, end=1.0, length=15), Linear(start=1.0, end=0.1, length=15),
                InverseTime(gamma=0.5, every=10, scale=0.1),
            ], skip=1), Horizon(N))),
    "the Power scheduler": (
        lambda t: power_scheduler(t, warmup=10, decay=12, exponent=0.51),
        Curve.build(
            InverseSqrt(timescale=10, power=0.51), Horizon(N),
            warmup=Linear(start=0.0, length=10), cooldown=Linear(length=12))),
}  # fmt: skip


@pytest.mark.parametrize("name", CURVES)
def test_the_curve_follows_the_peers_formula(name: str) -> None:
    formula, curve = CURVES[name]
    assert max(abs(curve(t) - formula(t)) for t in range(N)) < CLOSE


@pytest.mark.parametrize("growth", [1.5, 1.3])
def test_a_cycle_between_two_steps_begins_at_the_nearest_whole_one(growth: float) -> None:
    """timm and Keras restart between two steps where ``growth`` is no whole number; lrkit at the nearest step."""
    schedule = Restarts(period=10, growth=growth)
    begins = [10 * (growth**k - 1) / (growth - 1) for k in range(1, 4)]
    assert schedule.edges(N) == [math.floor(begin + 0.5) for begin in begins if begin < N - 0.5]
    for t in range(N):
        # Up to half a step of the steepest slope, pi / 2 per cycle, at either end of the cycle; a restart apart.
        if all(abs(t - begin) > 1 for begin in begins):
            theirs = timm_restarts(t, period=10, mul=growth, decay=1.0, low=0.0)
            assert abs(schedule(t, N) - theirs) < 0.5 * math.pi / 2 / 10


def test_wsd_s_is_a_row_of_wsds() -> None:
    """Wen et al. 2024, arXiv:2410.05192: decay, go back to the stable rate, and go on."""
    repeated = Wsd(decay=6, shape="sqrt", milestones=[20, 35], end=0.1)
    row = Piecewise(phases=[Wsd(decay=6, end=0.1, length=20), Wsd(decay=6, end=0.1, length=15), Wsd(decay=6, end=0.1)])
    assert [repeated(s, N) for s in range(N)] == [row(s, N) for s in range(N)]
    assert (repeated.final(N), repeated.edges(N)) == (0.1, [14, 20, 29, 35, 54])
