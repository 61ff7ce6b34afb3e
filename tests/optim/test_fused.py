"""The optimizer implementation that lrkit chooses works in each state of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from plain_lightning import fit
from torch import Tensor, nn

from lrkit import api
from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import LightningModule
from lrkit.optim.factory import build_optimizer, switch_mode
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
ALL = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom")
FUSED = ["sgd", "momentum", "adam", "adamw", "adagrad"]
STEPS = 6


def made(name: str, parameters: list[nn.Parameter], **changes: Any) -> torch.optim.Optimizer:
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    target, lr = node.pop("_target_"), node.pop("lr")
    optimizer = build_optimizer(target, node | changes, [{"params": parameters, "name": "default", "lr": lr}])
    switch_mode(optimizer, training=True)
    return optimizer


def parameters(count: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(count)]


def late(i: int, t: int) -> bool:
    """The first parameter from the start, the second from step 3 on, the third never."""
    return i == 0 or (i == 1 and t >= 3)


def now_and_then(i: int, t: int) -> bool:
    """Each parameter in its own rhythm, as the branches of a network that are drawn by lot."""
    return (t + i) % (i + 1) == 0


def trained(
    optimizer: torch.optim.Optimizer,
    given: list[nn.Parameter],
    takes: Callable[[int, int], bool],
    by_closure: bool = False,
) -> Tensor:
    for t in range(STEPS):

        def closure(t: int = t) -> float:
            for i, parameter in enumerate(given):
                parameter.grad = 0.1 * (i + 1) * (parameter.detach() - t) if takes(i, t) else None
            return 0.0

        if by_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in given])


@pytest.mark.parametrize("by_closure", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("takes", [late, now_and_then])
@pytest.mark.parametrize("name", ALL)
def test_gradients_may_come_late_or_never(name: str, takes: Callable[[int, int], bool], by_closure: bool) -> None:
    ours = parameters()
    optimizer = made(name, ours)
    weights = trained(optimizer, ours, takes, by_closure)
    assert weights.isfinite().all()
    if takes is late:
        assert torch.equal(ours[2].detach(), parameters()[2])
    if name in FUSED:
        assert optimizer.param_groups[0]["fused"] is True
        theirs = parameters()
        plain = trained(made(name, theirs, fused=False, foreach=False), theirs, takes)
        assert torch.allclose(weights, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", [{"nesterov": True}, {"weight_decay": 0.1}, {"dampening": 0.5}], ids=str)
def test_momentum_of_every_kind_takes_late_gradients(changes: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    weights = trained(made("momentum", ours, **changes), ours, late)
    plain = trained(made("momentum", theirs, fused=False, foreach=False, **changes), theirs, late)
    assert torch.allclose(weights, plain, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad"])
def test_gradients_may_be_sparse(name: str) -> None:
    torch.manual_seed(0)
    table, head = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1)
    before = table.weight.detach().clone()
    optimizer = made(name, [*table.parameters(), *head.parameters()])
    for _ in range(3):
        optimizer.zero_grad()
        head(table(torch.tensor([0, 3]))).sum().backward()
        optimizer.step()
    moved = (table.weight.detach() != before).any(dim=1)
    assert moved.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("name", ALL)
def test_a_group_may_join_late(name: str) -> None:
    first, second = parameters(1), parameters(2)[1:]
    optimizer = made(name, first)
    for group in (first, [*first, *second]):
        if len(group) > 1:
            optimizer.add_param_group({"params": second, "name": "late"})
        for _ in range(2):
            for parameter in group:
                parameter.grad = parameter.detach().clone()
            optimizer.step()
    assert not torch.equal(second[0].detach(), parameters(2)[1])


@pytest.mark.parametrize("name", FUSED)
def test_a_group_that_joins_may_be_one_that_fused_cannot_do(name: str) -> None:
    """Complex numbers: torch's fused kernels have none, its constructors say so, and its add_param_group does not."""
    first, second = parameters(1), [nn.Parameter(torch.ones(2, dtype=torch.complex64))]
    optimizer = made(name, first)
    optimizer.add_param_group({"params": second, "name": "late"})
    for parameter in (*first, *second):
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    assert [group["fused"] for group in optimizer.param_groups] == [True, False]
    assert (second[0].abs() < 1).all()


def scaled(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, gradients: dict[nn.Parameter, Tensor]
) -> None:
    """A step under the scaler of 16-bit gradients, as Lightning takes it under 16-mixed."""
    for parameter, value in gradients.items():
        parameter.grad = value * scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("name", FUSED)
def test_the_first_steps_may_be_left_out_by_the_scaler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are under 16-mixed, whose first scale is a guess. torch's fused SGD would go on from unwritten memory."""
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda x, **more: empty(x, **more).fill_(torch.nan))
    (ours,), (theirs,) = parameters(1), parameters(1)
    for parameter, changes in ((ours, {}), (theirs, {"fused": False, "foreach": False})):
        optimizer, scaler = made(name, [parameter], **changes), torch.amp.GradScaler("cpu")
        for value in (torch.inf, 1.0, 2.0):
            scaled(optimizer, scaler, {parameter: torch.full_like(parameter, value)})
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad"])
def test_gradients_may_be_sparse_and_scaled(name: str) -> None:
    def row(value: float) -> Tensor:
        return torch.sparse_coo_tensor(torch.tensor([[1]]), torch.full((1, 3), value), (4, 3)).coalesce()

    results = []
    for plain in (False, True):
        table, head = parameters(2)
        optimizer = made(name, [table, head], **({"fused": False, "foreach": False} if plain else {}))
        scaler = torch.amp.GradScaler("cpu")
        scheduler = PlanScheduler(optimizer, resolve_plan(lr=0.1, schedule=Constant(), horizon=Horizon(3)))
        for value in (1.0, torch.inf, 2.0):
            scaled(optimizer, scaler, {table: row(value), head: torch.ones_like(head)})
            assert head.grad is not None
        assert scheduler.applied == 2
        results.append(torch.cat([table.detach(), head.detach()]))
    assert torch.equal(results[0][0], parameters(1)[0].detach()[0])  # a row without a gradient
    assert not torch.equal(results[0], torch.cat([p.detach() for p in parameters(2)]))
    assert torch.allclose(*results, rtol=0, atol=1e-6)


def test_sparse_gradients_that_no_implementation_takes_are_refused_in_a_line() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = made("adamw", [*table.parameters()])
    table(torch.tensor([0])).sum().backward()
    with pytest.raises(
        ConfigError, match=r"^optimizer cannot train sparse gradients of torch\.float32 on cpu: AdamW? does"
    ):
        optimizer.step()


@pytest.mark.parametrize("name", ALL)
def test_a_parameter_without_elements_trains_or_is_refused_before_the_first_step(name: str) -> None:
    full, empty = parameters(1)[0], nn.Parameter(torch.zeros(0, 3))
    try:
        optimizer = made(name, [full, empty])
    except ConfigError as error:
        assert name == "adafactor" and str(error).startswith("optimizer cannot train a parameter without elements")
        return
    before = full.detach().clone()
    full.grad, empty.grad = before.clone(), torch.zeros(0, 3)
    optimizer.step()
    assert full.isfinite().all() and not torch.equal(full.detach(), before)


def test_a_restored_state_without_all_buffers_goes_on() -> None:
    ours = parameters()
    optimizer = made("momentum", ours)
    trained(optimizer, ours, lambda i, t: i == 0)
    again = made("momentum", ours)
    again.load_state_dict(optimizer.state_dict())
    assert trained(again, ours, lambda i, t: True).isfinite().all()


def test_what_the_user_asks_for_is_kept_or_refused_by_its_key() -> None:
    ours, theirs = parameters(), parameters()
    plain = trained(made("momentum", theirs, fused=False, foreach=False), theirs, late)
    optimizer = made("momentum", ours, fused=True)
    assert torch.allclose(trained(optimizer, ours, late), plain, rtol=0, atol=1e-6)
    assert optimizer.param_groups[0]["fused"] is True
    with pytest.raises(ConfigError, match=r"^optimizer\.fused must not be true with dampened momentum and late or"):
        trained(made("momentum", ours, fused=True, dampening=0.5), ours, late)
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = made("sgd", [*table.parameters()], fused=True)
    table(torch.tensor([0])).sum().backward()
    with pytest.raises(ConfigError, match=r"^optimizer\.fused must not be true: SGD does not support it for sparse"):
        optimizer.step()


class Branching(nn.Module):
    """A network of which one part is used from the fifth batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.late, self.batches = nn.Linear(64, 10), nn.Linear(64, 10), 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += self.training
        out: Tensor = self.body(x)
        return out + self.late(x) if self.batches > 4 else out


class Words(LightningModule):
    """A table of words with sparse gradients, and two heads of which one is used from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.late = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1), nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = self.table(batch.long().flatten())
        out: Tensor = self.head(x).square().mean()
        return out + self.late(x).square().mean() if self.current_epoch else out


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_in_a_lightning_module_and_after_a_resume_too(tmp_path: Path, sparse: bool) -> None:
    def net(**options: Any) -> Any:
        words = Words()
        words.table.sparse = sparse
        options = {"momentum": 0.9, **options}
        return api.configure(words, lr=0.01, optimizer=torch.optim.SGD, options=options, schedule="constant")

    whole, plain, part, rest = net(), net(fused=False, foreach=False), net(), net()
    trainer = fit(whole, max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["fused"] is not sparse
    fit(plain, max_epochs=2)
    fit(part, max_epochs=1).save_checkpoint(tmp_path / "part.ckpt")
    fit(rest, max_epochs=2, resume=tmp_path / "part.ckpt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=0, atol=1e-6)
        assert torch.equal(value, rest.state_dict()[name]), name
    assert not torch.equal(whole.late.weight, Words().late.weight)


def test_the_default_optimizer_trains_what_comes_late(train: Callable[..., Any]) -> None:
    run = train("model=custom", f"model._target_={__name__}.Branching", "trainer.limit_train_batches=8")
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert run.status == "done" and content["optimizer_states"][0]["param_groups"][0]["fused"] is True
    assert len(content["optimizer_states"][0]["state"]) == 4
