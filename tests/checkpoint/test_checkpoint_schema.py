"""Untrusted checkpoints: each part with a wrong format is refused by name, before it is loaded."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import SHORT

from lrkit.base.errors import ConfigError
from lrkit.checkpoint.checkpoint_schema import check_content, check_optimizers
from lrkit.checkpoint.restore_errors import explain_restore_errors
from lrkit.cli.main import main
from lrkit.planning.plan import Plan
from lrkit.planning.plan_schema import checked
from lrkit.schedules.shapes import Restarts

GONE = object()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = [
        "trainer.max_epochs=2",
        "model.hidden=[2]",
        "warmup=linear",
        "warmup.length=1",
        "plateau=reduce",
        "guard=reduce",
    ]
    with chdir(folder):
        assert main(["train", *SHORT[1:], *words, "hydra.run.dir=run"]) == 0
    return folder / "run" / "checkpoints" / "previous.ckpt"


@pytest.fixture(scope="module")
def content(file: Path) -> Any:
    return torch.load(file, weights_only=True)


def put(node: Any, at: str, value: Any) -> Any:
    """A copy of nested containers with another value at a place, or without it."""
    made = copy.deepcopy(node)
    above = made
    *steps, last = [int(step) if step.isdigit() else step for step in at.split("/")]
    for step in steps:
        above = above[step]
    if value is GONE:
        del above[last]
    else:
        above[last] = value
    return made


def test_one_that_lrkit_wrote_is_taken(content: Any) -> None:
    plan = check_content(content)
    assert Plan.from_json(plan).to_json() == json.loads(content["lrkit"]["plan"])


PLANS: list[tuple[str, Any, str]] = [
    ("phases/0/steps", GONE, r"plan\.phases\[0\]\.steps must be there"),
    ("phases/0/steps", -1, r"plan\.phases\[0\]\.steps must be a whole number >= 1\. Received: -1"),
    ("phases/0/steps", 1e300, r"plan\.phases\[0\]\.steps must be a whole number >= 1"),
    ("phases/0/steps", True, r"plan\.phases\[0\]\.steps must be a whole number >= 1\. Received: True"),
    ("phases/0/steps", "5%", r"plan\.phases\[0\]\.steps must be a whole number"),
    ("phases/0/steps", 10**30, r"plan\.phases\[0\]\.steps must be a whole number"),
    ("phases/0/scale", math.nan, r"plan\.phases\[0\]\.scale must be a finite number >= 0\. Received: nan"),
    ("phases/0/scale", math.inf, r"scale must be a finite number"),
    ("phases/0/name", 3, r"plan\.phases\[0\]\.name must be a text"),
    ("phases/0/nope", 3, r"plan\.phases\[0\]\.nope is not a key"),
    ("phases/1/schedule", 3, r"plan\.phases\[1\]\.schedule must be a mapping with name\. Received: 3"),
    ("phases/1/schedule/name", GONE, r"schedule\.name must be there"),
    ("phases/1/schedule/name", "os.system", r"schedule\.name must be a schedule that is loaded\. Received: 'os"),
    ("phases/1/schedule/name", "Schedule", r"plan\.phases\[1\]\.schedule\.start is not a key"),
    ("phases/1/schedule", {"name": "Schedule"}, r"plan must be a plan that a run can follow \(NotImplementedError"),
    ("phases/1/schedule/end", "x", r"plan\.phases\[1\]\.schedule\.end must be a finite number"),
    ("phases/1/schedule/end", -1.0, r"plan\.end must be >= 0"),
    ("phases/1/schedule/nope", 1, r"plan\.phases\[1\]\.schedule\.nope is not a key"),
    ("phases/1/schedule/length", "5%", r"plan\.phases\[1\]\.schedule\.length must be a whole number"),
    ("phases/1/schedule", {"name": "Cyclic", "up": "10%"}, r"schedule\.up must be a whole number >= 1"),
    ("phases/1/schedule", {"name": "Step", "every": 0}, r"schedule\.every must be a whole number >= 1"),
    ("phases/1/schedule", {"name": "Cyclic", "up": 9, "mode": "exp_range"}, r"can follow \(ValueError"),
    ("phases/1/schedule", {"name": "Excerpt", "shape": 3, "of": 2, "first": 0, "last": 1}, r"a run can follow"),
    ("phases/1/schedule", {"name": "Excerpt", "shape": {"name": "Cosine"}, "of": 2, "first": 1, "last": 1}, r"Zero"),
    ("phases/1/schedule", {"name": "Excerpt", "shape": {"name": "Restarts", "period": 1}, "of": 2**52, "first": 0,
                           "last": 2**52}, r"period must make at most 1000000 turns"),
    ("phases/1/schedule", {"name": "Piecewise", "phases": []}, r"plan\.phases must be a list of schedules"),
    ("phases", [], r"plan\.phases must be a list of 1 to 1000 values"),
    ("phases", {}, r"plan\.phases must be a list of 1 to 1000 values"),
    ("phases", None, r"plan\.phases must be a list"),
    ("horizon/steps", 0, r"plan\.horizon\.steps must be a whole number >= 1"),
    ("horizon/steps", "a", r"plan\.horizon\.steps must be a whole number"),
    ("horizon", [], r"plan\.horizon must be a mapping with steps"),
    ("horizon/batch_size", 1.5, r"plan\.horizon\.batch_size must be a whole number >= 1\. Received: 1\.5"),
    ("horizon/sources", None, r"plan\.horizon\.sources must be a mapping"),
    ("base_lr", math.inf, r"plan\.base_lr must be a finite number >= 0\. Received: inf"),
    ("base_lr", 10**400, r"plan\.base_lr must be a finite number >= 0"),
    ("base_lr", "0.1", r"plan\.base_lr must be a finite number >= 0\. Received: '0.1'"),
    ("base_lr", None, r"plan\.base_lr must be a finite number"),
    ("batch_scale/factor", -2, r"plan\.batch_scale\.factor must be a finite number >= 0"),
    ("batch_scale/rule", "nope", r"plan\.batch_scale\.rule must be one of none, linear, sqrt"),
    ("batch_scale/nope", 1, r"plan\.batch_scale\.nope is not a key"),
    ("groups/0/lr_scale", "x", r"plan\.groups\[0\]\.lr_scale must be a finite number"),
    ("groups/0/name", GONE, r"plan\.groups\[0\]\.name must be there"),
    ("groups", None, r"plan\.groups must be a list"),
    ("plateau/factor", 7, r"plan\.factor must be in \(0, 1\)"),
    ("plateau", {"nope": 1}, r"plan must be a plan that a run can follow \(TypeError"),
    ("guard/window", "x", r"plan\.window must be a whole number"),
    ("found", [1], r"plan\.found must be a list of 2 values"),
    ("weight_decay", {"base": 0.0}, r"plan\.weight_decay\.phases must be there"),
    ("warnings", [3], r"plan\.warnings\[0\] must be a text"),
    ("warnings", ["x" * 10**5], r"plan\.warnings\[0\] must be a text of at most 65536 characters"),
    ("tracks", {"a": 3}, r"plan\.tracks\.a must be a mapping"),
    ("tracks", [], r"plan\.tracks must be a mapping"),
    ("every", 0, r"plan\.every must be a whole number >= 1"),
    ("nope", 1, r"plan\.nope is not a key"),
    ("config", GONE, r"plan\.config must be there"),
    ("config", [], r"plan\.config must be a mapping"),
    ("config/optimizer", None, r"plan\.config\.optimizer must be a mapping"),
    ("config/trainer", 3, r"plan\.config\.trainer must be a mapping"),
    ("config/schedule", [1], r"plan\.config\.schedule must be a mapping"),
    ("config/seed", GONE, r"plan\.config\.seed must be there"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "value", "said"), PLANS, ids=[f"{at} {str(value)[:20]}" for at, value, _ in PLANS])
def test_a_plan_that_cannot_be_followed_is_refused(at: str, value: Any, said: str, content: Any) -> None:
    plan = json.loads(content["lrkit"]["plan"])
    checked(plan)
    with pytest.raises(ConfigError, match=f"^{said}" if said.startswith("plan") else said):
        checked(put(plan, at, value))


def test_nor_is_one_with_more_than_anybody_has(content: Any) -> None:
    plan = json.loads(content["lrkit"]["plan"])
    schedule = plan["phases"][1]["schedule"]
    for _ in range(80):
        schedule = {"name": "Excerpt", "shape": schedule, "of": 2, "first": 0, "last": 1, "length": None}
    with pytest.raises(ConfigError, match="schedules nested deeper than 64"):
        checked(put(plan, "phases/1/schedule", schedule))
    with pytest.raises(ConfigError, match="must not have more than 1000000 rates"):
        checked({**plan, "phases": plan["phases"][-1:] * 1000, "groups": plan["groups"] * 2000})
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested deeper than 64"):
        checked(put(plan, "config/deep", deep))
    with pytest.raises(ConfigError, match="more than 100000 values"):
        checked(put(plan, "config/wide", [1] * 10**5))


def test_restarts_that_hardly_grow_are_found_at_once() -> None:
    slow = Restarts(period=1, growth=1.0 + 1e-9)
    assert slow(10**7, 2**40) == 1.0
    assert Restarts(period=10, growth=1e200)(50, 100) == Restarts(period=10, growth=1e9)(50, 100)


STATES: list[tuple[str, Any, str]] = [
    ("lrkit", GONE, r"checkpoint\.lrkit must be there"),
    ("lrkit/plan", "{", r"lrkit\.plan must be JSON"),
    ("lrkit/plan", "[" * 100_000, r"lrkit\.plan must be JSON"),
    ("lrkit/plan", "3", r"lrkit\.plan must be a mapping"),
    ("lrkit/plan", 3, r"checkpoint\.lrkit\.plan must be a text"),
    ("lrkit/step", GONE, r"lrkit\.step must be there"),
    ("lrkit/step", -1, r"lrkit\.step must be a whole number >= 0\. Received: -1"),
    ("lrkit/step", "7", r"lrkit\.step must be a whole number"),
    ("lrkit/step", torch.tensor(3), r"lrkit\.step must be a whole number .* a Tensor of shape \(\)"),
    ("lrkit/tracks", {"a": 3}, r"lrkit\.tracks must be those of the plan: none\. Received: 'a'"),
    ("lrkit/monitor", 3, r"lrkit\.monitor must be a text"),
    ("lrkit/mid_epoch", 1, r"lrkit\.mid_epoch must be true or false"),
    ("lrkit/nope", 1, r"lrkit\.nope is not a key"),
    ("lrkit/reloaded", "x", r"lrkit\.reloaded must be a whole number"),
    ("lrkit/loader", [1], r"lrkit\.loader must be a list of 3 values"),
    ("lrkit/epoch_begin", {"before": 3}, r"lrkit\.epoch_begin\.(first|before)"),
    ("lrkit/generators", {"a": ("torch", 3)}, r"lrkit\.generators\.a\[1\] must be a short tensor of bytes"),
    ("lrkit/generators", {"a": ("os", 3)}, r"lrkit\.generators\.a\[0\] must be one of"),
    ("lrkit/rng", None, r"lrkit\.rng must be a mapping"),
    ("lrkit/rng/torch", torch.zeros(5056, dtype=torch.uint8), r"lrkit\.rng\.torch must be a state of torch's"),
    ("lrkit/rng/torch", torch.zeros(1).expand(10**12), r"lrkit\.rng\.torch must be a short tensor of bytes"),
    ("lrkit/rng/torch", None, r"lrkit\.rng\.torch must be a short tensor of bytes"),
    ("lrkit/rng/cuda", [3], r"lrkit\.rng\.cuda\[0\] must be a short tensor of bytes"),
    ("lrkit/rng/numpy/2", 10**6, r"lrkit\.rng\.numpy\[2\] must be a whole number in \[0, 624\]"),
    ("lrkit/rng/numpy/1", [1], r"lrkit\.rng\.numpy\[1\] must be a list of 624 values"),
    ("lrkit/rng/numpy/0", "nope", r"lrkit\.rng\.numpy must be a state of numpy's"),
    ("lrkit/rng/python/1", [0] * 624, r"lrkit\.rng\.python\[1\] must be a list of 625 values"),
    ("lrkit/rng/python/1/3", -1, r"lrkit\.rng\.python\[1\]\[3\] must be a whole number"),
    ("lrkit/rng/python/0", 9, r"lrkit\.rng\.python must be a state of Python's"),
    ("epoch", "x", r"epoch must be a whole number"),
    ("global_step", GONE, r"global_step must be there"),
    ("state_dict", [], r"state_dict must be a mapping"),
    ("optimizer_states", {}, r"optimizer_states must be a list"),
    ("optimizer_states/0", 3, r"optimizer_states\[0\] must be a mapping"),
    ("optimizer_states/0/state", [], r"optimizer_states\[0\]\.state must be a mapping"),
    ("optimizer_states/0/state/0", 3, r"optimizer_states\[0\]\.state\.0 must be a mapping"),
    ("optimizer_states/0/param_groups", [], r"optimizer_states\[0\]\.param_groups must be a list"),
    ("optimizer_states/0/param_groups/0/params", 3, r"param_groups\[0\]\.params must be a list"),
    ("optimizer_states/0/param_groups/0/params/0", [], r"param_groups\[0\]\.params\[0\] must be a text"),
    ("lr_schedulers", [], r"lr_schedulers must be a list"),
    ("lr_schedulers/0", 3, r"lr_schedulers\[0\] must be a mapping"),
    ("lr_schedulers/0/applied", "x", r"lr_schedulers\[0\]\.applied must be a whole number"),
    ("lr_schedulers/0/gain", math.nan, r"lr_schedulers\[0\]\.gain must be a finite number"),
    ("lr_schedulers/0/plateau/bad", -1, r"lr_schedulers\[0\]\.plateau\.bad must be a whole number"),
    ("lr_schedulers/0/reduction/over", 1.5, r"lr_schedulers\[0\]\.reduction\.over must be a whole number"),
    ("lr_schedulers/0/joined", {"a": [1]}, r"lr_schedulers\[0\]\.joined\.a must be a list of 2 to 3 values"),
    ("loops", GONE, r"loops must be there"),
    ("loops/fit_loop", GONE, r"loops\.fit_loop must be there"),
    ("loops/fit_loop/epoch_progress/total/ready", -1, r"loops\.fit_loop\.epoch_progress\.total\.ready must be a whole"),
    ("loops/fit_loop/epoch_progress/current", 3, r"loops\.fit_loop\.epoch_progress\.current must be a mapping"),
    ("callbacks", [], r"callbacks must be a mapping"),
    ("callbacks/AsOne/Trace/rates", 3, r"callbacks\.AsOne\.Trace\.rates must be a list"),
    ("callbacks/AsOne/Trace/validated", [[], []][:1], r"callbacks\.AsOne\.Trace\.validated must be a list of 2"),
    ("callbacks/AsOne/Trace/rates/1", GONE, r"AsOne\.Trace must have lists of one length"),
    ("callbacks/AsOne/DivergenceWatch/levels/recent", ["x"], r"DivergenceWatch\.levels\.recent\[0\] must be a finite"),
    ("callbacks/AsOne/DivergenceWatch/above", None, r"DivergenceWatch\.above must be a whole number"),
    ("callbacks/AsOne/StepCount/left_out", 0.5, r"StepCount\.left_out must be a whole number"),
    ("callbacks/AsOne/Results/at_best", {"a": "x"}, r"Results\.at_best\.a must be a number"),
    ("callbacks/Kept best/best_model_path", "webhdfs://a/b", r"best_model_path must be a whole path of this machine"),
    ("callbacks/Kept best/kth_best_model_path", "/a/../b", r"kth_best_model_path must be a whole path"),
    ("callbacks/Kept best/best_k_models", {"a://b": 1}, r"best_k_models must be a whole path"),
    ("callbacks/Kept best/kth_value", torch.zeros(3), r"kth_value must be a number"),
    ("lrkit.modes/frozen", GONE, r"lrkit\.modes\.frozen must be there"),
    ("lrkit.modes/eval", [3], r"lrkit\.modes\.eval\[0\] must be a text"),
    ("lrkit.modes/attributes", {"": {"a": "x"}}, r"lrkit\.modes\.attributes\.\.a must be a number"),
    ("lrkit.training_weights", {"a": 3}, r"lrkit\.training_weights\.a must be a tensor\. Received: 3"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "value", "said"), STATES, ids=[f"{at} {str(value)[:20]}" for at, value, _ in STATES])
def test_a_state_that_cannot_be_taken_up_is_refused(at: str, value: Any, said: str, content: Any) -> None:
    with pytest.raises(ConfigError, match=said):
        check_content(put(content, at, value))


def test_a_callback_that_writes_to_another_machine_may_have_written_there(content: Any) -> None:
    state = {"dirpath": "s3://a/b", "best_model_path": "s3://a/b/c.ckpt", "best_k_models": {"s3://a/b/c.ckpt": 1}}
    check_content(put(content, "callbacks/ModelCheckpoint", state))
    with pytest.raises(ConfigError, match=r"callbacks\.ModelCheckpoint\.best_model_path must be a whole path"):
        check_content(put(content, "callbacks/ModelCheckpoint", {**state, "best_model_path": "webhdfs://a/b"}))


def test_it_is_told_in_one_line_that_names_the_file(
    file: Path, content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(put(content, "lr_schedulers/0/gain", "x"), tmp_path / "a.ckpt")
    with chdir(tmp_path):
        assert main(["train", "resume.path=a.ckpt", "resume.policy=restore"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = "in a.ckpt, lr_schedulers[0].gain must be a finite number >= 0. Received: 'x'."
    assert line == f"lrkit: resume.path must be a checkpoint in the format of lrkit; {said}"


def of_an_optimizer(change: Callable[[Any], Any]) -> None:
    weights = [torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(4))]
    adam = torch.optim.Adam([{"params": weights[:1]}, {"params": weights[1:]}])
    for each in weights:
        each.grad = torch.ones_like(each)
    adam.step()
    state = copy.deepcopy(adam.state_dict())
    check_optimizers([state], [adam])
    change(state)
    check_optimizers([state], [adam])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(2, 3)), r"state\.0\.exp_avg must have the shape .*\(3, 2"),
        (lambda s: s["state"][1].update(exp_avg_sq=torch.zeros(1)), r"state\.1\.exp_avg_sq must have the shape"),
        (lambda s: s["state"][1].update(exp_avg=3), r"state\.1\.exp_avg must be a tensor"),
        (lambda s: s["state"][1].update(exp_avg=torch.zeros(4).to_sparse()), r"state\.1\.exp_avg must have the shape"),
        (lambda s: s["state"][1].update(step=torch.zeros(3)), r"state\.1\.step must be a finite number"),
        (lambda s: s["param_groups"].pop(), r"param_groups must have groups of \[1, 1\] parameters\. Received: \[1\]"),
        (lambda s: s["param_groups"][0]["params"].append(7), r"groups of \[1, 1\] parameters\. Received: \[2, 1\]"),
        (lambda s: s["param_groups"][0].update(betas=(0.9,)), r"param_groups\[0\]\.betas must be a list of 2 values"),
        (lambda s: s["param_groups"][0].update(eps="x"), r"param_groups\[0\]\.eps must be a finite number"),
        (lambda s: s["param_groups"][1].pop("eps"), r"param_groups\[1\]\.eps must be there"),
        (lambda s: s["param_groups"][1].update(amsgrad=3), r"param_groups\[1\]\.amsgrad must be true or false"),
    ],
)  # fmt: skip
def test_the_state_of_another_optimizer_is_refused(change: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        of_an_optimizer(change)


def test_what_lightning_cannot_take_up_is_told_by_its_name(tmp_path: Path) -> None:
    said = r"^resume\.path contains states of callbacks that cannot be restored: KeyError: 'a'"
    with pytest.raises(ConfigError, match=said), explain_restore_errors("states of callbacks", tmp_path):
        _ = {}["a"]  # type: ignore[var-annotated]
