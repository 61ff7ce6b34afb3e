"""What networks return: used where it is sure what is meant, refused in words where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lrkit.errors import ConfigError
from lrkit.lightning import LightningDataModule, LightningModule
from lrkit.network_output import class_axis, cross_entropy, squared_error, tensor_of
from lrkit.supervised import Supervised

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
HERE = f"model=custom model._target_={__name__}"
LOGITS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Named:
    """Like transformers' outputs, which are no dictionaries to everybody."""

    logits = LOGITS


@pytest.mark.parametrize(
    "output",
    [
        LOGITS, (LOGITS, None), (LOGITS, torch.tensor(0.5)), [LOGITS], {"logits": LOGITS, "hidden": LOGITS},
        {"out": LOGITS, "aux": LOGITS}, {"x": LOGITS, "n": 3}, Named(),
    ],
    ids=["tensor", "none", "loss", "list", "logits", "out", "only", "attribute"],
)  # fmt: skip
def test_the_tensor_is_found(output: Any) -> None:
    assert tensor_of(output) is LOGITS


@pytest.mark.parametrize("output", [(LOGITS, LOGITS), {"a": LOGITS, "b": LOGITS}, None, [], ["text"]], ids=str)
def test_what_is_not_sure_is_refused_with_what_it_is(output: Any) -> None:
    with pytest.raises(ConfigError, match=r"^model must return a tensor of logits or values; wrap it"):
        tensor_of(output)


@pytest.mark.parametrize(
    ("out", "y", "axis"),
    [
        ((8, 5), (8,), -1), ((8, 16, 5), (8, 16), -1), ((8, 5, 16), (8, 16), 1), ((8, 5, 4, 6), (8, 4, 6), 1),
        ((8, 4, 6, 5), (8, 4, 6), -1),
    ],
)  # fmt: skip
def test_shapes_tell_where_the_classes_are(out: tuple[int, ...], y: tuple[int, ...], axis: int) -> None:
    logits = torch.randn(out, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 5, y, generator=torch.Generator().manual_seed(1))
    loss, found = cross_entropy(logits, targets)
    assert found == axis
    in_second = logits if axis == 1 else logits.movedim(-1, 1)
    assert torch.allclose(loss, F.cross_entropy(in_second, targets))


def test_as_many_classes_as_pixels_are_not_guessed_at() -> None:
    logits, targets = torch.randn(2, 32, 32, 32), torch.randint(0, 32, (2, 32, 32))
    with pytest.raises(ConfigError, match=r"^data\.class_axis must be said, 1 or -1.*float32 \(2, 32, 32, 32\)"):
        cross_entropy(logits, targets)
    assert torch.equal(cross_entropy(logits, targets, 1)[0], F.cross_entropy(logits, targets))
    assert class_axis(logits, targets, -1) == -1
    with pytest.raises(ConfigError, match=r"^data\.class_axis must be 1 or -1\. Received: 2"):
        class_axis(logits, targets, 2)


def test_targets_of_other_kinds() -> None:
    y = torch.tensor([0, 2])
    expected = F.cross_entropy(LOGITS, y)
    for other in (y.int(), y.to(torch.uint8), y[:, None]):
        assert torch.equal(cross_entropy(LOGITS, other)[0], expected)
    assert torch.allclose(cross_entropy(LOGITS, F.one_hot(y, 3).float())[0], expected)
    with pytest.raises(ConfigError, match=r"^data must have whole numbers as classes, or a probability for each class"):
        cross_entropy(LOGITS, y.float())
    with pytest.raises(ConfigError, match=r"^model must return logits of the shape of the targets and an axis"):
        cross_entropy(LOGITS, torch.zeros(2, 7, dtype=torch.int64))


def test_values_are_never_repeated_to_make_shapes_fit() -> None:
    out, y = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(squared_error(out, y), F.mse_loss(out[:, 0], y))  # torch would compare each with each
    for wrong in (torch.randn(1), torch.randn(4, 3), torch.randn(2, 2)):
        with pytest.raises(ConfigError, match=r"^model must return values of the shape of the targets"):
            squared_error(out, wrong)


@pytest.mark.parametrize("y", [torch.tensor([0, 3]), torch.tensor([-1, 0])], ids=str)
def test_a_class_that_the_network_lacks_is_told_before_anything_else(y: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"^model must have an output for each class: .*'3 outputs'"):
        Supervised(nn.Identity())._measure([LOGITS, y])
    Supervised(nn.Identity())._measure([LOGITS, torch.tensor([-100, 2])])  # what torch leaves out


# --- modules of the user's ------------------------------------------------------------------------


class Quiet(LightningModule):
    """Logs nothing, and has its own loaders, two of them to validate on."""

    def __init__(self, logs: str = "") -> None:
        super().__init__()
        self.net, self.logs = nn.Linear(4, 1), logs

    def loss(self, batch: Any) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        if self.logs:
            self.log(self.logs, loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch))

    def train_dataloader(self) -> DataLoader[Any]:
        x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [self.train_dataloader(), self.train_dataloader()]


def tags(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(next(folder.rglob("events.out.tfevents*")).parent)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_module_that_logs_no_loss_has_one_all_the_same(accumulate: int, train: Callable[..., Any]) -> None:
    run = train(*f"{HERE}.Quiet".split(), "data=module", "logger=tensorboard", "optimizer.lr=1e-8",
                f"trainer.accumulate_grad_batches={accumulate}")  # fmt: skip
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    model = Quiet()
    model.load_state_dict(content["state_dict"])  # which have hardly moved
    losses = [float(model.loss(batch).detach()) for batch in model.train_dataloader()]
    assert tags(run.folder)["train/loss"][-1] == pytest.approx(losses[-1], rel=1e-4)
    assert run.monitor == "val_loss/dataloader_idx_0"
    assert (run.folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("name", ["loss", "train_loss", "train/Loss"])
def test_one_that_logs_its_own_is_left_alone(name: str, train: Callable[..., Any]) -> None:
    run = train(*f"{HERE}.Quiet".split(), "data=module", f"+model.logs={name}", "logger=tensorboard")
    assert "train/loss" not in tags(run.folder) and name in tags(run.folder)


def test_a_monitor_may_be_named_without_its_loader(train: Callable[..., Any]) -> None:
    assert train(*f"{HERE}.Quiet".split(), "data=module", "monitor=val_loss").monitor == "val_loss/dataloader_idx_0"


class Bare(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return Quiet().train_dataloader()


def test_a_module_without_loaders_is_told_so(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^data=module needs a model with loaders of its own, and Net has no"):
        train("model=custom", "model._target_=foreign.Net", "data=module")
    with pytest.raises(ConfigError, match=r"^model\.inputs is for lrkit's own networks: .* say model=custom too"):
        train("model._target_=foreign.Net", "data=custom", f"data._target_={__name__}.Bare")


@pytest.mark.parametrize("word", ["NA", "", "nan", "?", "12x"])
def test_a_target_that_is_missing_is_no_class(word: str, tmp_path: Path, train: Callable[..., Any]) -> None:
    rows = [f"{i},{i / 3}" for i in range(60)]
    rows[7] = f"7,{word}"
    (tmp_path / "table.csv").write_text("\n".join(["x,price", *rows]) + "\n")
    with pytest.raises(ConfigError, match=r"must have a number or a class in each line: line 9, column price has none"):
        train("data=arrays", f"data.path={tmp_path / 'table.csv'}", "model=linear")
