"""timm: ``CosineLRScheduler`` and its sisters. The base rate is 1; ``t`` counts updates, or epochs of 12 steps."""

from __future__ import annotations

import bisect
import math

from parity.rows import Curve, Peer, Row, cosine, product, shaped, warmed

__all__ = ["PEER"]

#: ``CosineLRScheduler(60, noise_range_t=(20, 40), noise_pct=0.67, noise_std=1.0, noise_seed=42)``: the factors of
#: steps 20 to 39, from torch's generator, which is seeded by ``noise_seed + t``.
NOISE = [
    0.25503015518188477, 0.21662329137325287, 0.6430687308311462, 0.1892411708831787, -0.21977229416370392,
    -0.1197318285703659, 0.6346094608306885, -0.525890588760376, 0.20113718509674072, 0.5996449589729309,
    -0.35596272349357605, 0.05913017690181732, 0.6664280891418457, 0.1653575450181961, -0.392683207988739,
    -0.35683774948120117, -0.623824417591095, 0.5212041139602661, -0.6587064862251282, 0.27876999974250793,
]  # fmt: skip

#: The factor of the rate from a step on.
NOISY = [[19, 1.0], *([20 + i, 1 + noise] for i, noise in enumerate(NOISE)), [40, 1.0]]


def in_cycles(first: int, growth: float, decay: float, limit: int, floor: float, shape: Curve) -> Curve:
    """``shape`` from a peak that falls with each cycle to the floor, and the floor after the last cycle."""

    def theirs(t: float) -> float:
        if growth == 1:
            i, length = int(t // first), float(first)
            inside = t - first * i
        else:
            i = math.floor(math.log(1 - t / first * (1 - growth), growth))
            length = growth**i * first
            inside = t - (1 - growth**i) / (1 - growth) * first
        return floor if i >= limit else floor + (decay**i - floor) * shape(inside / length)

    return theirs


def once(steps: int, floor: float, shape: Curve) -> Curve:
    return in_cycles(steps, 1, 1, 1, floor, shape)


def stepped(every: int, gamma: float) -> Curve:
    return lambda t: gamma ** (t // every)


def multistep(milestones: list[int], gamma: float) -> Curve:
    return lambda t: gamma ** bisect.bisect_right(milestones, t + 1)


def tanh(u: float) -> float:
    return 0.5 * (1 - math.tanh(-7.0 * (1 - u) + 3.0 * u))


def wsd(stable: Curve, decay: Curve, floor: float = 0.0, length: int = 50, decay_t: int = 20) -> Curve:
    """The decay multiplies the stable value, which goes on falling; before them ten steps of warmup from 0.01."""

    def theirs(t: float) -> float:
        high = max(stable(t), floor)
        late = t - (length - decay_t)
        return high if late <= 0 else floor + (high - floor) * decay(min(late / decay_t, 1.0))

    return warmed(10, 0.01, theirs)


def flat(t: float) -> float:
    return 1.0


SQUARE = shaped("polynomial", "power: 1, k: 2")
WARMUP = "warmup=linear warmup.length=10 warmup.start=0.01"
EARLY = "timm applies the milestone m at t = m - 1, and says so; lrkit's milestones are one less"

PEER = Peer("timm", "1.0.31, timm/scheduler/{cosine,step,multistep,poly,tanh,wsd}_lr.py", [
    Row("CosineLRScheduler(t_initial=60, lr_min=0.1)",
        "schedule=cosine schedule.end=0.1", once(60, 0.1, cosine)),
    Row("CosineLRScheduler(t_initial=50, warmup_t=10, warmup_lr_init=0.01, warmup_prefix=True)",
        f"schedule=cosine {WARMUP}", warmed(10, 0.01, once(50, 0.0, cosine))),
    Row("CosineLRScheduler(t_initial=60, warmup_t=10, warmup_lr_init=0.01)",
        f"schedule=cosine {WARMUP} warmup.overlap=peak",
        warmed(10, 0.01, once(60, 0.0, cosine), own_clock=False)),
    Row("CosineLRScheduler(t_initial=10, cycle_mul=2, cycle_decay=0.5, cycle_limit=3)",
        "schedule=restarts schedule.cycles=null schedule.period=10 schedule.growth=2 schedule.decay=0.5 "
        "schedule.length=70", in_cycles(10, 2, 0.5, 3, 0.0, cosine), steps=90),
    Row("CosineLRScheduler(t_initial=10, cycle_mul=1.5, cycle_decay=0.7, cycle_limit=3)",
        "schedule=restarts schedule.cycles=null schedule.period=10 schedule.growth=1.5 schedule.decay=0.7",
        in_cycles(10, 1.5, 0.7, 3, 0.0, cosine), steps=47, compared=47, difference=9.8e-3,
        convention="timm restarts between two steps where a cycle is no whole number of them, lrkit at the next step"),
    Row("CosineLRScheduler(t_initial=20, lr_min=0.1, cycle_decay=0.5, cycle_limit=2)",
        "schedule=restarts schedule.cycles=2 schedule.growth=1 schedule.decay=0.5 schedule.decay_of=peak "
        "schedule.end=0.1 schedule.length=40", in_cycles(20, 1, 0.5, 2, 0.1, cosine)),
    Row("CosineLRScheduler(t_initial=20, cycle_decay=0.1, cycle_limit=3)",
        "schedule=restarts schedule.cycles=3 schedule.growth=1 schedule.decay=0.1",
        in_cycles(20, 1, 0.1, 3, 0.0, cosine)),
    Row("CosineLRScheduler(t_initial=60, k_decay=2.0)",
        "schedule=cosine schedule.k=2", once(60, 0.0, lambda u: cosine(u**2))),
    Row("CosineLRScheduler(t_initial=50, lr_min=0.05), ten cooldown epochs",
        "schedule=cosine schedule.end=0.05 schedule.length=50", once(50, 0.05, cosine)),
    Row("StepLRScheduler(decay_t=15, decay_rate=0.3, warmup_t=10, warmup_lr_init=0.1)",
        "schedule=step schedule.every=15 schedule.gamma=0.3 warmup=linear warmup.length=10 warmup.start=0.1",
        warmed(10, 0.1, stepped(15, 0.3))),
    Row("StepLRScheduler(decay_t=15, decay_rate=0.3, warmup_t=10, warmup_lr_init=0.1, warmup_prefix=False)",
        "schedule=step schedule.every=15 schedule.gamma=0.3 "
        "warmup=linear warmup.length=10 warmup.start=0.1 warmup.overlap=peak",
        warmed(10, 0.1, stepped(15, 0.3), own_clock=False), compared=60),
    Row("MultiStepLRScheduler(decay_t=[20, 40], decay_rate=0.1)",
        "schedule=multistep 'schedule.milestones=[19, 39]'", multistep([20, 40], 0.1), convention=EARLY),
    Row("MultiStepLRScheduler(decay_t=[20, 40], decay_rate=0.1, warmup_t=5, warmup_lr_init=0.01)",
        "schedule=multistep 'schedule.milestones=[19, 39]' warmup=linear warmup.length=5 warmup.start=0.01",
        warmed(5, 0.01, multistep([20, 40], 0.1)), convention=EARLY),
    Row("PolyLRScheduler(t_initial=60, power=0.5, lr_min=0.1)",
        "schedule=polynomial schedule.power=0.5 schedule.end=0.1", once(60, 0.1, lambda u: (1 - u) ** 0.5)),
    Row("PolyLRScheduler(t_initial=10, power=2.0, cycle_mul=2, cycle_decay=0.5, cycle_limit=3)",
        "schedule=restarts schedule.decay=0.5 schedule.shape=polynomial",
        in_cycles(10, 2, 0.5, 3, 0.0, lambda u: (1 - u) ** 2), steps=70),
    Row("PolyLRScheduler(t_initial=60, power=0.5, lr_min=0.1, k_decay=1.5)",
        "schedule=polynomial schedule.power=0.5 schedule.k=1.5 schedule.end=0.1",
        once(60, 0.1, lambda u: (1 - u**1.5) ** 0.5)),
    Row("TanhLRScheduler(t_initial=60)",
        f"schedule=tanh schedule.lower=-7 schedule.start={tanh(0)!r} schedule.end={tanh(1)!r}", once(60, 0.0, tanh),
        compared=60, convention="timm's tangent does not reach its ends: start and end are its values there"),
    Row("CosineLRScheduler(t_initial=10, t_in_epochs=True)",
        "schedule=cosine schedule.update_every=1ep", lambda t: once(10, 0.0, cosine)(t // 12), steps=120, epoch=12,
        compared=120),
    Row("StepLRScheduler(decay_t=3, decay_rate=0.1, t_in_epochs=True)",
        "schedule=step schedule.every=3ep", lambda t: stepped(3, 0.1)(t // 12), steps=120, epoch=12),
    Row("CosineLRScheduler(t_initial=60, noise_range_t=(20, 40))",
        product("cosine", f"table, interpolate: previous, table: {NOISY}"),
        lambda t: once(60, 0.0, cosine)(t) * (1 + NOISE[int(t) - 20] if 20 <= t < 40 else 1),
        convention="lrkit draws no noise: the table has the factors that timm draws with its seed of 42"),
    Row("WSDLRScheduler(t_initial=50, decay_t=20, warmup_t=10, warmup_lr_init=0.01)",
        f"schedule=wsd schedule.decay=20 {WARMUP}", wsd(flat, lambda u: 1 - math.sqrt(u))),
    Row("WSDLRScheduler(t_initial=50, decay_t=20, decay_fn='cosine', lr_min=0.1, warmup_t=10, warmup_lr_init=0.01)",
        f"schedule=wsd schedule.decay=20 schedule.shape=cosine schedule.end=0.1 {WARMUP}", wsd(flat, cosine, 0.1)),
    Row("WSDLRScheduler(t_initial=50, decay_t=20, decay_fn='power', decay_power=2, warmup_t=10, warmup_lr_init=0.01)",
        f"schedule=wsd schedule.decay=20 {SQUARE} {WARMUP}", wsd(flat, lambda u: 1 - u**2)),
    Row("WSDLRScheduler(t_initial=50, decay_t=20, decay_fn='exp', warmup_t=10, warmup_lr_init=0.01)",
        f"schedule=wsd schedule.decay=20 schedule.shape=exponential {WARMUP}",
        wsd(flat, lambda u: (0.1**u - 0.1) / 0.9)),
    Row("WSDLRScheduler(t_initial=50, decay_t=20, stable_fn='rsqrt', decay_fn='linear', warmup_t=10, ...)",
        f"{product('inverse_sqrt, timescale: 10', 'wsd, decay: 20, shape: linear')} {WARMUP}",
        wsd(lambda t: (1 + t / 10) ** -0.5, lambda u: 1 - u)),
    Row("WSDLRScheduler(t_initial=50, decay_t=1, stable_fn='power', stable_power=0.3, warmup_t=10, ...)",
        f"schedule=inverse_sqrt schedule.timescale=10 schedule.power=0.3 {WARMUP}",
        wsd(lambda t: (1 + t / 10) ** -0.3, lambda u: 1 - u, decay_t=1), compared=60),
])  # fmt: skip
