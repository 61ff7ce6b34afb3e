"""Every optimizer against its paper: 200 steps in float64, under warmup and cosine, with and without weight decay.

Each reference is the algorithm as printed in its source, for one tensor at a time with plain operations; ``lr`` is the
plan's rate of the step. The problem is a quadratic function of a matrix, a vector and a number. Most rows of the matrix
have no gradient in most steps, as in an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lrkit.optim.factory import build_optimizer, switch_mode
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.optimizer_traits import traits_of
from lrkit.planning.plan import GroupRate
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Cosine, Linear

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
STEPS = 200
SHAPES = ((8, 4), (4,), ())

State = dict[str, Any]
Step = Callable[[Tensor, Tensor, State, int, float, Any], Tensor]


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def gradient(i: int, x: Tensor, t: int) -> Tensor:
    """Of a quadratic around 0.3; of the matrix, rows take turns."""
    slope = (1.0 + 0.5 * i) * (x - 0.3)
    if x.ndim == 2:
        active = torch.tensor([(7 * row + 3 * t) % 8 < 2 or row == 0 for row in range(len(x))])
        slope = slope * active[:, None]
    return slope


def mean(old: Tensor, new: Tensor, kept: float) -> Tensor:
    return kept * old + (1 - kept) * new


def zeros(s: State, x: Tensor, *names: str) -> None:
    for name in names:
        s.setdefault(name, torch.zeros_like(x))


def sgd(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    return x - lr * (g + o.weight_decay * x)


def momentum(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Polyak 1964; the rate outside of the buffer, as torch documents it."""
    g = g + o.weight_decay * x
    s["b"] = o.momentum * s.get("b", 0.0) + g
    return x - lr * s["b"]


def adagrad(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Duchi et al. 2011, figure 1, the diagonal form."""
    g = g + o.weight_decay * x
    s["v"] = s.get("v", o.initial_accumulator_value) + g * g
    return x - lr * g / (s["v"].sqrt() + o.eps)


def rmsprop(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Hinton 2012, lecture 6e."""
    zeros(s, x, "v")
    g = g + o.weight_decay * x
    s["v"] = mean(s["v"], g * g, o.alpha)
    return x - lr * g / (s["v"].sqrt() + o.eps)


def adams(s: State, x: Tensor, g: Tensor, t: int, o: Any) -> tuple[Tensor, Tensor, float, float]:
    zeros(s, x, "m", "v")
    s["m"], s["v"] = mean(s["m"], g, o.betas[0]), mean(s["v"], g * g, o.betas[1])
    return s["m"], s["v"], 1 - o.betas[0] ** t, 1 - o.betas[1] ** t


def adam(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Kingma and Ba 2015, Algorithm 1; L2."""
    m, v, c1, c2 = adams(s, x, g + o.weight_decay * x, t, o)
    return x - lr * (m / c1) / ((v / c2).sqrt() + o.eps)


def adamw(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Loshchilov and Hutter 2019, Algorithm 2."""
    m, v, c1, c2 = adams(s, x, g, t, o)
    return x - lr * (m / c1 / ((v / c2).sqrt() + o.eps) + o.weight_decay * x)


def nadam(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Dozat 2016, Algorithm 8, with its schedule of the momentum."""
    m, v, _, c2 = adams(s, x, g, t, o)
    now, following = (o.betas[0] * (1 - 0.5 * 0.96 ** (k * o.momentum_decay)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * now
    ahead = (1 - now) * g / (1 - s["product"]) + following * m / (1 - s["product"] * following)
    return (1 - lr * o.weight_decay) * x - lr * ahead / ((v / c2).sqrt() + o.eps)


def radam(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Liu et al. 2020, Algorithm 2; decay decoupled."""
    m, v, c1, c2 = adams(s, x, g, t, o)
    x = (1 - lr * o.weight_decay) * x
    final = 2 / (1 - o.betas[1]) - 1
    length = final - 2 * t * o.betas[1] ** t / c2
    if length <= 5:
        return x - lr * m / c1
    numerator, denominator = (length - 4) * (length - 2) * final, (final - 4) * (final - 2) * length
    return x - lr * m / c1 * math.sqrt(numerator / denominator) * math.sqrt(c2) / (v.sqrt() + o.eps)


def adafactor(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Shazeer and Stern 2018, Algorithms 4 and 5."""
    tiny, least = o.eps[0] or torch.finfo(x.dtype).eps, o.eps[1]
    new = t**o.beta2_decay
    size = max(least, float((x * x).mean().sqrt())) * min(lr, 1 / math.sqrt(t))
    x = (1 - lr * o.weight_decay) * x
    if x.ndim == 2:
        rows, columns = (g * g).mean(1, keepdim=True), (g * g).mean(0, keepdim=True)
        s["rows"] = mean(s.get("rows", torch.zeros_like(rows)), rows, 1 - new)
        s["columns"] = mean(s.get("columns", torch.zeros_like(columns)), columns, 1 - new)
        v = s["rows"] @ s["columns"] / s["rows"].mean().clamp(min=tiny)
    else:
        zeros(s, x, "v")
        v = s["v"] = mean(s["v"], g * g, 1 - new)
    update = g / v.clamp(min=tiny * tiny).sqrt()
    return x - size * update / max(1.0, float((update * update).mean().sqrt()) / o.d)


def lion(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Chen et al. 2023, Algorithm 2."""
    zeros(s, x, "m")
    direction = mean(s["m"], g, o.betas[0]).sign()
    s["m"] = mean(s["m"], g, o.betas[1])
    return x - lr * (direction + o.weight_decay * x)


def lars(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """You et al. 2017, equation 6, with the global rate outside of the momentum; vectors are SGD without decay."""
    if x.ndim > 1:
        g = (g + o.weight_decay * x) * o.trust_coefficient * x.norm() / (g.norm() + o.weight_decay * x.norm())
    s["b"] = o.momentum * s.get("b", 0.0) + g
    return x - lr * s["b"]


def lamb(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """You et al. 2020, Algorithm 2."""
    m, v, c1, c2 = adams(s, x, g, t, o)
    r = m / c1 / ((v / c2).sqrt() + o.eps) + o.weight_decay * x
    return x - lr * x.norm() / r.norm() * r


def adabound(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Luo et al. 2019, Algorithm 2, and the bounds of section 5; L2, as in their code."""
    m, v, c1, c2 = adams(s, x, g + o.weight_decay * x, t, o)
    final = o.final_lr * lr / o.final_lr_at
    low, high = final * (1 - 1 / (o.gamma * t + 1)), final * (1 + 1 / (o.gamma * t))
    return x - (lr * math.sqrt(c2) / c1 / (v.sqrt() + o.eps)).clamp(low, high) * m


def ranger(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Wright 2019: RAdam (Liu et al. 2020), gradients centralized (Yong et al. 2020), Lookahead (Zhang et al. 2019)."""
    slow = s.setdefault("slow", x)
    if g.ndim > 1:
        g = g - g.mean(dim=tuple(range(1, g.ndim)), keepdim=True)
    m, v, c1, c2 = adams(s, x, g, t, o)
    x = (1 - lr * o.weight_decay) * x
    final = 2 / (1 - o.betas[1]) - 1
    length = final - 2 * t * o.betas[1] ** t / c2
    if length >= 5:
        ratio = (length - 4) * (length - 2) * final / ((final - 4) * (final - 2) * length)
        x = x - lr * math.sqrt(c2 * ratio) / c1 * m / (v.sqrt() + o.eps)
    else:
        x = x - lr / c1 * m
    if t % o.k == 0:
        x = s["slow"] = slow + o.alpha * (x - slow)
    return x


def muon(x: Tensor, g: Tensor, s: State, t: int, lr: float, o: Any) -> Tensor:
    """Jordan et al. 2024, with the scale of Liu et al. 2025, equation 4; AdamW for parameters that are not matrices."""
    if x.ndim != 2:
        zeros(s, x, "m", "v")
        s["m"], s["v"] = mean(s["m"], g, o.adamw_betas[0]), mean(s["v"], g * g, o.adamw_betas[1])
        m, v = s["m"] / (1 - o.adamw_betas[0] ** t), s["v"] / (1 - o.adamw_betas[1] ** t)
        return x - lr * (m / (v.sqrt() + o.adamw_eps) + o.weight_decay * x)
    zeros(s, x, "b")
    s["b"] = mean(s["b"], g, o.momentum)
    y = mean(s["b"], g, o.momentum)
    y = y / max(float(y.norm()), 1e-7)
    for _ in range(o.ns_steps):
        gram = y.T @ y
        y = 3.4445 * y + y @ (-4.7750 * gram + 2.0315 * gram @ gram)
    return x - lr * (0.2 * math.sqrt(max(x.shape)) * y + o.weight_decay * x)


#: For each option: its reference, and the largest difference that is rounding.
REFERENCES: dict[str, tuple[Step, float]] = {
    "sgd": (sgd, 1e-14),
    "momentum": (momentum, 1e-13),
    "adagrad": (adagrad, 1e-14),
    "rmsprop": (rmsprop, 1e-13),
    "adam": (adam, 1e-13),
    "adamw": (adamw, 1e-13),
    "nadam": (nadam, 1e-10),  # its product of momentums is in float32
    "radam": (radam, 1e-13),
    "adafactor": (adafactor, 1e-13),
    "lion": (lion, 1e-14),
    "lars": (lars, 1e-13),
    "lamb": (lamb, 1e-13),
    "adabound": (adabound, 1e-13),
    "ranger": (ranger, 1e-13),
    "muon": (muon, 1e-5),  # its iteration is in float32
}


class Free:
    """Schedule-free (Defazio et al. 2024, Algorithm 1).

    ``z`` takes the steps, ``x`` is their average, and gradients are those at ``y`` between the two. The average weighs
    a step by the square of the largest rate so far (section 4.4).
    """

    def __init__(self, adaptive: bool) -> None:
        self.adaptive = adaptive

    def run(self, o: Any, rates: list[float]) -> tuple[list[Tensor], list[Tensor]]:
        beta = o.betas[0] if self.adaptive else o.momentum
        x, z = start(), start()
        squares = [torch.zeros_like(each) for each in x]
        weights, largest = 0.0, 0.0
        for t, lr in enumerate(rates, 1):
            y = [(1 - beta) * b + beta * a for a, b in zip(x, z, strict=True)]
            largest = max(largest, lr)
            weights += largest**o.weight_lr_power
            share = largest**o.weight_lr_power / weights if weights else 0.0
            for i, at in enumerate(y):
                g = gradient(i, at, t - 1)
                if self.adaptive:
                    squares[i] = mean(squares[i], g * g, o.betas[1])
                    g = g / ((squares[i] / (1 - o.betas[1] ** t)).sqrt() + o.eps)
                z[i] = z[i] - lr * (g + o.weight_decay * at)
                x[i] = (1 - share) * x[i] + share * z[i]
        return x, [(1 - beta) * b + beta * a for a, b in zip(x, z, strict=True)]


def prodigy(o: Any, rates: list[float]) -> list[Tensor]:
    """Mishchenko and Defazio 2023, Algorithm 4 (the form with Adam), as their code has it."""
    xs, d, d_max, numerator = start(), o.d0, o.d0, 0.0
    first, keep = start(), math.sqrt(o.betas[1])
    m, v, s = ([torch.zeros_like(x) for x in xs] for _ in range(3))
    for t, lr in enumerate(rates):
        numerator *= keep
        for i, x in enumerate(xs):
            g = gradient(i, x, t)
            numerator += d / o.d0 * d * lr * float((g * (first[i] - x)).sum())
            m[i], v[i] = o.betas[0] * m[i] + d * (1 - o.betas[0]) * g, mean(v[i], d * d * g * g, o.betas[1])
            s[i] = keep * s[i] + d / o.d0 * d * lr * g
        below = sum(float(each.abs().sum()) for each in s)
        used = d * lr
        if below:
            guess = o.d_coef * numerator / below
            d = d_max = max(d_max, guess)
            xs = [(1 - used * o.weight_decay) * x - used * m[i] / (v[i].sqrt() + d * o.eps) for i, x in enumerate(xs)]
    return xs


def options_of(name: str, weight_decay: float) -> tuple[str, Any]:
    node = OmegaConf.load(CONF / f"{name}.yaml")
    node.weight_decay = weight_decay
    return str(node._target_), node


def trained(name: str, weight_decay: float, scales: tuple[float, ...] = (1.0,), steps: int = STEPS) -> Iterator[Any]:
    """The tensors after each step of lrkit's optimizer, for groups of these factors, each with the same tensors."""
    target, node = options_of(name, weight_decay)
    parameters = [[nn.Parameter(x) for x in start()] for _ in scales]
    given: Any = OmegaConf.to_container(node)
    lr = given.pop("lr")
    plan = resolve_plan(lr=lr, schedule=Cosine(), warmup=Linear(start=0.1, length=10), horizon=Horizon(steps))
    groups = [
        {"params": params, "name": f"g{i}", "lr": plan.base(scale)}
        for i, (params, scale) in enumerate(zip(parameters, scales, strict=True))
    ]
    optimizer = build_optimizer(target, {k: v for k, v in given.items() if k != "_target_"}, groups)
    plan = plan.with_groups([GroupRate(f"g{i}", scale) for i, scale in enumerate(scales)])
    scheduler = PlanScheduler(optimizer, plan)
    switch_mode(optimizer, training=True)
    for t in range(steps):
        for params in parameters:
            for i, p in enumerate(params):
                p.grad = gradient(i, p.detach(), t)
        optimizer.step()
        scheduler.step()
        yield [[p.detach().clone() for p in params] for params in parameters], plan, optimizer, parameters


def furthest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def test_every_option_is_held_against_a_paper() -> None:
    elsewhere = {"prodigy", "schedule_free_sgd", "schedule_free_adamw", "custom"}
    assert {path.stem for path in CONF.glob("*.yaml")} == set(REFERENCES) | elsewhere


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", REFERENCES)
def test_it_is_what_the_paper_says(name: str, weight_decay: float) -> None:
    step, rounding = REFERENCES[name]
    _, o = options_of(name, weight_decay)
    xs, states = start(), [State() for _ in SHAPES]
    for t, ((ours,), plan, *_) in enumerate(trained(name, weight_decay)):
        lr = plan.lr(plan.groups[0], t)
        xs = [step(x, gradient(i, x, t), states[i], t + 1, lr, o) for i, x in enumerate(xs)]
        assert furthest(ours, xs) <= rounding, t
    assert furthest(xs, start()) > 0.01  # it has gone somewhere


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_schedule_free_is_what_the_paper_says(name: str, weight_decay: float) -> None:
    _, o = options_of(name, weight_decay)
    *_, ((ours,), plan, optimizer, parameters) = trained(name, weight_decay)
    rates = [plan.lr(plan.groups[0], t) for t in range(STEPS)]
    averages, points = Free("betas" in o).run(o, rates)
    assert furthest(ours, points) < 1e-12
    switch_mode(optimizer, training=False)
    assert furthest([p.detach() for p in parameters[0]], averages) < 1e-12


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_prodigy_is_what_the_paper_says(weight_decay: float) -> None:
    _, o = options_of("prodigy", weight_decay)
    *_, ((ours,), plan, *_) = trained("prodigy", weight_decay)
    theirs = prodigy(o, [plan.lr(plan.groups[0], t) for t in range(STEPS)])
    assert furthest(ours, theirs) < 1e-6  # its sums are in float32
    assert furthest(theirs, start()) > 0.01


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom"))
def test_the_factor_of_a_group_is_a_factor_of_its_first_step(name: str) -> None:
    known = traits_of(options_of(name, 0.0)[0])
    assert known is not None
    if known.one_rate:
        return
    moved = []
    for groups, *_ in trained(name, 0.0, (1.0, 0.1, 0.0), steps=200):
        moved = [furthest(group, start()) for group in groups]
        break
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-6)
    assert moved[2] == 0.0


def test_adabound_follows_the_rate_to_the_end() -> None:
    """In its authors' code all groups end at ``final_lr``, for any factor of the group and any ``optimizer.lr``."""
    ratios = []
    before: Any = None
    for t, (groups, *_) in enumerate(trained("adabound", 0.0, (1.0, 1e-4))):
        if before is not None and t > 150:
            ratios.append(furthest(groups[1], before[1]) / furthest(groups[0], before[0]))
        before = groups
    assert max(ratios) < 0.1  # gradients differ by then, for the one has moved and the other not


def test_lamb_moves_a_tensor_by_the_rate_of_its_size_from_the_first_step() -> None:
    sizes = start()
    for t, ((ours,), plan, *_) in enumerate(trained("lamb", 0.0)):
        for before, now in zip(sizes, ours, strict=True):
            assert float((now - before).norm() / before.norm()) == pytest.approx(plan.lr(plan.groups[0], t), rel=1e-9)
        sizes = ours
        if t == 30:
            break
