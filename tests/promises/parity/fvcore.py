"""fvcore, which detectron2 and ClassyVision use: functions of ``where = t / 60``, the share of the run."""

from __future__ import annotations

from parity.rows import Curve, Peer, Row, cosine, phases, table

__all__ = ["PEER"]

N = 60


def of_where(curve: Curve) -> Curve:
    return lambda t: curve(t / N)


def chosen(t: float, *values: tuple[int, float]) -> float:
    """The value of the last step that has come."""
    return next(value for first, value in reversed(values) if t >= first)


PEER = Peer("fvcore", "0.1.5.post20221221, fvcore/common/param_scheduler.py", [
    Row("CosineParamScheduler(1.0, 0.1)",
        "schedule=cosine schedule.end=0.1", of_where(lambda u: 0.1 + 0.9 * cosine(u))),
    Row("ExponentialParamScheduler(1.0, decay=0.01)",
        "schedule=exponential schedule.gamma=null schedule.end=0.01", of_where(lambda u: 0.01**u)),
    Row("LinearParamScheduler(1.0, 0.2)",
        "schedule=linear schedule.end=0.2", of_where(lambda u: 0.2 * u + (1 - u))),
    Row("MultiStepParamScheduler([1.0, 0.1, 0.5], num_updates=60, milestones=[10, 40])",
        table((0, 1.0), (10, 0.1), (40, 0.5)),
        lambda t: chosen(t, (0, 1.0), (10, 0.1), (40, 0.5))),
    Row("StepParamScheduler(60, [1.0, 0.1, 0.01, 0.001])",
        "schedule=step schedule.every=15", lambda t: [1.0, 0.1, 0.01, 0.001][int(t // 15)], compared=N),
    Row("StepWithFixedGammaParamScheduler(1.0, num_decays=3, gamma=0.1, num_updates=60)",
        "schedule=step schedule.every=15", lambda t: 0.1 ** (t // 15), compared=N),
    Row("PolynomialDecayParamScheduler(1.0, power=0.9)",
        "schedule=polynomial schedule.power=0.9", of_where(lambda u: (1 - u) ** 0.9)),
    Row("CompositeParamScheduler([Linear(0.1, 1), Cosine(1, 0)], [0.25, 0.75], ['rescaled', 'rescaled'])",
        "schedule=cosine warmup=linear warmup.length=15 warmup.start=0.1",
        of_where(lambda u: 0.1 + 0.9 * u / 0.25 if u < 0.25 else cosine((u - 0.25) / 0.75))),
    Row("CompositeParamScheduler([Linear(0.1, 1), Cosine(1, 0)], [0.25, 0.75], ['rescaled', 'fixed'])",
        "schedule=cosine warmup=linear warmup.length=15 warmup.start=0.1 warmup.overlap=peak",
        of_where(lambda u: 0.1 + 0.9 * u / 0.25 if u < 0.25 else cosine(u))),
    Row("CompositeParamScheduler([Constant(0.4), Constant(0.2), Linear(0.2, 0)], [0.25, 0.25, 0.5], rescaled)",
        phases("constant, start: 0.4, length: 25%", "constant, start: 0.2, length: 25%", "linear, start: 0.2"),
        of_where(lambda u: 0.4 if u < 0.25 else 0.2 if u < 0.5 else 0.2 * (1 - (u - 0.5) / 0.5))),
])  # fmt: skip
