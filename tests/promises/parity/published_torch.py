"""torch, test/optim/test_lrscheduler.py: SGD with two groups, ``conv1`` at 0.05 and ``conv2`` at 0.5."""

from __future__ import annotations

import math

from parity.published import Published, Source
from parity.rows import phases, product, table

__all__ = ["SOURCE"]

BASE = "optimizer.lr=0.05"
TWO = f"{BASE} 'param_groups.rules=[{{name: conv2, pattern: conv2, lr_scale: 10}}]'"


def both(rates: list[float]) -> list[list[float]]:
    """The second group has ten times the rate of the first."""
    return [rates, [10 * rate for rate in rates]]


def cosine(first: float, t: float, steps: float) -> float:
    return 1e-10 + (first - 1e-10) * (1 + math.cos(math.pi * t / steps)) / 2


STEP = [0.05] * 3 + [0.005] * 3 + [0.0005] * 3 + [0.00005]
MULTISTEP = [0.05] * 2 + [0.005] * 3 + [0.0005] * 4 + [0.00005]
CONSTANT = [0.025] * 5 + [0.05] * 5
LINEAR = [0.05 * (0.5 + i * 0.5 / 4) for i in range(4)] + [0.05] * 6
LINEAR_TO = [0.05 * (0.25 + i * (0.6 - 0.25) / 4) for i in range(4)] + [0.05 * 0.6] * 6
EXPONENTIAL = [0.05 * 0.9**x for x in range(10)]
COSINE = [cosine(0.05, x, 10) for x in range(10)]
POLYNOMIAL = [0.05 * (1 - x / 5) ** 0.9 for x in range(5)] + [0.0] * 5
SEQUENTIAL = [0.005] * 3 + [0.05, 0.04, 0.032] + [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
OF_STEP = "schedule=step schedule.every=3"
OF_MULTISTEP = "schedule=multistep 'schedule.milestones=[2, 5, 9]'"
OF_CONSTANT = "schedule=constant warmup=constant warmup.length=5 warmup.start=0.5"
OF_LINEAR = "schedule=constant warmup=linear warmup.length=4 warmup.start=0.5"
OF_SEQUENTIAL = phases(
    "constant, start: 0.1, length: 3", "exponential, gamma: 0.8, every: 1, length: 3", "step, every: 2"
)


def warm_restarts(t_mult: int, steps: int, per_step: int = 1) -> list[list[float]]:
    """``T_0=10``; a step is a ``per_step``-th of an epoch."""
    length, inside, places = 10, 0, [(0.0, 10)]
    for _ in range(1, steps):
        inside += 1
        if inside >= length * per_step:
            inside, length = 0, t_mult * length
        places.append((inside / per_step, length))
    return [[cosine(first, t, n) for t, n in places] for first in (0.05, 0.5)]


def of_restarts(growth: int, period: int = 10) -> str:
    return (
        f"schedule=restarts schedule.cycles=null schedule.period={period} schedule.growth={growth} "
        f"schedule.end=2.0e-9 {TWO}"
    )


def in_places(t_curs: list[float], t_is: list[int]) -> list[list[float]]:
    return [[first, *(cosine(first, t, n) for t, n in zip(t_curs, t_is, strict=True))] for first in (0.05, 0.5)]


FLOOR = "eta_min is an absolute rate, schedule.end a share of each group's own"

SIMPLE = [
    Published("test_step_lr", f"{OF_STEP} {TWO}", both(STEP)),
    Published("test_get_last_lr_step_lr", "schedule=step schedule.every=3 optimizer.lr=0.1",
              [[0.1] * 3 + [0.01] * 3 + [0.001] * 3 + [0.0001]]),
    Published("test_multi_step_lr", f"{OF_MULTISTEP} {TWO}", both(MULTISTEP)),
    Published("test_multi_step_lr_with_epoch", f"{OF_MULTISTEP} {TWO}", both(MULTISTEP)),
    Published("test_get_last_lr_multi_step_lr", f"{OF_MULTISTEP} {TWO}", both(MULTISTEP)),
    Published("test_constantlr", f"{OF_CONSTANT} {TWO}", both(CONSTANT)),
    Published("test_constantlr_with_epoch", f"{OF_CONSTANT} {TWO}", both(CONSTANT)),
    Published("test_get_last_lr_constantlr", f"{OF_CONSTANT} {TWO}", both(CONSTANT)),
    Published("test_linearlr", f"{OF_LINEAR} {TWO}", both(LINEAR)),
    Published("test_linearlr_with_epoch", f"{OF_LINEAR} {TWO}", both(LINEAR)),
    Published("test_get_last_lr_linearlr",
              f"schedule=linear schedule.start=0.25 schedule.end=0.6 schedule.length=4 {TWO}", both(LINEAR_TO)),
    Published("test_exp_lr", f"schedule=exponential schedule.gamma=0.9 schedule.every=1 {TWO}", both(EXPONENTIAL)),
    Published("test_poly_lr", f"schedule=polynomial schedule.power=0.9 schedule.length=5 {TWO}", both(POLYNOMIAL)),
    Published("test_cos_anneal_lr", f"schedule=cosine schedule.end=2.0e-9 {TWO}", both(COSINE), convention=FLOOR),
    *(Published(f"test_CosineAnnealingWarmRestarts_lr1[{growth}]", of_restarts(growth), warm_restarts(growth, 100),
                convention=FLOOR) for growth in (1, 2, 4)),
    *(Published(f"test_CosineAnnealingWarmRestarts_lr2[{growth}]", of_restarts(growth, 100),
                warm_restarts(growth, 300, 10), convention=f"A step is a tenth of an epoch; {FLOOR}")
      for growth in (1, 2, 4)),
    Published("test_CosineAnnealingWarmRestarts_lr3[1]", of_restarts(1),
              in_places([1, 2, 3, 4, 5, 2, 7, 3, 4, 5, 6, 3], [10] * 12),
              at=[0, 1, 2, 3, 4, 5, 12, 27, 3, 4, 5, 6, 13], steps=100, convention=FLOOR),
    Published("test_CosineAnnealingWarmRestarts_lr3[2]", of_restarts(2),
              in_places([1, 2, 3, 4, 5, 15, 2, 3, 4, 10, 11, 3], [10] * 5 + [20] + [40] * 3 + [80] * 2 + [10]),
              at=[0, 1, 2, 3, 4, 5, 25, 32, 33, 34, 80, 81, 3], steps=100, convention=FLOOR),
    Published("test_CosineAnnealingWarmRestarts_lr3[3]", of_restarts(3, 100),
              in_places([0.1, 0.2, 0.3, 1.3, 2.3, 7.5, 8.5, 9.5, 19.5, 20.5, 21.5, 10], [10] * 5 + [30] * 6 + [90]),
              at=[0, 1, 2, 3, 13, 23, 175, 185, 195, 295, 305, 315, 500], steps=1000,
              convention=f"A step is a tenth of an epoch; {FLOOR}"),
    Published("test_sequentiallr1",
              f"{phases('exponential, gamma: 0.8, every: 1, length: 3', 'step, every: 4')} {BASE}",
              [[0.05, 0.04, 0.032] + [0.05] * 4 + [0.005] * 4 + [0.0005] * 4 + [0.00005] * 4]),
    Published("test_sequentiallr2",
              f"{phases('constant, start: 0.1, length: 3', 'exponential, gamma: 0.9, every: 1')} {BASE}",
              [[0.005] * 3 + [0.05 * 0.9**x for x in range(10)]]),
    Published("test_sequentiallr3", f"{OF_SEQUENTIAL} {BASE}", [SEQUENTIAL]),
    Published("test_get_last_lr_sequentiallr", f"{OF_SEQUENTIAL} {TWO}", both(SEQUENTIAL)),
    Published("test_sequentiallr5",
              f"{phases('linear, start: 0.01, end: 0.1, length: 5', 'constant, start: 0.5')} {BASE}",
              [[0.0005, 0.0014, 0.0023, 0.0032, 0.0041] + [0.025] * 5],
              convention="A linear schedule times a constant one is a linear one"),
    Published("test_sequentiallr_does_not_alias_lr_and_initial_lr",
              f"{phases('linear, start: 0.1, end: 0.8, length: 4', 'linear, start: 0.8, end: 0.1')} optimizer.lr=2.0",
              [[0.2, 0.55, 0.9, 1.25, 1.6, 1.25, 0.9, 0.55]]),
]  # fmt: skip


def chained(*factors: str) -> str:
    """The overrides of a product of schedules, for both groups."""
    return f"{product(*factors)} {TWO}"


def times(*sequences: list[float]) -> list[float]:
    return [math.prod(values) for values in zip(*sequences, strict=False)]


RISE = [0.4 + i / 4 * 0.6 for i in range(4)] + [1.0] * 6
STEPPED = [0.1 ** (i // 3) for i in range(10)]
MULTISTEPPED = [1.0] * 2 + [0.1] * 3 + [0.01] * 4 + [0.001]
MULTISTEP_OF = "multistep, milestones: [2, 5, 9]"
COSINE_OF = "cosine, end: 2.0e-9"
EXPONENTIAL_OF = "exponential, gamma: 0.9, every: 1"

CHAINED = [
    Published("test_chained_lr1", f"{OF_STEP} {BASE}", [STEP]),
    Published("test_chained_lr2", f"schedule=constant warmup=linear warmup.length=3 warmup.start=0.4 {BASE}",
              [[0.02, 0.03, 0.04] + [0.05] * 7]),
    Published("test_chained_lr3",
              "schedule=multistep 'schedule.milestones=[4, 8, 10]' warmup=linear warmup.length=3 warmup.start=0.4 "
              f"warmup.overlap=multiply {BASE}",
              [[0.02, 0.03, 0.04, 0.05] + [0.005] * 4 + [0.0005] * 2]),
    Published("test_chained_lr4", chained("exponential, gamma: 0.9, every: 1",
              "table, interpolate: previous, table: [[0, 0.2], [4, 1.0]]", "step, every: 3"),
              [[0.05 * 0.2 * 0.9**x for x in range(3)] + [0.05 * 0.2 * 0.9**3 * 0.1]
               + [0.05 * 0.9**x * 0.1 for x in range(4, 6)] + [0.05 * 0.9**x * 0.01 for x in range(6, 9)]]),
    Published("test_chained_lr5", f"schedule=polynomial schedule.power=0.9 schedule.length=5 schedule.scale=0.1 {TWO}",
              [[0.1 * rate for rate in rates] for rates in both(POLYNOMIAL)],
              convention="ConstantLR is over when the polynomial has reached zero, so that it is a scale"),
    Published("test_compound_step_and_multistep_lr", chained("step, every: 3", MULTISTEP_OF),
              [[0.05] * 2 + [0.005] + [5e-4] * 2 + [5e-5] + [5e-6] * 3 + [5e-8]]),
    Published("test_compound_step_and_exp_lr", chained("step, every: 3", EXPONENTIAL_OF),
              both(times(EXPONENTIAL, STEPPED))),
    Published("test_compound_exp_and_multistep_lr", chained(MULTISTEP_OF, EXPONENTIAL_OF),
              both(times(EXPONENTIAL, MULTISTEPPED))),
    Published("test_compound_exp_and_linearlr",
              chained("linear, start: 0.4, end: 0.9, length: 4", EXPONENTIAL_OF),
              both(times(EXPONENTIAL, [0.4 + i / 4 * 0.5 for i in range(4)] + [0.9] * 6))),
    Published("test_compound_step_and_constantlr", chained("step, every: 3",
              "table, interpolate: previous, table: [[0, 0.4], [4, 1.0]]"),
              both([0.05 * 0.4] * 3 + [0.005 * 0.4] + [0.005] * 2 + [0.0005] * 3 + [0.00005])),
    Published("test_compound_linearlr_and_multistep_lr",
              f"{OF_MULTISTEP} warmup=linear warmup.length=4 warmup.start=0.4 warmup.overlap=multiply {TWO}",
              both(times(MULTISTEP, RISE))),
    Published("test_compound_cosanneal_and_step_lr", chained(COSINE_OF, "step, every: 3"),
              both(times(COSINE, STEPPED)), convention=FLOOR),
    Published("test_compound_cosanneal_and_multistep_lr", chained(COSINE_OF, MULTISTEP_OF),
              both(times(COSINE, MULTISTEPPED)), convention=FLOOR),
    Published("test_compound_cosanneal_and_linearlr",
              f"schedule=cosine schedule.end=2.0e-9 warmup=linear warmup.length=4 warmup.start=0.4 "
              f"warmup.overlap=multiply {TWO}", both(times(COSINE, RISE)),
              convention=FLOOR),
    Published("test_compound_cosanneal_and_exp_lr", chained(COSINE_OF, "exponential, gamma: 0.1, every: 1"),
              both(times(COSINE, [0.1**i for i in range(10)])), convention=FLOOR),
]  # fmt: skip


def plateau(rule: str, schedule: str = "schedule=constant", rate: float = 0.5) -> str:
    """A rule of reduce-on-plateau beside a schedule."""
    keys = " ".join(f"plateau.{key}" for key in rule.split())
    return f"plateau=reduce {keys} {schedule} optimizer.lr={rate}"


FALLING = [10 - i * 0.0165 for i in range(22)]
RISING = [1.5 * 1.005**i for i in range(20)]
THREE = [0.5] * 8 + [0.05] * 11 + [0.005] * 3
FIVE = [0.5] * 6 + [0.05] * 11 + [0.005] * 3
TWICE = [0.5] * 6 + [0.05] * 7 + [0.005] * 7 + [0.0005] * 2
ABS_MIN = "patience=5 cooldown=0 threshold_mode=abs mode=min threshold=0.1"
REL_MAX = "mode=max threshold_mode=rel threshold=0.1 patience=5 cooldown=5"
UNCOMPARED = "torch writes these values down and compares none of them"

PLATEAU = [
    Published("test_reduce_lr_on_plateau1",
              plateau("threshold_mode=abs mode=min threshold=0.01 patience=5 cooldown=5"), [[0.5] * 20],
              metrics=[10 - i * 0.0167 for i in range(20)]),
    Published("test_reduce_lr_on_plateau2", plateau(ABS_MIN), [TWICE], metrics=FALLING),
    Published("test_reduce_lr_on_plateau3", plateau("mode=max patience=5 cooldown=5 threshold_mode=abs"), [THREE],
              metrics=[-0.8] * 2 + [-0.234] * 20),
    Published("test_reduce_lr_on_plateau4", plateau("mode=max patience=3 threshold_mode=rel threshold=0.1"),
              [[0.5] * 20], metrics=[1.5 * 1.025**i for i in range(20)]),
    Published("test_reduce_lr_on_plateau5", plateau(REL_MAX), [FIVE], metrics=RISING),
    Published("test_reduce_lr_on_plateau6", plateau("mode=min threshold_mode=rel threshold=0.1 patience=10"),
              [[0.5] * 20], metrics=[1.5 * 0.85**i for i in range(20)]),
    Published("test_reduce_lr_on_plateau7",
              plateau("mode=min threshold_mode=rel threshold=0.1 patience=5 cooldown=5"), [FIVE],
              metrics=[1.0] * 7 + [0.6] + [0.5] * 12),
    Published("test_reduce_lr_on_plateau8, the first group", plateau(f"{REL_MAX} min_gain=0.8"),
              [[0.5] * 6 + [0.4] * 14], metrics=RISING,
              convention="torch has a min_lr for each group, plateau.min_gain is one number"),
    Published("test_reduce_lr_on_plateau8, the second group", plateau(f"{REL_MAX} min_gain=0.6"),
              [[0.5] * 6 + [0.3] * 14], metrics=RISING,
              convention="torch has a min_lr for each group, plateau.min_gain is one number"),
    Published("test_compound_reduce_lr_on_plateau1",
              plateau("threshold_mode=abs mode=min threshold=0.01 patience=5 cooldown=5", OF_STEP),
              [[0.5 * 0.1 ** (i // 3) for i in range(20)]], metrics=[10 - i * 0.0167 for i in range(20)],
              convention=UNCOMPARED),
    Published("test_compound_reduce_lr_on_plateau2",
              plateau(ABS_MIN, "schedule=multistep 'schedule.milestones=[3, 8, 12]'"),
              [times(TWICE, [1] * 3 + [0.1] * 5 + [0.01] * 4 + [0.001] * 10)], metrics=FALLING, convention=UNCOMPARED),
    Published("test_compound_reduce_lr_on_plateau3",
              plateau("mode=max patience=5 cooldown=5 threshold_mode=abs",
                      "schedule=exponential schedule.gamma=0.1 schedule.every=1"),
              [times(THREE, [0.1**i for i in range(22)])], metrics=[-0.8] * 2 + [-0.234] * 20, convention=UNCOMPARED),
    Published("test_compound_reduce_lr_on_plateau4",
              plateau("mode=max patience=3 threshold_mode=rel threshold=0.1",
                      "schedule=cosine schedule.end=2.0e-9 schedule.length=10", 0.05),
              [COSINE], metrics=[1.5 * 1.025**i for i in range(20)], steps=20, convention=UNCOMPARED),
    Published("test_compound_reduce_lr_on_plateau5",
              plateau(ABS_MIN, "schedule=constant warmup=linear warmup.length=4 warmup.start=0.4"),
              [times(TWICE, RISE + [1.0] * 12)], metrics=FALLING, convention=UNCOMPARED),
]  # fmt: skip


def rule(scale: float, schedule: str) -> str:
    """A second group with a schedule of its own."""
    return f"'param_groups.rules=[{{name: conv2, pattern: conv2, lr_scale: {scale}, schedule: {{name: {schedule}}}}}]'"


def swa(kind: str, last: float, steps: int) -> str:
    """The phases of SWALR after a decay of 0.9: five steps of it, and the annealing."""
    return (
        "[{name: exponential, gamma: 0.9, every: 1, length: 5}, "
        f"{{name: {kind}, start: {0.9**5!r}, end: {last}, length: {steps}}}, {{name: constant, start: {last}}}]"
    )


def swa_both(kind: str, ends: tuple[float, float], steps: int) -> str:
    first, second = (swa(kind, end, steps) for end in ends)
    return f"schedule=piecewise 'schedule.phases={first}' {BASE} {rule(10, f'piecewise, phases: {second}')}"


BY_GROUP = "schedule=exponential schedule.gamma=0.9 schedule.every=1 optimizer.lr=0.05"
DECAYS = [[0.05 * 0.9**x for x in range(10)], [0.4 * 0.8**x for x in range(10)]]
SWA_LR = "swa_lr is an absolute rate, schedule.end a share of each group's own"

GROUPS = [
    *(Published(test, f"{BY_GROUP} {rule(8, 'exponential, gamma: 0.8, every: 1')}", DECAYS)
      for test in ("test_lambda_lr", "test_multiplicative_lr")),
    Published("test_swalr_no_anneal",
              f"{table((0, 1.0), (6, 0.2))} {BASE} "
              + rule(10, "table, table: [[0, 1.0], [6, 0.02]], interpolate: previous"),
              [[first] * 6 + [0.01] * 4 for first in (0.05, 0.5)], convention=SWA_LR),
    Published("test_swalr_cosine_anneal_after_multiplicative", swa_both("cosine", (0.2, 0.02), 5), [
        [*(first * 0.9**i for i in range(6)), *(
            0.01 + (first * 0.9**5 - 0.01) * (0.5 * (1 + math.cos(math.pi * (t + 1) / 5)) if t < 4 else 0.0)
            for t in range(9))] for first in (0.05, 0.5)], convention=SWA_LR),
    Published("test_swalr_linear_anneal_after_multiplicative", swa_both("linear", (0.2, 0.04), 4), [
        [*(first * 0.9**i for i in range(6)), *(
            last + (first * 0.9**5 - last) * (1 - (t + 1) / 4 if t < 3 else 0.0)
            for t in range(9))] for first, last in ((0.05, 0.01), (0.5, 0.02))], convention=SWA_LR),
]  # fmt: skip

TRIANGULAR: list[float] = [1, 2, 3, 4, 5, 4, 3, 2, 1, 2, 3]
TRIANGULAR2 = [1, 2, 3, 4, 5, 4, 3, 2, 1, 1.5, 2, 2.5, 3, 2.5, 2, 1.5, 1, 1.25, 1.5, 1.75, 2, 1.75]
HEIGHTS = [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75, 1]
DOWN_6 = [1, 2, 3, 4, 5, 13 / 3, 11 / 3, 3, 7 / 3, 5 / 3, 1]
DOWN_62 = [1, 3, 5, 13 / 3, 11 / 3, 3, 7 / 3, 5 / 3, 1, 2, 3, 8 / 3, 7 / 3, 2, 5 / 3, 4 / 3, 1, 3 / 2, 2, 11 / 6,
           10 / 6, 9 / 6, 8 / 6, 7 / 6]  # fmt: skip
HEIGHTS_62 = [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0.5, 1, 5 / 6, 4 / 6]
EQUAL = "optimizer.lr=5.0 'param_groups.rules=[{name: conv2, pattern: conv2, lr_scale: 1}]'"
CYCLIC = f"schedule=cyclic schedule.start=0.2 schedule.up=4 {EQUAL}"
SWINGS = "schedule.momentum_start=0.5 schedule.momentum_peak=0.1"
TENTH = "torch's test has a momentum of 5; a tenth of it is compared, for lrkit refuses 1 and more"


def against(rates: list[float], both_ends: float = 6.0, over: float = 10.0) -> list[float]:
    """The momentum beside a rate, a tenth of that of the test: it moves the other way between the same ends."""
    return [(both_ends - rate) / over for rate in rates]


def two_cycles(first: tuple[float, float], second: tuple[float, float], more: str = "", *, up: int = 4,
               over: float = 10.0) -> str:  # fmt: skip
    """Two groups, each between its own ends, with its own momentum."""
    keys = []
    for low, high in (first, second):
        swing = f"momentum_start: {high / over}, momentum_peak: {low / over}"
        keys.append(", ".join(filter(None, (f"start: {low / high!r}", f"up: {up}", swing, more))))
    run = " ".join(f"schedule.{key.replace(': ', '=')}" for key in keys[0].split(", "))
    return f"optimizer.lr={first[1]} schedule=cyclic {run} {rule(second[1] / first[1], f'cyclic, {keys[1]}')}"


def ranged(low: float, high: float, heights: list[float]) -> list[float]:
    return [low + x * (high - low) * 0.9**i for i, x in enumerate(heights)]


CYCLES = [
    Published("test_cycle_lr_triangular_mode_one_lr", f"{CYCLIC} {SWINGS}", [TRIANGULAR] * 2,
              [against(TRIANGULAR)] * 2, convention=TENTH),
    Published("test_cycle_lr_triangular_mode_one_lr_no_momentum", CYCLIC, [TRIANGULAR] * 2),
    Published("test_cycle_lr_with_momentumless_optimizer", f"optimizer=adam {CYCLIC}", [TRIANGULAR] * 2),
    Published("test_cycle_lr_triangular2_mode_one_lr", f"{CYCLIC} {SWINGS} schedule.mode=triangular2",
              [TRIANGULAR2] * 2, [against(TRIANGULAR2)] * 2, convention=TENTH),
    Published("test_cycle_lr_exp_range_mode_one_lr", f"{CYCLIC} {SWINGS} schedule.mode=exp_range schedule.every=1",
              [ranged(1, 5, HEIGHTS)] * 2,
              [against(ranged(1, 5, HEIGHTS))] * 2, convention=TENTH),
    Published("test_cycle_lr_triangular_mode_step_size_up_down", f"{CYCLIC} {SWINGS} schedule.down=6", [DOWN_6] * 2,
              [against(DOWN_6)] * 2, convention=TENTH),
    Published("test_cycle_lr_exp_range_mode_step_size_up_down",
              f"schedule=cyclic schedule.start=0.2 schedule.up=2 schedule.down=6 schedule.mode=exp_range "
              f"schedule.every=1 {SWINGS} {EQUAL}", [ranged(1, 5, HEIGHTS_62)] * 2,
              [against(ranged(1, 5, HEIGHTS_62))] * 2, convention=TENTH),
    Published("test_cycle_lr_triangular_mode", two_cycles((1, 5), (2, 6)),
              [TRIANGULAR, [x + 1 for x in TRIANGULAR]],
              [against(TRIANGULAR), against([x + 1 for x in TRIANGULAR], 8)], convention=TENTH),
    Published("test_cycle_lr_triangular2_mode", two_cycles((1, 5), (3, 7), "mode: triangular2"),
              [TRIANGULAR2, [x + 2 for x in TRIANGULAR2]],
              [against(TRIANGULAR2), against([x + 2 for x in TRIANGULAR2], 10)], convention=TENTH),
    Published("test_cycle_lr_exp_range_mode", two_cycles((1, 5), (5, 12), "mode: exp_range, every: 1", over=20),
              [ranged(1, 5, HEIGHTS), ranged(5, 12, HEIGHTS)],
              [against(ranged(1, 5, HEIGHTS), over=20), against(ranged(5, 12, HEIGHTS), 17, over=20)],
              convention="torch's test has a momentum of 12; a twentieth is compared, for lrkit refuses 1 and more"),
    Published("test_cycle_lr_triangular2_mode_step_size_up_down",
              two_cycles((1, 5), (3, 7), "mode: triangular2, down: 6", up=2), [DOWN_62, [x + 2 for x in DOWN_62]],
              [against(DOWN_62), against([x + 2 for x in DOWN_62], 10)], convention=TENTH),
]  # fmt: skip

ONE_CYCLE = "optimizer.lr=25.0 schedule=one_cycle schedule.length=9"
SAME = "'param_groups.rules=[{name: conv2, pattern: conv2, lr_scale: 1}]'"
EARLY = "torch has its peak at step pct_start n - 1 and its last value at step n - 1; momentum is divided by 100"
LINEAR_CYCLE = [1, 13, 25, 21.5, 18, 14.5, 11, 7.5, 4, 0.5]
LINEAR_MOMENTUM = [0.22, 0.115, 0.01, 0.04, 0.07, 0.1, 0.13, 0.16, 0.19, 0.22]
COSINE_CYCLE = [1, 13, *(0.5 + (25 - 0.5) / 2 * (math.cos(math.pi * i / 7) + 1) for i in range(8))]
COSINE_MOMENTUM = [0.22, 0.115, *(0.22 + (0.01 - 0.22) / 2 * (math.cos(math.pi * i / 7) + 1) for i in range(8))]
MOMENTA = "schedule.momentum_start=0.22 schedule.momentum_peak=0.01"
OF_LINEAR_CYCLE = f"{ONE_CYCLE} schedule.up=2 schedule.end=0.02 schedule.anneal=linear {MOMENTA} {SAME}"
OF_COSINE_CYCLE = f"{ONE_CYCLE} schedule.up=2 schedule.end=0.02 {MOMENTA} {SAME}"

ONE_CYCLES = [
    Published("test_onecycle_lr_linear_annealing", OF_LINEAR_CYCLE, [LINEAR_CYCLE] * 2, [LINEAR_MOMENTUM] * 2,
              convention=EARLY),
    Published("test_cycle_lr_with_adam", f"optimizer=adam {OF_LINEAR_CYCLE}", [LINEAR_CYCLE] * 2,
              [LINEAR_MOMENTUM] * 2, convention=EARLY),
    Published("test_onecycle_lr_linear_annealing_three_phases",
              f"{ONE_CYCLE} schedule.up=3 schedule.end=0.01 schedule.anneal=linear schedule.three_phase=true "
              f"{MOMENTA} {SAME}", [[1, 9, 17, 25, 17, 9, 1, 0.75, 0.5, 0.25]] * 2,
              [[0.22, 0.15, 0.08, 0.01, 0.08, 0.15, 0.22, 0.22, 0.22, 0.22]] * 2, convention=EARLY),
    Published("test_onecycle_lr_cosine_annealing", OF_COSINE_CYCLE, [COSINE_CYCLE] * 2, [COSINE_MOMENTUM] * 2,
              convention=EARLY),
    Published("test_onecycle_lr_legacy_state_dict", OF_COSINE_CYCLE, [COSINE_CYCLE] * 2, [COSINE_MOMENTUM] * 2,
              convention=EARLY),
]  # fmt: skip

#: torch compares within 1e-5; these are the formulas of its tests, and one group's floor of 1e-10.
SOURCE = Source("torch", "commit 01f9ef3, test/optim/test_lrscheduler.py", 2e-9,
                [*SIMPLE, *CHAINED, *PLATEAU, *GROUPS, *CYCLES, *ONE_CYCLES])  # fmt: skip
