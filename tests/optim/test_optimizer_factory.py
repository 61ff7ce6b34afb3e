"""Optimizers: every option trains, follows its rate and resumes; every wrong option is refused by name."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluating import evaluating
from omegaconf import OmegaConf
from torch import Tensor, nn

from lrkit.base.errors import ConfigError
from lrkit.optim.factory import build_optimizer, resolve_optimizer, switch_mode
from lrkit.optim.muon import Muon, orthogonalize
from lrkit.optim.param_groups import split_parameters
from lrkit.planning.optimizer_traits import traits_of

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
ALL = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom")


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def node(name: str) -> tuple[str, float, dict[str, Any]]:
    """Class, learning rate and the other options of an option."""
    options: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return options.pop("_target_"), options.pop("lr"), options


def optimizer_of(model: nn.Module, name: str, rules: Any = None, **changes: Any) -> torch.optim.Optimizer:
    target, lr, options = node(name)
    optimizer = build_optimizer(
        target, options | changes, [group.options(lr * group.lr_scale) for group in split_parameters(model, rules)]
    )
    switch_mode(optimizer, training=True)
    return optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def saved(state: dict[str, Any]) -> Any:
    """Through a file that holds nothing but tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


HEAD = [{"name": "head", "pattern": r"^2\."}]


@pytest.mark.parametrize("name", ALL)
class TestEveryOption:
    def test_trains_every_parameter(self, name: str) -> None:
        model = mlp()
        before = weights(model)
        train(model, optimizer_of(model, name), 3)
        for key, value in weights(model).items():
            assert value.isfinite().all(), key
            assert not torch.equal(value, before[key]), key

    def test_goes_downhill_from_the_first_step(self, name: str) -> None:
        # pytorch_optimizer 4.1's Ranger climbs for 5 steps, unless told to degenerate to SGD there.
        model = mlp()
        optimizer = optimizer_of(model, name)
        for _ in range(5):  # the 6th is where Ranger looks back
            before = weights(model)
            train(model, optimizer, 1)
            slope = sum(
                float((parameter.grad * (parameter.detach() - before[key])).sum())
                for key, parameter in model.named_parameters()
                if parameter.grad is not None
            )
            assert slope < 0

    def test_moves_nothing_at_rate_zero(self, name: str) -> None:
        model = mlp()
        optimizer = optimizer_of(model, name)
        known = traits_of(node(name)[0])
        assert known is not None
        if not known.schedule_free:  # whose average still moves towards the weights
            train(model, optimizer, 2)
        before = weights(model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        train(model, optimizer, 1)
        for key, value in weights(model).items():
            assert torch.equal(value, before[key]), key

    def test_uses_the_rate_of_each_group(self, name: str) -> None:
        model = mlp()
        optimizer = optimizer_of(model, name, HEAD)
        assert [group["name"] for group in optimizer.param_groups] == ["head", "default"]
        known = traits_of(node(name)[0])
        assert known is not None
        before = weights(model)
        optimizer.param_groups[1]["lr"] = 0.0
        train(model, optimizer, 2)
        still = {key for key, value in weights(model).items() if torch.equal(value, before[key])}
        assert still == (set() if known.one_rate else {"0.weight", "0.bias"})

    def test_a_larger_rate_moves_further(self, name: str) -> None:
        distances = []
        for factor in (1, 4):
            model = mlp()
            optimizer = optimizer_of(model, name)
            before = weights(model)["0.weight"]
            for group in optimizer.param_groups:
                group["lr"] *= factor
            train(model, optimizer, 1)
            distances.append((weights(model)["0.weight"] - before).norm().item())
        assert distances[1] == pytest.approx(4 * distances[0], rel=0.02)

    def test_continues_bit_for_bit_from_its_state_dict(self, name: str) -> None:
        model = mlp()
        optimizer = optimizer_of(model, name, {"rules": HEAD, "no_decay": True})
        train(model, optimizer, 4)
        state = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        train(model, optimizer, 4)

        again = mlp(seed=1)
        again.load_state_dict(state["model"])
        resumed = optimizer_of(again, name, {"rules": HEAD, "no_decay": True})
        resumed.load_state_dict(state["optimizer"])
        train(again, resumed, 4)
        for key, value in weights(model).items():
            assert torch.equal(value, weights(again)[key]), key
        assert [g["name"] for g in resumed.param_groups] == [g["name"] for g in optimizer.param_groups]

    def test_can_be_pickled(self, name: str) -> None:
        copy = pickle.loads(pickle.dumps(optimizer_of(mlp(), name)))
        assert copy.param_groups[0]["name"] == "default"


def test_groups_keep_their_own_decay_and_the_callers_stay_untouched() -> None:
    groups = [group.options(0.1) for group in split_parameters(mlp(), {"no_decay": True})]
    groups[0]["weight_decay"] = None
    before = [dict(group) for group in groups]
    optimizer = build_optimizer("torch.optim.AdamW", {"weight_decay": 0.3}, groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [set(group) for group in groups] == [set(group) for group in before]


@pytest.mark.parametrize("name", ALL)
def test_the_option_says_how_weights_decay_and_it_is_so(name: str) -> None:
    said = next(line for line in (CONF / f"{name}.yaml").read_text().splitlines() if line.startswith("weight_decay:"))
    decoupled = "decoupled" in said
    assert decoupled != ("L2" in said)
    if name in ("prodigy", "lamb", "lars"):  # not at a first step without a gradient: see the papers' test
        return
    # Without a gradient: what is decoupled shrinks by lr * decay, an L2 penalty goes the way of gradients. Of plain SGD
    # that is the same.
    parameter = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    target, lr, options = node(name)
    optimizer = build_optimizer(
        target, options | {"weight_decay": 0.1}, [{"params": [parameter], "name": "all", "lr": lr}]
    )
    switch_mode(optimizer, training=True)
    before, parameter.grad = parameter.detach().clone(), torch.zeros(2, 2)
    optimizer.step()
    shrinks = torch.allclose((before - parameter.detach()) / before, torch.tensor(lr * 0.1), rtol=0.02)
    assert shrinks == (decoupled or target.endswith(("SGD", "SGDScheduleFree")))


@pytest.mark.parametrize("name", ALL)
def test_the_option_says_whether_a_step_writes_over_the_gradient(name: str) -> None:
    model = mlp()
    optimizer = optimizer_of(model, name, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = parameter.detach() + 0.1
    optimizer.step()
    kept = all(torch.equal(p.grad, g + 0.1) for p, g in zip(model.parameters(), mlp().parameters(), strict=True))
    assert kept == ("overwrites p.grad" not in (CONF / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", ["adabound", "lamb", "muon"])
def test_lrkits_own_optimizers_take_complex_numbers_as_pairs_of_real_ones(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = nn.Parameter(torch.randn(3, 2, 2, generator=generator))
    numbers = nn.Parameter(torch.view_as_complex(pairs.detach().clone()))
    target, lr, options = node(name)
    made = [build_optimizer(target, options, [{"params": [p], "name": "all", "lr": lr}]) for p in (pairs, numbers)]
    for _ in range(3):
        pairs.grad = torch.randn(3, 2, 2, generator=generator)
        numbers.grad = torch.view_as_complex(pairs.grad.clone())
        for optimizer in made:
            optimizer.step()
    assert torch.equal(torch.view_as_real(numbers.detach()), pairs.detach())


# --- refused values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.optim.AdmaW", "optimizer._target_ torch.optim has no AdmaW. Did you mean 'AdamW'?"),
        ("pytorch_optimizer.Loin", "optimizer._target_ pytorch_optimizer has no Loin. Did you mean 'Lion'?"),
        ("torch.optimm.Adam", "optimizer._target_ needs the module torch.optimm, which cannot be found"),
        ("no_such_package.Adam", "optimizer._target_ needs the package no_such_package, which cannot be found"),
        ("torch.nn.Linear", "optimizer._target_ must be a subclass of torch.optim.Optimizer"),
        ("torch.optim.Optimizer", "optimizer._target_ must be a subclass of torch.optim.Optimizer"),
        ("torch.optim.lr_scheduler", "optimizer._target_ must be a subclass of torch.optim.Optimizer"),
        ("torch.hub.load", "optimizer._target_ must be a subclass of torch.optim.Optimizer"),
        ("AdamW", "optimizer._target_ must be the full path of a subclass of torch.optim.Optimizer"),
        ("os.system", "optimizer._target_ must be the full path of a subclass of torch.optim.Optimizer"),
        ("builtins.eval", "optimizer._target_ must be the full path"),
        ("..", "optimizer._target_ must be the full path"),
        ("", "optimizer._target_ must be the full path"),
        (None, "optimizer._target_ must be the full path"),
    ],
)
def test_what_is_no_optimizer_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_optimizer(target)
    assert str(caught.value).startswith(message)


def test_nothing_of_pythons_own_library_is_imported() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(ConfigError):
        resolve_optimizer("antigravity.Adam")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("target", ["pytorch_optimizer.Ranger", "schedulefree.SGDScheduleFree"])
def test_a_missing_package_is_named_with_what_installs_it(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = target.partition(".")[0]
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ConfigError) as caught:
        resolve_optimizer(target)
    name = {"pytorch_optimizer": "ranger", "schedulefree": "schedule_free_sgd"}[package]
    assert str(caught.value) == f"optimizer={name} needs the package {package}: pip install 'lrkit[optim]'."


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"beta": [0.9, 0.99]}, "optimizer.beta is unknown to AdamW. Did you mean 'betas'?"),
        ("lion", {"weight_decy": 0.1}, "optimizer.weight_decy is unknown to Lion. Did you mean 'weight_decay'?"),
        ("lion", {"kwargs": {}}, "optimizer.kwargs is unknown to Lion."),
        ("sgd", {"params": []}, "optimizer.params is unknown to SGD."),
        ("adamw", {"betas": [0.9]}, "optimizer.betas must be two numbers in [0, 1). Received: [0.9]"),
        ("adamw", {"betas": [1.0, 0.999]}, "optimizer.betas must be two numbers in [0, 1). Received: [1.0, 0.999]"),
        ("adamw", {"betas": 0.9}, "optimizer.betas must be two numbers in [0, 1). Received: 0.9"),
        ("adamw", {"betas": "ab"}, "optimizer.betas must be two numbers in [0, 1). Received: 'ab'"),
        ("adamw", {"betas": [0.9, None]}, "optimizer.betas must be two numbers in [0, 1)."),
        ("muon", {"adamw_betas": [0.9, 2]}, "optimizer.adamw_betas must be two numbers in [0, 1)."),
        ("adamw", {"weight_decay": -1}, "optimizer.weight_decay must be a number >= 0. Received: -1"),
        ("adamw", {"weight_decay": "0.1"}, "optimizer.weight_decay must be a number >= 0. Received: '0.1'"),
        ("adamw", {"weight_decay": None}, "optimizer.weight_decay must be a number >= 0. Received: None"),
        ("adamw", {"weight_decay": float("nan")}, "optimizer.weight_decay must be a number >= 0. Received: nan"),
        ("adamw", {"eps": 0}, "optimizer.eps must be a number > 0. Received: 0"),
        ("adamw", {"amsgrad": "yes"}, "optimizer.amsgrad must be true or false. Received: 'yes'"),
        ("adamw", {"fused": "yes"}, "optimizer.fused must be true or false. Received: 'yes'"),
        ("momentum", {"momentum": 1}, "optimizer.momentum must be a number in [0, 1). Received: 1"),
        ("momentum", {"momentum": True}, "optimizer.momentum must be a number in [0, 1). Received: True"),
        ("adafactor", {"eps": [0, 1e-3]}, "optimizer.eps must be two numbers > 0. Received: [0, 0.001]"),
        ("adafactor", {"beta2_decay": "x"}, "optimizer.beta2_decay must be a number <= 0. Received: 'x'"),
        ("ranger", {"k": 2.5}, "optimizer.k must be a number that is whole and >= 1. Received: 2.5"),
        (
            "sgd",
            {"nesterov": True},
            "optimizer.nesterov needs optimizer.momentum > 0, which is 0 for SGD. Received: True",
        ),
        ("adamw", {"fused": True, "foreach": True}, "optimizer.fused and optimizer.foreach choose two implementations"),
        ("schedule_free_sgd", {"warmup_steps": 5}, "optimizer.warmup_steps must stay 0: choose warmup=linear"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        optimizer_of(mlp(), name, **options)
    assert str(caught.value).startswith(message)


def test_a_rate_of_its_own_for_a_group_that_cannot_have_one_is_refused() -> None:
    rules = [HEAD[0] | {"lr_scale": 10}]
    with pytest.raises(ConfigError, match="param_groups must give every group the same lr_scale"):
        optimizer_of(mlp(), "prodigy", rules)


def test_a_rate_that_would_be_without_effect_after_a_while_is_refused() -> None:
    groups = [group.options(0.1 * group.lr_scale) for group in split_parameters(mlp(), [HEAD[0] | {"lr_scale": 10}])]
    with pytest.raises(ConfigError, match="param_groups must give every group the same lr_scale: AdaBound has one"):
        build_optimizer("pytorch_optimizer.AdaBound", {}, groups)


def test_a_weight_decay_that_the_optimizer_lacks_is_refused() -> None:
    groups = [group.options(0.1) for group in split_parameters(mlp(), [HEAD[0] | {"weight_decay": 0.1}])]
    with pytest.raises(ConfigError, match="param_groups must set no weight_decay"):
        build_optimizer("torch.optim.Rprop", {}, groups)


# --- implementation ----------------------------------------------------------------------------------------------


def implementation(optimizer: torch.optim.Optimizer) -> tuple[bool | None, bool | None]:
    group = optimizer.param_groups[0]
    return group.get("fused"), group.get("foreach")


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "adagrad"])
def test_fused_where_torch_has_it(name: str) -> None:
    assert implementation(optimizer_of(mlp(), name)) == (True, None)


@pytest.mark.parametrize("name", ["nadam", "lion", "schedule_free_adamw"])
def test_otherwise_loops_on_a_cpu(name: str) -> None:
    assert implementation(optimizer_of(mlp(), name)) == (None, False)


@pytest.mark.parametrize("asked", [{"fused": False}, {"foreach": True}, {"foreach": False}, {"fused": True}])
def test_what_the_options_say_holds(asked: dict[str, bool]) -> None:
    group = optimizer_of(mlp(), "adamw", **asked).param_groups[0]
    assert {name: group[name] for name in asked} == asked
    assert group["fused"] is asked.get("fused")


def test_a_reason_against_fused_holds() -> None:
    groups = [group.options(0.1) for group in split_parameters(mlp())]
    assert implementation(build_optimizer("torch.optim.AdamW", {}, groups, unfused="16-mixed"))[0] is None
    with pytest.raises(ConfigError, match=r"optimizer\.fused must not be true: 16-mixed"):
        build_optimizer("torch.optim.AdamW", {"fused": True}, groups, unfused="16-mixed")


@pytest.mark.parametrize("where", [{"device": "meta"}, {"dtype": torch.complex64}], ids=["device", "dtype"])
def test_not_fused_where_the_step_would_fail(where: dict[str, Any]) -> None:
    model = nn.ParameterList([nn.Parameter(torch.zeros(2, **where)), nn.Parameter(torch.zeros(2))])
    # torch's constructors accept fused=True here; only the first step raises.
    torch.optim.AdamW(model.parameters(), fused=True)
    assert optimizer_of(model, "adamw").param_groups[0]["fused"] is None
    with pytest.raises(ConfigError, match=r"optimizer\.fused must not be true: AdamW does not support it for"):
        optimizer_of(model, "adamw", fused=True)


def test_sparse_gradients_train_without_fused() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    groups = [group.options(0.1) for group in split_parameters(embedding)]
    optimizer = build_optimizer("torch.optim.SGD", {}, groups, unfused="sparse gradients")
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert (embedding.weight != before).any(dim=1).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(("wrote", "reads"), [(True, False), (False, True)])
def test_a_checkpoint_does_not_change_the_implementation(wrote: bool, reads: bool) -> None:
    model = mlp()
    written = optimizer_of(model, "adamw", fused=wrote)
    train(model, written, 2)
    again = mlp()
    optimizer = optimizer_of(again, "adamw", fused=reads)
    optimizer.load_state_dict(saved(written.state_dict()))
    assert optimizer.param_groups[0]["fused"] is reads
    assert written.param_groups[0]["fused"] is wrote
    train(again, optimizer, 1)


def test_a_checkpoint_of_other_groups_is_refused() -> None:
    split_up, whole = optimizer_of(mlp(), "adamw", HEAD), optimizer_of(mlp(), "adamw")
    with pytest.raises(ConfigError, match="param_groups must make the groups of the checkpoint: head, default"):
        whole.load_state_dict(split_up.state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        whole.load_state_dict(torch.optim.AdamW([{"params": [p]} for p in mlp().parameters()]).state_dict())


def test_fused_computes_the_same() -> None:
    one, two = mlp(), mlp()
    train(one, optimizer_of(one, "adamw"), 10)
    train(two, optimizer_of(two, "adamw", fused=False), 10)
    for key, value in weights(one).items():
        torch.testing.assert_close(value, weights(two)[key], msg=key)


# --- modes -------------------------------------------------------------------------------------------------------


def test_evaluating_shows_the_average_and_goes_back() -> None:
    model = mlp()
    optimizer = optimizer_of(model, "schedule_free_sgd")
    train(model, optimizer, 3)
    training = weights(model)
    with evaluating(optimizer):
        average = weights(model)
        with evaluating(optimizer):
            assert torch.equal(weights(model)["0.weight"], average["0.weight"])
        assert not optimizer.param_groups[0]["train_mode"]
    assert optimizer.param_groups[0]["train_mode"]
    assert not torch.equal(average["0.weight"], training["0.weight"])
    torch.testing.assert_close(weights(model), training)


def test_evaluating_goes_back_after_an_error() -> None:
    optimizer = optimizer_of(mlp(), "schedule_free_adamw")
    with pytest.raises(RuntimeError), evaluating(optimizer):
        raise RuntimeError
    assert switch_mode(optimizer, training=True)


def test_other_optimizers_have_one_mode() -> None:
    model = mlp()
    optimizer = optimizer_of(model, "adamw")
    before = weights(model)
    with evaluating(optimizer):
        assert switch_mode(optimizer, training=False)
    assert torch.equal(weights(model)["0.weight"], before["0.weight"])


# --- muon --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (1, 5)])
def test_orthogonalize_evens_out_singular_values_and_keeps_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonalize(matrix) @ right.T
    assert (inside.diagonal() > 0.5).all() and (inside.diagonal() < 1.3).all()
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-3
    assert torch.equal(orthogonalize(torch.zeros(shape)), torch.zeros(shape))


def test_muon_is_torchs_for_matrices_and_adamw_for_the_rest() -> None:
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    ours, matrix, rest = (mlp() for _ in range(3))
    muon = Muon(ours.parameters(), **options)
    adamw = torch.optim.AdamW(rest.parameters(), betas=(0.9, 0.95), **options)
    own = getattr(torch.optim, "Muon", None)  # new in torch 2.9; computes in bfloat16, hence the tolerance
    theirs = own and own([p for p in matrix.parameters() if p.ndim == 2], adjust_lr_fn="match_rms_adamw", **options)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for a, b, c in zip(ours.parameters(), matrix.parameters(), rest.parameters(), strict=True):
            a.grad = b.grad = c.grad = torch.randn(a.shape, generator=generator)
        muon.step()
        adamw.step()
        if theirs:
            theirs.step()
    for (name, a), b, c in zip(ours.named_parameters(), matrix.parameters(), rest.parameters(), strict=True):
        if a.ndim != 2:
            torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-7, msg=name)
        elif theirs:
            torch.testing.assert_close(a, b, rtol=0, atol=2e-3, msg=name)


def test_muon_runs_the_closure_and_the_hooks() -> None:
    model = mlp()
    muon, seen = Muon(model.parameters()), []
    muon.register_step_post_hook(lambda *_: seen.append(1))

    def closure() -> float:
        loss = model(torch.ones(1, 4)).square().sum()
        loss.backward()
        return float(loss.detach())

    assert muon.step(closure) > 0
    assert seen == [1]
    assert len(muon.state) == 4
