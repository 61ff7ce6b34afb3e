"""Weight decay by a rule: what the optimizer is given, what a step does to a weight, and for which optimizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recorded_rates import Recorded
from torch.optim.optimizer import register_optimizer_step_post_hook

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.optim.factory import build_optimizer
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning import render
from lrkit.planning.optimizer_traits import FAMILIES
from lrkit.planning.plan import Plan
from lrkit.planning.plan_schema import checked

ADAMW = "optimizer=adamw"
HEAD = "param_groups.rules=[{name: head, pattern: '^head', lr_scale: 10}, {name: none, pattern: bias, weight_decay: 0}]"

GIVEN = [
    # words                                                                       given to: head   none  default
    ("optimizer.weight_decay=0.1",                                                          0.1,   0.0,  0.1),
    ("optimizer.weight_decay=1e-4 weight_decay_rule=independent",                           0.01,  0.0,  0.1),
    ("weight_decay_rule=timescale weight_decay_rule.timescale=5000",                        0.02,  0.0,  0.2),
    ("weight_decay_rule=timescale weight_decay_rule.timescale=2ep optimizer.weight_decay=0",
                                                                                            1/.76, 0.0,  1/.076),
    ("optimizer.weight_decay=1e-4 weight_decay_rule=independent batch_scaling=linear batch_scaling.base_batch_size=16",
                                                                                            0.005, 0.0,  0.05),
    ("optimizer.weight_decay=1e-4 weight_decay_rule=independent schedule@coschedule.weight_decay=linear",
                                                                                            0.01,  0.0,  0.1),
]  # fmt: skip


@pytest.mark.parametrize(("words", "head", "none", "default"), GIVEN)
def test_what_the_optimizer_is_given(words: str, head: float, none: float, default: float) -> None:
    plan = configs.plan(configs.compose([ADAMW, HEAD, *words.split()]))
    given = {group.name: plan.weight_decay(group, 0) for group in plan.groups}
    assert given == pytest.approx({"head": head, "none": none, "default": default}, rel=1e-12)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == checked(plan.to_json()) == plan
    if "rule" in words:
        shown = render.render_text(plan)
        assert "weight decay: " in shown and all(f"weight_decay/{name}" in shown for name in given)
        columns = render.render_csv(plan).splitlines()[0]
        assert columns.endswith("weight_decay/head,weight_decay/none,weight_decay/default")


def test_a_plan_of_an_earlier_lrkit_is_coupled() -> None:
    plain = configs.plan(configs.compose([ADAMW])).to_json()
    del plain["weight_decay"]["rule"], plain["weight_decay"]["timescale"], plain["config"]["weight_decay_rule"]
    assert checked(plain).weight_decay_rule.rule == "coupled"


def test_a_step_at_a_rate_of_zero_is_defined() -> None:
    words = [ADAMW, "schedule=linear", "warmup=linear", "warmup.start=0", "optimizer.weight_decay=1e-4"]
    words += ["weight_decay_rule=independent", "param_groups.rules=[{name: frozen, pattern: '^a', lr_scale: 0}]"]
    plan = configs.plan(configs.compose(words))
    frozen, default = plan.groups
    assert (plan.lr(default, 0), plan.weight_decay(default, 0), plan.weight_decay(frozen, 0)) == (0.0, 0.1, 0.0)


REFUSED = [
    # words
    #     the sentence
    ("weight_decay_rule=independent",
        "weight_decay_rule=independent needs an optimizer with decoupled weight decay (adafactor, adam, adamw, lion, "
        "muon, nadam, radam, ranger), and SGD has none."),
    ("weight_decay_rule=timescale optimizer=lamb",
        "weight_decay_rule=timescale needs an optimizer with decoupled weight decay ("),
    ("weight_decay_rule=independent optimizer=adam optimizer.weight_decay=0.1",
        "weight_decay_rule=independent needs decoupled weight decay: set optimizer.decoupled_weight_decay=true, or"),
    ("weight_decay_rule=independent optimizer=lion",
        "weight_decay_rule=independent needs weight decay: optimizer.weight_decay is 0 for Lion."),
    ("weight_decay_rule=independent optimizer=adamw optimizer.weight_decay=1",
        "optimizer.weight_decay must be below 1 with weight_decay_rule=independent: 1 removes the whole weight"),
    ("weight_decay_rule=timescale optimizer=adamw weight_decay_rule.timescale=1",
        "weight_decay_rule.timescale must be longer than one optimizer step. Received: 1"),
    ("weight_decay_rule=timescale optimizer=adamw weight_decay_rule.timescale=null",
        "weight_decay_rule.timescale must be set with weight_decay_rule=timescale: a duration, such as 5ep."),
    ("optimizer=adamw weight_decay_rule.timescale=1",
        "weight_decay_rule.timescale has no effect under weight_decay_rule=coupled: choose weight_decay_rule=timesc"),
    ("optimizer=adamw weight_decay_rule.rule=none",
        "weight_decay_rule.rule is not a rule. Accepted: coupled, independent, timescale. Received: 'none'"),
    ("optimizer=adamw weight_decay_rule=timescale param_groups.rules=[{name:head,pattern:head,weight_decay:0.1}]",
        "weight_decay_rule=timescale and the weight decay 0.1 of the group head cannot be used together: only 0, "),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_what_cannot_be_meant(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.plan(configs.compose(words.split()))
    assert str(caught.value).startswith(sentence)


def test_a_strong_decay_is_told() -> None:
    (note,) = configs.plan(configs.compose([ADAMW, "weight_decay_rule=independent"])).warnings
    assert note.startswith(
        "weight_decay_rule=independent shrinks each weight by 0.01 of it in a step, coupled by 1e-05"
    )


def shrinks_by_the_product(name: str) -> bool:
    """Whether each of some steps without a gradient multiplies the weights by ``1 - lr x weight_decay``."""
    node = yaml.safe_load((configs.CONF_DIR / "optimizer" / f"{name}.yaml").read_text())
    target, lr, weight_decay, steps = node.pop("_target_"), 0.01, 0.3, 5
    node.pop("lr", None)
    if name == "adam":
        node["decoupled_weight_decay"] = True
    torch.manual_seed(0)
    parameter = torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    start = parameter.detach().clone()
    base = {"params": [parameter], "lr": lr, "name": "default"}
    optimizer = build_optimizer(target, {**node, "weight_decay": weight_decay}, [base])
    for _ in range(steps):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return torch.allclose(parameter, start * (1 - lr * weight_decay) ** steps, rtol=1e-10, atol=0)


SHIPPED = sorted(path.stem for path in (configs.CONF_DIR / "optimizer").glob("*.yaml") if path.stem != "custom")


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith("schedule_free")])
def test_the_table_of_decoupled_optimizers_is_true(name: str) -> None:
    target = yaml.safe_load((configs.CONF_DIR / "optimizer" / f"{name}.yaml").read_text())["_target_"]
    # Without momentum an L2 penalty is the same product; with it, it is not.
    assert shrinks_by_the_product(name) == (FAMILIES[target].decoupled is not None or name == "sgd")


def test_a_step_shrinks_the_weights_as_composer_has_it() -> None:
    """composer's DecoupledAdamW: ``weights *= 1 - lr / initial_lr x weight_decay`` before Adam's step."""
    torch.manual_seed(0)
    start, steps, decay = torch.randn(5, dtype=torch.float64), 20, 0.004
    plan = lrkit.plan(
        lr=0.02, steps=steps, warmup="linear", warmup_length=4, options={"weight_decay": decay},
        weight_decay_rule="independent",
    )  # fmt: skip
    ours = start.clone().requires_grad_()
    theirs = start.clone().requires_grad_()
    adamw = torch.optim.AdamW([ours], lr=0.02, weight_decay=decay)
    adam = torch.optim.Adam([theirs], lr=0.02)
    scheduler = PlanScheduler(adamw, plan)
    for t in range(steps):
        if t == 10:
            scheduler.set_gain(0.5)
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        scheduler.step()
        adamw.step()
        lr = plan.lr(plan.groups[0], t, scheduler.total_gain)
        adam.param_groups[0]["lr"] = lr
        with torch.no_grad():
            theirs.mul_(1 - lr / 0.02 * decay)
        adam.step()
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["independent", "timescale"])
def test_shown_is_used_and_resumed(rule: str, tmp_path: Path, recorded: Recorded) -> None:
    words = ["logger=none", "trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1",
             "model.hidden=[8]", ADAMW, "optimizer.weight_decay=1e-4", f"weight_decay_rule={rule}", "guard=off",
             "param_groups=no_decay", "schedule@coschedule.weight_decay=linear"]  # fmt: skip
    header, *rows = render.render_csv(configs.plan(configs.compose(words))).splitlines()
    shown = [
        {name: float(value) for name, value in zip(header.split(","), row.split(","), strict=True)} for row in rows
    ]
    used: list[dict[str, Any]] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if "name" in optimizer.param_groups[0]:
            used.append({group["name"]: group["weight_decay"] for group in optimizer.param_groups})

    handle = register_optimizer_step_post_hook(look)
    try:
        lrkit.train(*words, "horizon.stop_after=4", folder=tmp_path / "a", quiet=True)
        lrkit.train(f"resume.path={tmp_path / 'a'}", "horizon.stop_after=null", quiet=True)
    finally:
        handle.remove()
    assert used == [{name: row[f"weight_decay/{name}"] for name in ("default", "no_decay")} for row in shown]
    with pytest.raises(ConfigError, match=r"^resume\.policy must be set, .* weight decay rule"):
        other = "coupled" if rule == "independent" else "independent"
        lrkit.train(f"resume.path={tmp_path / 'a'}", f"weight_decay_rule={other}", quiet=True)
