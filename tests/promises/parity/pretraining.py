"""torchtitan, Megatron-LM, NeMo and DeepSpeed: ten steps of warmup in a run of 60 or 100 optimizer steps."""

from __future__ import annotations

import math

from parity.rows import Curve, Peer, Row, cosine, phases, shaped, warmed

__all__ = ["PEERS"]


def torchtitan(shape: Curve) -> Curve:
    """``total_steps=100, warmup_steps=10, decay_ratio=0.3, min_lr_factor=0.1``."""

    def theirs(t: float) -> float:
        if t < 10:
            return (t + 1) / 10
        return 1.0 if t < 71 else 0.1 + 0.9 * shape((t + 1 - 71) / 30)

    return theirs


def megatron(shape: Curve, floor: float = 0.0) -> Curve:
    """``lr_warmup_steps=10, lr_decay_steps=100, wsd_decay_steps=30``."""

    def theirs(t: float) -> float:
        return t / 10 if t <= 10 else 1.0 if t <= 70 else floor + (1 - floor) * shape((t - 70) / 30)

    return theirs


def rsqrt(floor: float) -> Curve:
    return lambda t: t / 10 if t <= 10 else max(floor, math.sqrt(10 / t))


def one_cycle(t: float) -> float:
    """``cycle_min_lr=0.1, cycle_max_lr=1, cycle_first_step_size=30, decay_lr_rate=1, decay_step_size=10``."""
    return 0.1 + 0.9 * (1 - abs(t - 30) / 30) if t <= 60 else 0.1 / (1 + (t - 60) / 10)


def logarithm(t: float) -> float:
    return math.log(t + 1) / math.log(10)


WARMUP = "warmup=linear warmup.length=10 warmup.start=0"
TITAN = "warmup=linear warmup.length=9 warmup.start=0.1"
CLOCK = "t is DeepSpeed's last_batch_iteration, which is 0 in the second optimizer step of its engine"
TITAN_STEP = "torchtitan's warmup of 10 steps begins at a tenth and reaches 1 in its last step"

PEERS = [
    Peer("torchtitan", "0.3.0, torchtitan/components/optimizer/lr_scheduler.py", [
        Row("warmup_steps=10, decay_ratio=0.3, decay_type='linear', min_lr_factor=0.1",
            f"schedule=wsd schedule.decay=30 schedule.shape=linear schedule.end=0.1 {TITAN}",
            torchtitan(lambda u: 1 - u), steps=100, convention=TITAN_STEP),
        Row("warmup_steps=10, decay_ratio=0.3, decay_type='sqrt', min_lr_factor=0.1",
            f"schedule=wsd schedule.decay=30 schedule.end=0.1 {TITAN}",
            torchtitan(lambda u: 1 - math.sqrt(u)), steps=100, convention=TITAN_STEP),
        Row("warmup_steps=10, decay_ratio=0.3, decay_type='cosine', min_lr_factor=0.1",
            f"schedule=wsd schedule.decay=30 schedule.shape=cosine schedule.end=0.1 {TITAN}",
            torchtitan(cosine), steps=100, convention=TITAN_STEP),
    ]),
    Peer("Megatron-LM", "core 0.16.1, megatron/core/optimizer_param_scheduler.py", [
        Row("lr_decay_style='WSD', lr_wsd_decay_style='linear', wsd_decay_steps=30, min_lr=0.1",
            f"schedule=wsd schedule.decay=30 schedule.shape=linear schedule.end=0.1 {WARMUP}",
            megatron(lambda u: 1 - u, 0.1), steps=100),
        Row("lr_decay_style='WSD', lr_wsd_decay_style='cosine', wsd_decay_steps=30, min_lr=0.1",
            f"schedule=wsd schedule.decay=30 schedule.shape=cosine schedule.end=0.1 {WARMUP}",
            megatron(cosine, 0.1), steps=100),
        Row("lr_decay_style='WSD', lr_wsd_decay_style='minus_sqrt', wsd_decay_steps=30, min_lr=0.1",
            f"schedule=wsd schedule.decay=30 schedule.end=0.1 {WARMUP}",
            megatron(lambda u: 1 - math.sqrt(u), 0.1), steps=100),
        Row("lr_decay_style='WSD', lr_wsd_decay_style='exponential', wsd_decay_steps=30",
            f"schedule=wsd schedule.decay=30 {shaped('exponential', 'ratio: 0.5')} {WARMUP}",
            megatron(lambda u: 2 * 0.5**u - 1), steps=100),
        Row("lr_decay_style='cosine', min_lr=0.1", f"schedule=cosine schedule.end=0.1 {WARMUP}",
            lambda t: t / 10 if t <= 10 else 0.1 + 0.9 * cosine((t - 10) / 90), steps=100),
        Row("lr_decay_style='inverse-square-root', min_lr=0",
            f"schedule=inverse_sqrt schedule.timescale=10 {WARMUP}", rsqrt(0.0), steps=100),
        Row("lr_decay_style='inverse-square-root', min_lr=0.4",
            f"schedule=inverse_sqrt schedule.timescale=10 schedule.floor=0.4 {WARMUP}", rsqrt(0.4), steps=100),
    ]),
    Peer("NeMo", "commit 0165f08, nemo/core/optim/lr_scheduler.py", [
        Row("CosineAnnealing(max_steps=100, warmup_steps=10, min_lr=0.1)",
            "schedule=cosine schedule.end=0.1 warmup=linear warmup.length=10 warmup.start=0.09090909090909091",
            lambda t: (t + 1) / 11 if t <= 10 else 0.1 + 0.9 * cosine((t - 10) / 90), steps=100,
            convention="The first step of NeMo's warmup of n steps is at 1 / (n + 1)"),
        Row("CosineAnnealing(max_steps=100, warmup_steps=10, constant_steps=20, min_lr=0.1)",
            f"schedule=cosine schedule.end=0.1 schedule.length=70 {WARMUP}",
            lambda t: t / 10 if t <= 10 else 0.1 + 0.9 * cosine(min(t - 10, 70) / 70), steps=100),
    ]),
    Peer("DeepSpeed", "0.19.8, deepspeed/runtime/lr_schedules.py", [
        Row("WarmupLR(warmup_num_steps=10)",
            "schedule=constant warmup=logarithmic warmup.start=0 warmup.length=9 warmup.base=10",
            lambda t: min(logarithm(t), 1.0), convention=CLOCK),
        Row("WarmupDecayLR(total_num_steps=60, warmup_num_steps=10, warmup_type='linear')",
            f"schedule=linear {WARMUP}", warmed(10, 0.0, lambda t: 1 - t / 50), convention=CLOCK),
        Row("WarmupDecayLR(total_num_steps=60, warmup_num_steps=10)",
            f"{phases('constant, length: 1', 'linear')} "
            "warmup=logarithmic warmup.start=0 warmup.length=9 warmup.base=10",
            lambda t: logarithm(t) if t < 10 else (60 - t) / 50,
            convention="The logarithm of DeepSpeed arrives at 1 one step before the decay begins"),
        Row("WarmupCosineLR(total_num_steps=60, warmup_num_steps=10, warmup_type='linear')",
            phases("linear, start: 0.0, end: 1.0, length: 10", "cosine, end: 0.0001, skip: 1, length: 49",
                   "constant, start: 0.0001"),
            warmed(10, 0.0, lambda t: 0.0001 + 0.9999 * cosine(min((t + 1) / 50, 1))),
            convention="The cosine of DeepSpeed is one step ahead: it does not begin at 1"),
        Row("OneCycle(0.1, 1.0, decay_lr_rate=1.0, cycle_first_step_size=30, decay_step_size=10)",
            phases("linear, start: 0.1, end: 1.0, length: 30", "linear, start: 1.0, end: 0.1, length: 30",
                   "inverse_time, scale: 0.1, gamma: 1.0, every: 10"), one_cycle, steps=100),
    ]),
]  # fmt: skip
