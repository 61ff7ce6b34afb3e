"""optax, fvcore and transformers: tests of functions from a step, or a share of the run, to a learning rate."""

from __future__ import annotations

import math

from parity.published import Published, Source
from parity.rows import cosine, phases

__all__ = ["SOURCES"]


def stairs(*values: float) -> list[str]:
    """Phases of one step each."""
    return [f"constant, start: {value}, length: 1" for value in values]


GROWTH = 2**7.5  # of 15 steps that double every two
SMOOTH = [2 ** (t / 2) for t in range(15)]
DOUBLED = [2.0 ** (t // 2) for t in range(15)]
GROWING = f"schedule=exponential schedule.gamma=null schedule.end={GROWTH!r}"
NO_DECAY = "optax takes a constant schedule for a setting without a meaning, lrkit refuses the setting"
CEILING = "A ceiling is a phase of its own"
PAUSED = "constant, length: 3"
HALVES = [0.5 + 0.5 * math.cos(math.pi * min(t / 5, 1.0)) for t in range(12)]
BEGINS_BELOW = "A warmup of lrkit only rises; a fall to the peak is a phase"


def sgdr(*peaks: float) -> str:
    lengths = (1500, 2500, 4500)
    return phases(*(part for peak, length in zip(peaks, lengths, strict=True) for part in (
        f"linear, start: 0, end: {peak / peaks[0]}, length: 500",
        f"cosine, start: {peak / peaks[0]}, length: {length}"))) + f" optimizer.lr={peaks[0]}"  # fmt: skip


OPTAX = Source("optax", "0.2.8, optax/schedules/_schedule_test.py", 1e-6, [
    Published("ConstantTest", "schedule=constant optimizer.lr=10", [[10] * 15]),
    Published("PolynomialTest.test_linear",
              "schedule=linear schedule.start=1 schedule.end=2 schedule.length=10 optimizer.lr=10",
              [[*range(10, 20), *[20] * 5]]),
    Published("PolynomialTest.test_zero_steps_schedule", "schedule=constant optimizer.lr=10", [[10] * 15],
              convention=NO_DECAY),
    Published("PolynomialTest.test_nonlinear",
              "schedule=polynomial schedule.end=0.4 schedule.length=10 optimizer.lr=25",
              [[10 + 15 * (1 - n / 10) ** 2 for n in range(10)] + [10.0] * 5]),
    Published("PolynomialTest.test_with_decay_begin",
              phases("constant, length: 4", "polynomial, end: 0.3333333333333333, length: 10",
                     "constant, start: 0.3333333333333333") + " optimizer.lr=30",
              [[30.0] * 4 + [10 + 20 * (1 - n / 10) ** 2 for n in range(10)] + [10.0] * 6]),
    Published("PiecewiseConstantTest.test_positive",
              phases("constant, length: 3", "constant, start: 2, length: 3", "constant") + " optimizer.lr=0.1",
              [[0.1] * 3 + [0.2] * 3 + [0.1] * 4]),
    Published("PiecewiseConstantTest.test_negative", "", [[-0.1] * 3 + [-0.2] * 3 + [-0.1] * 4]),
    Published("ExponentialTest.test_constant_schedule[False]",
              "schedule=exponential schedule.gamma=1 schedule.every=15", [[1.0] * 15]),
    Published("ExponentialTest.test_constant_schedule[True]", "schedule=constant", [[1.0] * 15],
              convention="Stairs of lrkit warn if there is no drop in the run"),
    *(Published(f"ExponentialTest.{test}[{staircase}]", "schedule=constant", [[1.0] * 15], convention=NO_DECAY)
      for test in ("test_nonvalid_transition_steps", "test_nonvalid_decay_rate") for staircase in (False, True)),
    Published("ExponentialTest.test_exponential[False, 0]", GROWING, [SMOOTH]),
    Published("ExponentialTest.test_exponential[True, 0]", f"{GROWING} schedule.update_every=2", [DOUBLED]),
    Published("ExponentialTest.test_exponential[False, 5]",
              phases("constant, length: 5", f"exponential, gamma: null, end: {GROWTH!r}"), [[1.0] * 5 + SMOOTH]),
    Published("ExponentialTest.test_exponential[True, 5]",
              phases("constant, length: 5", f"exponential, gamma: null, end: {GROWTH!r}, update_every: 2"),
              [[1.0] * 5 + DOUBLED]),
    Published("ExponentialTest.test_end_value_with_staircase[0.2, 0.1, False]",
              phases(PAUSED, "exponential, gamma: 0.2, every: 2, floor: 0.1"),
              [[1.0] * 3 + [max(0.2 ** (t / 2), 0.1) for t in range(11)]]),
    Published("ExponentialTest.test_end_value_with_staircase[0.2, 0.1, True]",
              phases(PAUSED, "step, gamma: 0.2, every: 2, floor: 0.1"),
              [[1.0] * 3 + [max(0.2 ** (t // 2), 0.1) for t in range(11)]]),
    *(Published(f"ExponentialTest.test_end_value_with_staircase[1.0, 0.1, {staircase}]",
                "schedule=constant schedule.start=0.1", [[0.1] * 14],
                convention="A rate of 1 makes optax take the end value for a ceiling") for staircase in (False, True)),
    Published("ExponentialTest.test_end_value_with_staircase[2.0, 3.0, False]",
              phases(PAUSED, "exponential, gamma: null, end: 4.0, length: 4", "constant, start: 3.0"),
              [[1.0] * 3 + [min(2 ** (t / 2), 3.0) for t in range(11)]], convention=CEILING),
    Published("ExponentialTest.test_end_value_with_staircase[2.0, 3.0, True]",
              phases("constant, length: 5", "constant, start: 2, length: 2", "constant, start: 3.0"),
              [[1.0] * 3 + [min(2.0 ** (t // 2), 3.0) for t in range(11)]], convention=CEILING),
    Published("ExponentialTest.test_immutable_count",
              "schedule=exponential schedule.gamma=0.5 schedule.every=1 optimizer.lr=32", [[32, 16, 8, 4, 2]]),
    Published("CosineDecayTest.test_decay_count_smaller_count", "schedule=cosine optimizer.lr=0.1",
              [[0.1 * cosine(t / 10) for t in range(10)]]),
    Published("CosineDecayTest.test_decay_count_greater_count", "schedule=cosine schedule.length=5 optimizer.lr=0.1",
              [[0.1 * half for half in HALVES]]),
    Published("CosineDecayTest.test_decay_count_greater_count_with_alpha",
              "schedule=cosine schedule.end=0.1 schedule.length=5 optimizer.lr=0.1",
              [[0.1 * (0.9 * half + 0.1) for half in HALVES]]),
    Published("CosineDecayTest.test_with_exponent", "schedule=cosine schedule.power=2 optimizer.lr=0.1",
              [[0.1, 0.09516553580760956, 0.025, 0.0021446612663567066, 0.0]], at=[0, 10, 50, 75, 100], steps=100),
    Published("CosineDecayTest.test_with_giant_int_steps", "schedule=cosine optimizer.lr=1000", [[975.52826]],
              at=[10**9], steps=10**10, within=1e-5),
    Published("WarmupCosineDecayTest.test_limits[with end value]",
              phases("linear, start: 20, end: 1, length: 100", "cosine, end: 2.0e-4") + " optimizer.lr=0.5",
              [[10, 0.5, 1e-4]], at=[0, 100, 1000], steps=1000, convention=BEGINS_BELOW),
    Published("WarmupCosineDecayTest.test_limits[without end value]",
              phases("linear, start: 1.6666666666666667, end: 1, length: 100", "cosine") + " optimizer.lr=3",
              [[5, 3, 0]], at=[0, 100, 1000], steps=1000, convention=BEGINS_BELOW),
    Published("WarmupCosineDecayTest.test_with_exponent", "", [[0.2, 0.402, 1.21, -1.9475, -3.0]],
              at=[0, 10, 50, 75, 100], steps=100),
    Published("WarmupCosineDecayTest.test_zero_peak_value", "schedule=linear schedule.length=50 optimizer.lr=0.2",
              [[0.2, 0.16, 0.0, 0.0, 0.0]], at=[0, 10, 50, 75, 100], steps=100),
    Published("SGDRTest.test_limits[with step decay]", sgdr(1.6, 0.8, 0.4), [[1.6, 0.8, 0.4]], at=[500, 2500, 5500],
              steps=10_000),
    Published("SGDRTest.test_limits[without step_decay]", sgdr(1.6, 1.6, 1.6), [[1.6, 1.6, 1.6]],
              at=[500, 2500, 5500], steps=10_000),
    Published("PiecewiseInterpolateTest.test_linear_piecewise",
              phases("linear, start: 1, end: 1.5, length: 5", "linear, start: 1.5, end: 0.375, length: 5",
                     "constant, start: 0.375") + " optimizer.lr=200",
              [[200, 220, 240, 260, 280, 300, 255, 210, 165, 120, 75, 75, 75]]),
    Published("PiecewiseInterpolateTest.test_cos_piecewise",
              phases("cosine, start: 1, end: 0.6, length: 3", "cosine, start: 0.6, end: 0.72, length: 2",
                     "constant, start: 0.72") + " optimizer.lr=400",
              [[400, 360, 280, 240, 264, 288, 288, 288, 288]]),
    Published("PiecewiseInterpolateTest.test_empty_dict", "schedule=constant optimizer.lr=13", [[13] * 5]),
    Published("PiecewiseInterpolateTest.test_no_dict", "schedule=constant optimizer.lr=17", [[17] * 3]),
    Published("PiecewiseInterpolateTest.test_zero_interval_size",
              "schedule=linear schedule.end=3 optimizer.lr=26", [[26, 78]], at=[0, 5], steps=5),
    Published("OneCycleTest.test_linear",
              phases("linear, start: 0.1, end: 1, length: 3", "linear, start: 1, end: 0.1, length: 4",
                     "linear, start: 0.1, end: 0.001, length: 3", "constant, start: 0.001") + " optimizer.lr=1000",
              [[100, 400, 700, 1000, 775, 550, 325, 100, 67, 34, 1, 1]]),
    Published("OneCycleTest.test_cosine",
              "schedule=one_cycle schedule.up=2 schedule.start=0.1 schedule.end=0.001 schedule.length=5 "
              "optimizer.lr=1000", [[100, 550, 1000, 750.25, 250.75, 1, 1]]),
])  # fmt: skip

CONSTANTS = phases("constant, start: 1, length: 20%", "constant, start: 2, length: 40%",
                   "constant, start: 3, length: 10%", "constant, start: 4")  # fmt: skip
FALL = [round(0.0001 + (0.42 - 0.0001) * cosine(t / 10), 4) for t in range(10)]
COSINE = [0.1, 0.0976, 0.0905, 0.0794, 0.0655, 0.05, 0.0345, 0.0206, 0.0095, 0.0024]
LINE = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09]
TENTHS = [0.1] * 3 + [0.01] * 3 + [0.001] * 3 + [0.0001] * 3

FVCORE = Source("fvcore", "commit 242366f, tests/param_scheduler", 5e-5 + 1e-9, [
    Published("composite test_long_scheduler", f"{CONSTANTS} optimizer.lr=0.1",
              [[0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.4, 0.4, 0.4]]),
    Published("composite test_scheduler_lengths_within_epsilon_of_one",
              phases("constant, start: 1, length: 70%", "constant, start: 2") + " optimizer.lr=0.1",
              [[0.1] * 7 + [0.2] * 3]),
    Published("composite test_scheduler_with_mixed_types, rescaled",
              phases(*stairs(1, 2, 3, 4, 5), "cosine, start: 4.2, end: 0.001") + " optimizer.lr=0.1",
              [[0.1, 0.2, 0.3, 0.4, 0.5, *FALL[::2]]]),
    Published("composite test_scheduler_with_mixed_types, fixed",
              phases("constant, start: 1, length: 2", "constant, start: 2, length: 2", "constant, start: 3, length: 1",
                     "cosine, start: 4.2, end: 0.001, skip: 5") + " optimizer.lr=0.1",
              [[0.1, 0.1, 0.2, 0.2, 0.3, *FALL[5:]]]),
    Published("composite test_scheduler_with_mixed_types, rescaled and fixed",
              phases(*stairs(1, 2, 3, 4, 5), "cosine, start: 4.2, end: 0.001, skip: 5") + " optimizer.lr=0.1",
              [[0.1, 0.2, 0.3, 0.4, 0.5, *FALL[5:]]]),
    Published("composite test_linear_scheduler_no_gaps, rescaled",
              phases("linear, start: 0, end: 0.5, length: 50%", "linear, start: 0.5, end: 1"),
              [[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]]),
    Published("composite test_linear_scheduler_no_gaps, fixed",
              phases("linear, start: 0, end: 0.25, length: 50%", "linear, start: 0, end: 0.5, skip: 5"),
              [[0.5 * t / 10 for t in range(10)]]),
    Published("cosine test_scheduler_as_decay", "schedule=cosine optimizer.lr=0.1", [COSINE]),
    Published("cosine test_scheduler_as_warmup", "schedule=cosine schedule.start=0 schedule.end=1 optimizer.lr=0.1",
              [[0.0, *reversed(COSINE[1:])]]),
    Published("exponential test_scheduler",
              "schedule=exponential schedule.gamma=null schedule.end=0.1 optimizer.lr=2",
              [[2.0, 1.5887, 1.2619, 1.0024, 0.7962, 0.6325, 0.5024, 0.3991, 0.3170, 0.2518]]),
    Published("linear test_scheduler, a warmup", "schedule=linear schedule.start=0 schedule.end=1 optimizer.lr=0.1",
              [LINE]),
    Published("linear test_scheduler, a decay", "schedule=linear optimizer.lr=0.1", [[0.1, *reversed(LINE[1:])]]),
    Published("multi_step test_scheduler",
              "schedule=multistep 'schedule.milestones=[4, 6, 8]' optimizer.lr=0.1",
              [[0.1] * 4 + [0.01] * 2 + [0.001] * 2 + [0.0001] * 4]),
    Published("multi_step test_default_config", "schedule=step schedule.every=3 optimizer.lr=0.1", [TENTHS]),
    Published("polynomial test_scheduler", "schedule=polynomial schedule.power=1 optimizer.lr=0.1",
              [[0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]]),
    Published("step test_scheduler", "schedule=step schedule.every=3 optimizer.lr=0.1", [TENTHS]),
    Published("step_with_fixed_gamma test_scheduler", "schedule=step schedule.every=3",
              [[1] * 3 + [0.1] * 3 + [0.01] * 3 + [0.001] * 3]),
])  # fmt: skip

WARMUP = "warmup=linear warmup.start=0 warmup.length=2 optimizer.lr=10"
TRANSFORMERS = Source("transformers", "commit 1001bb0, tests/optimization/test_optimization.py", 1e-2, [
    Published("get_constant_schedule", "schedule=constant optimizer.lr=10", [[10.0] * 10]),
    Published("get_constant_schedule_with_warmup",
              "schedule=constant warmup=linear warmup.start=0 warmup.length=4 optimizer.lr=10",
              [[0.0, 2.5, 5.0, 7.5, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0]]),
    Published("get_linear_schedule_with_warmup", f"schedule=linear {WARMUP}",
              [[0.0, 5.0, 10.0, 8.75, 7.5, 6.25, 5.0, 3.75, 2.5, 1.25]]),
    Published("get_cosine_schedule_with_warmup", f"schedule=cosine {WARMUP}",
              [[0.0, 5.0, 10.0, 9.61, 8.53, 6.91, 5.0, 3.08, 1.46, 0.38]]),
    Published("get_cosine_with_hard_restarts_schedule_with_warmup",
              f"schedule=restarts schedule.cycles=2 schedule.growth=1 {WARMUP}",
              [[0.0, 5.0, 10.0, 8.53, 5.0, 1.46, 10.0, 8.53, 5.0, 1.46]]),
    Published("get_polynomial_decay_schedule_with_warmup", f"schedule=polynomial schedule.end=1.0e-8 {WARMUP}",
              [[0.0, 5.0, 10.0, 7.656, 5.625, 3.906, 2.5, 1.406, 0.625, 0.156]]),
])  # fmt: skip

SOURCES = [OPTAX, FVCORE, TRANSFORMERS]
