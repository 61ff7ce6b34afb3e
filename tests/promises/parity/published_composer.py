"""Composer, tests/optim/test_scheduler.py: a run of 1000 epochs of 1000 batches, shortened or lengthened by ``ssr``.

Composer multiplies all durations of a schedule by ``ssr``, but for a warmup; here they are multiplied by hand. A run
in which a short cycle would come 10,000 times is shorter here.
"""

from __future__ import annotations

from parity.published import Published, Source
from parity.rows import phases

__all__ = ["SOURCE"]


def case(test: str, lrkit: str, at: list[int], rates: list[float], *, ssr: float = 1.0, why: str = "",
         steps: int = 0) -> Published:  # fmt: skip
    scaled = "Composer multiplies the durations by scale_schedule_ratio, here that is done by hand" if ssr != 1 else ""
    convention = "; ".join(filter(None, (why, scaled)))
    return Published(test, lrkit, [rates], at=at, steps=steps or int(1000 * ssr) * 1000, epoch=1000,
                     convention=convention)  # fmt: skip


WHOLE = "a warmup as long as the run is schedule=linear from 0 to 1"
STEP = "schedule=step schedule.every"
LINEAR = "schedule=linear schedule.start=0 schedule.end"
RESTARTS = "schedule=restarts schedule.cycles=null schedule.period"
RISE = "schedule=linear schedule.start=0 schedule.end=1"
UP = "warmup=linear warmup.start=0 warmup.length"
HALF = [0, 250_000, 500_000, 500_500, 501_000, 502_000]
WARM = [0, 450_000, 900_000, 933_333, 950_000, 1_000_000]
SHORT = [0, 4_500, 9_000, 9_333, 9_500, 10_000]

SOURCE = Source("Composer", "commit 02c872e, tests/optim/test_scheduler.py", 1e-3, [
    case("Step 10ba", f"{STEP}=10", [5, 15, 35], [1.0, 0.1, 0.001], steps=1000),
    case("Step 0.002dur", f"{STEP}=0.2% schedule.gamma=0.8", [1000, 3000, 7000], [1.0, 0.8, 0.512]),
    case("Step 1ep", f"{STEP}=1ep schedule.gamma=0.5", [500, 1500, 3500], [1.0, 0.5, 0.125]),
    case("Step 10ba, ssr 0.5", f"{STEP}=5 schedule.gamma=0.5", [3, 8, 18], [1.0, 0.5, 0.125], ssr=0.5,
         steps=1000),
    case("MultiStep", "schedule=multistep 'schedule.milestones=[10, 30, 70]'", [5, 20, 50, 100],
         [1.0, 0.1, 0.01, 0.001]),
    case("MultiStep of units", "schedule=multistep 'schedule.milestones=[100, 1ep, 1%]' schedule.gamma=0.5",
         [50, 500, 5000, 50_000], [1.0, 0.5, 0.25, 0.125]),
    case("MultiStep of units, ssr 4", "schedule=multistep 'schedule.milestones=[400, 4ep, 1%]' schedule.gamma=0.5",
         [200, 2000, 20_000, 200_000], [1.0, 0.5, 0.25, 0.125], ssr=4),
    case("Linear", "schedule=linear", [100_000, 200_000, 400_000], [0.9, 0.8, 0.6]),
    case("Linear 0 to 2", f"{LINEAR}=2", [100_000, 200_000, 400_000], [0.2, 0.4, 0.8]),
    case("Linear 0 to 1, 0.25dur", f"{LINEAR}=1 schedule.length=25%", [100_000, 200_000, 400_000], [0.4, 0.8, 1.0]),
    case("Linear 0 to 1, 0.25dur, ssr 2", f"{LINEAR}=1 schedule.length=25%", [100_000, 200_000, 400_000],
         [0.2, 0.4, 0.8], ssr=2),
    case("Exponential", "schedule=exponential schedule.gamma=0.5", [1000, 2000, 4000], [0.5, 0.25, 0.0625]),
    case("Exponential, ssr 2", "schedule=exponential schedule.gamma=0.5 schedule.every=2ep", [2000, 4000, 8000],
         [0.5, 0.25, 0.0625], ssr=2),
    case("CosineAnnealing", "schedule=cosine", [0, 333_333, 500_000, 666_667, 1_000_000], [1.0, 0.75, 0.5, 0.25, 0.0]),
    case("CosineAnnealing 30ba", "schedule=cosine schedule.end=0.5 schedule.length=30", [0, 10, 15, 20, 30, 50],
         [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]),
    case("CosineAnnealing 30ba, ssr 0.2", "schedule=cosine schedule.end=0.5 schedule.length=6", [0, 2, 3, 4, 6, 10],
         [1.0, 0.875, 0.75, 0.625, 0.5, 0.5], ssr=0.2),
    case("CosineAnnealingWarmRestarts 30ba", f"{RESTARTS}=30 schedule.growth=1", [0, 10, 15, 20, 30, 40],
         [1.0, 0.75, 0.5, 0.25, 1.0, 0.75], steps=1000),
    case("CosineAnnealingWarmRestarts 0.003dur, t_mult 1.5", f"{RESTARTS}=0.3% schedule.growth=1.5",
         [0, 1000, 3000, 4500, 7500, 14_250], [1.0, 0.75, 1.0, 0.75, 1.0, 1.0]),
    case("CosineAnnealingWarmRestarts 30ep, ssr 0.5", f"{RESTARTS}=15ep schedule.growth=2 schedule.end=0.5",
         [0, 5000, 15_000, 25_000], [1.0, 0.875, 1.0, 0.875], ssr=0.5),
    case("Polynomial", "schedule=polynomial", [0, 100_000, 200_000, 500_000], [1.0, 0.81, 0.64, 0.25]),
    case("Polynomial 100ba", "schedule=polynomial schedule.length=100 schedule.end=0.5", [0, 10, 20, 50],
         [1.0, 0.905, 0.82, 0.625]),
    case("Polynomial 100ba, ssr 0.5", "schedule=polynomial schedule.length=50 schedule.end=0.5", [0, 10, 20, 50],
         [1.0, 0.82, 0.68, 0.5], ssr=0.5),
    case("MultiStepWithWarmup", f"schedule=multistep 'schedule.milestones=[20, 40]' {UP}=10 warmup.overlap=peak",
         [0, 5, 15, 25, 45], [0.0, 0.5, 1.0, 0.1, 0.01]),
    case("MultiStepWithWarmup, ssr 0.5",
         f"schedule=multistep 'schedule.milestones=[1ep, 2ep]' schedule.gamma=0.5 {UP}=10 warmup.overlap=peak",
         [0, 5, 15, 1500, 2500], [0.0, 0.5, 1.0, 0.5, 0.25], ssr=0.5),
    case("MultiStepWithWarmup, ssr 0.5, scale_warmup",
         f"schedule=multistep 'schedule.milestones=[1ep, 2ep]' schedule.gamma=0.5 {UP}=5 warmup.overlap=peak",
         [0, 5, 15, 1500, 2500], [0.0, 1.0, 1.0, 0.5, 0.25], ssr=0.5),
    case("MultiStepWithWarmup 1000ep", RISE, [0, 100_000, 1_000_000], [0.0, 0.1, 1.0], why=WHOLE),
    case("ConstantWithWarmup 500ep", f"schedule=constant {UP}=500ep", [0, 250_000, 500_000, 750_000, 1_000_000],
         [0.0, 0.5, 1.0, 1.0, 1.0]),
    *(case(f"ConstantWithWarmup 500ep, alpha 3, case {i}", f"schedule=constant schedule.start=3 {UP}=500ep", HALF,
           [0.0, 1.5, 3.0, 3.0, 3.0, 3.0]) for i in (1, 2)),
    case("ConstantWithWarmup 0.0005dur", f"schedule=constant {UP}=0.05%", [0, 250, 500, 499_750],
         [0.0, 0.5, 1.0, 1.0]),
    case("ConstantWithWarmup, t_max 501000ep, ssr 0.5", "schedule=linear schedule.start=0 schedule.end=3", HALF,
         [0.0, 1.5, 3.0, 3.0, 3.0, 3.0], ssr=0.5, why=f"The run has 500 epochs: {WHOLE}"),
    case("ConstantWithWarmup 1000ep", RISE, [0, 100_000, 1_000_000], [0.0, 0.1, 1.0], why=WHOLE),
    case("LinearWithWarmup 500ep", f"schedule=linear {UP}=500ep", [0, 250_000, 500_000, 750_000, 1_000_000],
         [0.0, 0.5, 1.0, 0.5, 0.0]),
    case("LinearWithWarmup 3 to 2, t_max 1002ep, ssr 0.5",
         phases("linear, start: 0, end: 3, length: 500ep", "linear, start: 3, end: 2, length: 1ep",
                "constant, start: 2") + " horizon.steps=502000", HALF,
         [0.0, 1.5, 3.0, 2.5, 2.0, 2.0], ssr=0.5,
         why="Composer's schedule goes on after the run; here the run is two epochs longer"),
    case("LinearWithWarmup 0.0005dur", f"schedule=linear {UP}=0.05%", [0, 250, 500, 499_750], [0.0, 0.5, 1.0, 0.5]),
    case("LinearWithWarmup 500ba, ssr 0.5", f"schedule=linear {UP}=500", [0, 250, 500, 249_875],
         [0.0, 0.5, 1.0, 0.5], ssr=0.5),
    case("LinearWithWarmup 500ba, ssr 0.5, scale_warmup", f"schedule=linear {UP}=250", [0, 125, 250, 249_875],
         [0.0, 0.5, 1.0, 0.5], ssr=0.5),
    case("LinearWithWarmup 1000ep", RISE, [0, 100_000, 1_000_000], [0.0, 0.1, 1.0], why=WHOLE),
    case("CosineAnnealingWithWarmup 0.9dur", f"schedule=cosine {UP}=90%", WARM, [0.0, 0.5, 1.0, 0.75, 0.5, 0.0]),
    *(case(f"CosineAnnealingWithWarmup 0.9dur, ssr 0.01, scale_warmup {scale}",
           f"schedule=cosine schedule.end=0.5 {UP}=90%", SHORT, [0.0, 0.5, 1.0, 0.875, 0.75, 0.5], ssr=0.01)
      for scale in (False, True)),
    case("CosineAnnealingWithWarmup 1000ep", RISE, [0, 100_000, 1_000_000], [0.0, 0.1, 1.0], why=WHOLE),
    case("PolynomialWithWarmup 0.9dur", f"schedule=polynomial {UP}=90%",
         [0, 450_000, 900_000, 913_397, 929_289, 1_000_000], [0.0, 0.5, 1.0, 0.75, 0.5, 0.0]),
    *(case(f"PolynomialWithWarmup 0.9dur, ssr 0.01, scale_warmup {scale}",
           f"schedule=polynomial schedule.end=0.5 {UP}=90%", [0, 4_500, 9_000, 9_134, 9_293, 10_000],
           [0.0, 0.5, 1.0, 0.875, 0.75, 0.5], ssr=0.01) for scale in (False, True)),
    case("PolynomialWithWarmup 1000ep", RISE, [0, 100_000, 1_000_000], [0.0, 0.1, 1.0], why=WHOLE),
])  # fmt: skip
