"""The output of a network: used if its meaning is certain, else refused with a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.lightning.imports import PACKAGE, LightningDataModule, LightningModule
from lrkit.lightning.network_output import NetworkOutput, possible_class_axes, tensor_of
from lrkit.lightning.supervised import Supervised
from lrkit.lr_finder import short_run
from lrkit.lr_finder.training_task import ConfigTask
from lrkit.training.run import run_training
from lrkit.training_objects.data import data_of

HERE = f"model=custom model._target_={__name__}"
LOGITS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Named:
    """A named output without a base class of torch or of Python's, as some libraries return."""

    def __init__(self) -> None:
        self.logits = LOGITS


class Auxiliary(NamedTuple):
    """As torchvision's GoogLeNet returns in training."""

    logits: Tensor
    aux_logits1: Tensor | None


@pytest.mark.parametrize(
    "output",
    [
        LOGITS, (LOGITS, None), (LOGITS, torch.tensor(0.5)), [LOGITS], {"logits": LOGITS, "hidden": LOGITS},
        {"out": LOGITS, "aux": LOGITS}, {"x": LOGITS, "n": 3}, Named(), Auxiliary(LOGITS, None),
    ],
    ids=["tensor", "none", "loss", "list", "logits", "out", "only", "attribute", "named tuple"],
)  # fmt: skip
def test_the_tensor_is_found(output: Any) -> None:
    assert tensor_of(output) is LOGITS


@pytest.mark.parametrize("output", [(LOGITS, LOGITS), {"a": LOGITS, "b": LOGITS}, None, [], ["text"]], ids=str)
def test_what_is_not_sure_is_refused_with_what_it_is(output: Any) -> None:
    with pytest.raises(ConfigError, match=r"^model must return one tensor .* or be a LightningModule"):
        tensor_of(output)


LEARNED = LOGITS.clone().requires_grad_()


@pytest.mark.parametrize(
    ("output", "lost"),
    [
        ((LEARNED, LEARNED.sum()), "output 1"),
        ({"logits": LEARNED, "aux_loss": LEARNED.sum()}, "aux_loss"),
        ({"out": LEARNED, "aux": LEARNED}, "aux"),
        (Auxiliary(LEARNED, LEARNED), "aux_logits1"),
    ],
    ids=["loss", "aux_loss", "aux", "aux_logits"],
)
def test_nothing_that_would_be_trained_on_is_left_out_silently(output: Any, lost: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^model must return no part to train on besides \S+( 0)?: the loss would not contain {lost}",
    ):
        tensor_of(output)


def loss_of(out: Any, y: Tensor, loss: str | None = None, **how: Any) -> Tensor:
    return Supervised(nn.Identity(), loss, **how).loss_of(out, y)


@pytest.mark.parametrize(
    ("out", "y", "axis"),
    [
        ((8, 5), (8,), -1), ((8, 16, 5), (8, 16), -1), ((8, 5, 16), (8, 16), 1), ((8, 5, 4, 6), (8, 4, 6), 1),
        ((8, 4, 6, 5), (8, 4, 6), -1), ((8, 5), (8, 1), -1), ((8, 5, 4, 6), (8, 1, 4, 6), 1),
        ((8, 16, 5), (8, 16, 1), -1), ((8, 5, 3, 4, 6), (8, 3, 4, 6), 1), ((5, 5), (5,), -1),
    ],
)  # fmt: skip
def test_shapes_tell_where_the_classes_are(out: tuple[int, ...], y: tuple[int, ...], axis: int) -> None:
    logits = torch.randn(out, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 5, y, generator=torch.Generator().manual_seed(1))
    assert possible_class_axes(out, y) == [axis]
    in_second = logits if axis == 1 else logits.movedim(-1, 1)
    plain = targets.view(in_second.shape[:1] + in_second.shape[2:])
    assert torch.allclose(loss_of(logits, targets), F.cross_entropy(in_second, plain))
    module = Supervised(nn.Identity()).eval()
    _, accuracy = module._compute_loss_and_accuracy([logits, targets])
    assert accuracy is not None
    assert float(accuracy) == pytest.approx(float((in_second.argmax(1) == plain).float().mean()))


@pytest.mark.parametrize("size", [(2, 32, 32, 32), (2, 7, 7)], ids=["image", "text"])
def test_as_many_classes_as_pixels_are_not_guessed_at(size: tuple[int, ...]) -> None:
    logits, targets = torch.randn(size), torch.randint(0, size[-1], size[:-1])
    with pytest.raises(ConfigError, match=rf"^data\.class_axis must be set to 1 .*float32 \({size[0]}, .* both axes"):
        loss_of(logits, targets)
    assert torch.equal(loss_of(logits, targets, class_axis=1), F.cross_entropy(logits, targets))
    last = F.cross_entropy(logits.flatten(0, -2), targets.flatten())
    assert torch.equal(loss_of(logits, targets, class_axis=-1), last)
    assert torch.equal(loss_of(logits, targets, usual_axis=-1), last)
    with pytest.raises(ConfigError, match=r"^data\.class_axis must be 1 .*Received: 2"):
        NetworkOutput("cross_entropy", 2)


def test_the_axis_that_shapes_told_once_stays() -> None:
    """Sentences of any length: one that is as long as there are classes must not be read another way."""
    output = NetworkOutput("cross_entropy")
    for length in (9, 5):
        assert output.read(torch.randn(2, length, 5), torch.zeros(2, length, dtype=torch.int64), True).axis == -1
    with pytest.raises(ConfigError, match=r"^model must return logits of shape \(2, 9, classes\) for targets"):
        output.read(torch.randn(2, 5, 9), torch.zeros(2, 9, dtype=torch.int64), True)


def test_a_network_may_say_where_its_classes_are() -> None:
    network = nn.Identity()
    network.class_axis = 1
    logits, targets = torch.randn(2, 6, 6), torch.randint(0, 6, (2, 6))
    assert torch.equal(Supervised(network).loss_of(logits, targets), F.cross_entropy(logits, targets))


def test_targets_of_other_kinds() -> None:
    y = torch.tensor([0, 2])
    expected = F.cross_entropy(LOGITS, y)
    for other in (y.int(), y.to(torch.uint8), y[:, None]):
        assert torch.equal(loss_of(LOGITS, other), expected)
    assert torch.allclose(loss_of(LOGITS, F.one_hot(y, 3).float(), "cross_entropy"), expected)
    assert torch.equal(
        loss_of(LOGITS[:, :1], torch.tensor([1, 2]), "mse"), F.mse_loss(LOGITS[:, 0], y.new_tensor([1.0, 2.0]).float())
    )


@pytest.mark.parametrize(
    ("out", "y", "loss", "sentence"),
    [
        (LOGITS, torch.tensor([0.0, 2.0]), "cross_entropy", r"^data must give classes as whole numbers \(int64\), or"),
        (LOGITS, torch.rand(2, 3), None, r"^data\.targets must be set for targets of float32 \(2, 3\): numbers"),
        (LOGITS, torch.ones(2, 3), "cross_entropy", r"^data must give as targets probabilities that sum to 1"),
        (LOGITS, torch.eye(3, dtype=torch.int64)[:2], None, r"^data must give a class for each sample.*y\.argmax\(1\)"),
        (LOGITS, torch.zeros(2, 7, dtype=torch.int64), None,
         r"^model must return logits of shape \(2, 7, classes\) or \(2, classes, 7\) for targets int64 \(2, 7\)\."),
        (LOGITS[:, :1], torch.tensor([0, 0]), None, r"^model must return an output for each class, at least two"),
        (LOGITS.argmax(1), torch.tensor([0, 0]), None, r"^model must return floats for each sample"),
        (LOGITS.sum(), torch.tensor([0, 0]), None, r"^model must return floats for each sample"),
        (LOGITS, [0, 1], None, r"^data must give targets as one tensor"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(out: Tensor, y: Any, loss: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loss_of(out, y, loss)


def test_values_are_never_repeated_to_make_shapes_fit() -> None:
    out, y = torch.randn(4, 1), torch.randn(4)
    for one, other in ((out, y), (out[:, 0], y[:, None])):  # torch would compare each with each
        assert torch.equal(loss_of(one, other, "mse"), F.mse_loss(out[:, 0], y))
    for wrong in (torch.randn(1), torch.randn(4, 3), torch.randn(2, 2)):
        with pytest.raises(ConfigError, match=r"^model must return as many numbers as targets, float32"):
            loss_of(out, wrong, "mse")


def test_what_half_precision_returns_does_not_round_the_targets() -> None:
    out, y = torch.zeros(1, dtype=torch.bfloat16), torch.tensor([257.0])  # which bfloat16 does not have
    assert float(loss_of(out, y, "mse")) == 257.0**2


@pytest.mark.parametrize("y", [torch.tensor([0, 3]), torch.tensor([-1, 0])], ids=str)
@pytest.mark.parametrize("first", [True, False], ids=["training", "after a validation"])
def test_a_class_that_the_network_lacks_is_told_before_anything_else(y: Tensor, first: bool) -> None:
    module = Supervised(nn.Identity())
    if not first:
        module.eval()._compute_loss_and_accuracy([LOGITS, torch.tensor([0, 1])])
        module.train()
    with pytest.raises(ConfigError, match=r"^data must give classes from 0 to 2 for 3 outputs of the network"):
        module._compute_loss_and_accuracy([LOGITS, y])


def test_targets_that_torch_leaves_out_are_neither_right_nor_wrong() -> None:
    module = Supervised(nn.Identity()).eval()
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    loss, accuracy = module._compute_loss_and_accuracy([logits, torch.tensor([-100, 0, 1])])
    assert float(accuracy or -1) == 0.5
    assert torch.equal(loss, F.cross_entropy(logits[1:], torch.tensor([0, 1])))


def test_the_accuracy_is_to_the_bit_what_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (7, 32, 300):
        logits, y = torch.randn(n, 10, generator=generator), torch.randint(0, 10, (n,), generator=generator)
        _, accuracy = Supervised(nn.Identity()).eval()._compute_loss_and_accuracy([logits, y])
        assert accuracy is not None and torch.equal(accuracy, (logits.argmax(-1) == y).float().mean())


class WithTargets(nn.Module):
    """As nanoGPT: without targets only the last place is looked at, for that is all that is needed to write on."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> tuple[Tensor, None]:
        return torch.zeros(len(x), 1, 7), None


def test_a_network_with_a_loss_of_its_own_is_told_what_to_do() -> None:
    module = Supervised(WithTargets())
    x = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"^model must return .*forward\(targets=\.\.\.\) needs a LightningModule"):
        module._compute_loss_and_accuracy([x, x])
    with pytest.raises(ConfigError, match=r"^data must give batches of two, inputs and targets, if the model is"):
        module._compute_loss_and_accuracy([x])


def test_what_transformers_return_is_read() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    assert tensor_of(outputs.ImageClassifierOutput(logits=LOGITS, hidden_states=(LOGITS, LOGITS))) is LOGITS
    with pytest.raises(ConfigError, match=r"Received: 'BaseModelOutput\{last_hidden_state: float32 \(2, 3\), .*\}'"):
        tensor_of(outputs.BaseModelOutput(last_hidden_state=LOGITS, hidden_states=(LOGITS,)))


@pytest.mark.slow
def test_transformers_networks_are_trained_as_they_are() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = torch.randint(0, 11, (2, 9))
    shape: dict[str, Any] = {"vocab_size": 11, "n_positions": 9, "n_embd": 8, "n_layer": 1, "n_head": 1}
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()
    module = Supervised(gpt2)
    loss = module.loss_of(module(text[:, :-1]), text[:, 1:])
    assert torch.allclose(loss, gpt2(text, labels=text).loss, atol=1e-6)
    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "num_labels": 3,
    }
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**small, image_size=8, patch_size=4)).eval()
    images, y = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    assert torch.allclose(Supervised(vit).loss_of(vit(images), y), vit(images, labels=y).loss, atol=1e-6)


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
    done = train(*f"{HERE}.Quiet".split(), "data=module", "logger=tensorboard", "optimizer.lr=1e-8",
                f"trainer.accumulate_grad_batches={accumulate}")  # fmt: skip
    content = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
    model = Quiet()
    model.load_state_dict(content["state_dict"])  # which have hardly moved
    losses = [float(model.loss(batch).detach()) for batch in model.train_dataloader()]
    assert tags(done.folder)["train/loss"][-1] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert done.monitor == "val_loss/dataloader_idx_0"
    assert (done.folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("name", ["loss", "train_loss", "train/Loss"])
def test_one_that_logs_its_own_is_left_alone(name: str, train: Callable[..., Any]) -> None:
    done = train(*f"{HERE}.Quiet".split(), "data=module", f"+model.logs={name}", "logger=tensorboard")
    assert "train/loss" not in tags(done.folder) and name in tags(done.folder)


def test_a_monitor_may_be_named_without_its_loader(train: Callable[..., Any]) -> None:
    assert train(*f"{HERE}.Quiet".split(), "data=module", "monitor=val_loss").monitor == "val_loss/dataloader_idx_0"


class Bare(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return Quiet().train_dataloader()


def test_a_module_without_loaders_is_told_so(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^data=module needs a model with its own loaders, and Net has no"):
        train("model=custom", "model._target_=plain_lightning.Net", "data=module")
    with pytest.raises(ConfigError, match=r"^model\.inputs is for lrkit's own networks: set model=custom too"):
        train("model._target_=plain_lightning.Net", "data=custom", f"data._target_={__name__}.Bare")


def kept(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


class OddlyNamed(Quiet):
    """Logs no validation loss, but something else."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("score", self.loss(batch), add_dataloader_idx=False) if dataloader_idx == 0 else None


class Staged(Quiet):
    """Names what it logs by the stage, as pytorch-forecasting does: of a sanity validation there are other names."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        stage = "sanity_check" if self.trainer.sanity_checking else "val"
        self.log(f"{stage}_loss", self.loss(batch), add_dataloader_idx=False) if dataloader_idx == 0 else None


def test_which_loader_is_monitored_is_said_and_so_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def says(model: str, *more: str) -> str:
        overrides = [*f"{HERE}.{model} data=module logger=none trainer.max_epochs=1".split(), *more]
        folder = tmp_path / f"{model}{len(more)}"
        folder.mkdir()
        run_training(compose(overrides), folder)
        return capsys.readouterr().out

    both = "note: monitor=val_loss/dataloader_idx_0, of the first of 2 validation loaders"
    assert both in says("Quiet") and both in says("Quiet", "monitor=val_loss")
    assert "best.ckpt" in kept(tmp_path / "Quiet0")
    assert "note: no best.ckpt will be saved, because none of score is a validation loss by its name" in says(
        "OddlyNamed"
    )
    assert "note" not in says("OddlyNamed", "monitor=score") + says("Staged") + says("Staged", "monitor=val_loss")
    assert kept(tmp_path / "Staged0") == kept(tmp_path / "Staged1") == ["best.ckpt", "last.ckpt"]
    with pytest.raises(ConfigError, match=r"^monitor names a metric that is not logged. Accepted: train.loss, val_l"):
        says("Staged", "monitor=other", "seed=1")
    assert (kept(tmp_path / "OddlyNamed0"), kept(tmp_path / "OddlyNamed1")) == (
        ["last.ckpt"],
        ["best.ckpt", "last.ckpt"],
    )


def test_a_monitor_that_no_loader_has_is_refused_before_training(
    train: Callable[..., Any], recorded: list[Any]
) -> None:
    with pytest.raises(ConfigError, match=r"^monitor names a metric that is not logged\. Accepted: val_loss/data"):
        train(*f"{HERE}.Quiet".split(), "data=module", "monitor=val_los")
    assert not recorded


class OfTheEpoch(Quiet):
    """Logs the mean over the epoch alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss


class ByItself(Quiet):
    """Manual optimization that logs its loss."""

    def __init__(self, says: bool = True) -> None:
        super().__init__()
        self.automatic_optimization, self.says = False, says

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss if self.says else None


@pytest.mark.parametrize(
    ("model", "logged"),
    [("OfTheEpoch", {"train_loss"}), ("ByItself", {"train/loss"}), ("ByItself +model.says=false", set())],
)
def test_who_has_a_training_loss(model: str, logged: set[str], train: Callable[..., Any]) -> None:
    done = train(*f"{HERE}.{model}".split(), "data=module", "logger=tensorboard", "trainer.max_epochs=2")
    assert {tag for tag in tags(done.folder) if tag.startswith("train")} == logged


class Pictures(LightningDataModule):
    """A class for each pixel, and two loaders to validate on."""

    def __init__(self, floats: bool = False) -> None:
        super().__init__()
        self.floats = floats

    def train_dataloader(self) -> DataLoader[Any]:
        y = torch.randint(0, 8, (8, 8, 8), generator=torch.Generator().manual_seed(0))
        x = F.one_hot(y, 8).movedim(-1, 1).float()
        return DataLoader(TensorDataset(x, x[:, :1] if self.floats else y), batch_size=4)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [self.train_dataloader(), self.train_dataloader()]


def test_a_plain_network_for_pictures(train: Callable[..., Any]) -> None:
    """A convolution that sees the answer: read over the right axis, it has learnt it at once."""
    words = ["model=custom", "model._target_=torch.nn.Conv2d", "+model.in_channels=8", "+model.kernel_size=1",
             "data=custom", f"data._target_={__name__}.Pictures", "optimizer=adamw", "optimizer.lr=0.3",
             "trainer.max_epochs=12", "trainer.limit_val_batches=null"]  # fmt: skip
    with pytest.raises(ConfigError, match=r"^data\.class_axis must be set to 1 \(as torch has it\) or -1"):
        train(*words, "+model.out_channels=8")
    done = train(*words, "+model.out_channels=8", "data.class_axis=1")
    assert done.final["val/accuracy/dataloader_idx_1"] == 1.0
    assert done.monitor == "val/loss/dataloader_idx_0"
    with pytest.raises(ConfigError, match=r"^data\.targets must be set for targets of float32 \(4, 1, 8, 8\): numbers"):
        train(*words, "+model.out_channels=1", "+data.floats=true")
    done = train(*words, "+model.out_channels=1", "+data.floats=true", "data.targets=numbers")
    assert done.final["val/loss/dataloader_idx_0"] < 1e-2
    with pytest.raises(ConfigError, match=r"^data\.targets must be classes or numbers, or null\. Received: 'floats'"):
        train(*words, "+model.out_channels=1", "data.targets=floats")


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_loaders_of_its_own_are_not_passed_over_without_a_word(train: Callable[..., Any]) -> None:
    done = train(*f"{HERE}.Quiet".split(), "data=custom", f"data._target_={__name__}.Bare")
    assert "Quiet.train_dataloader is not used, because data is set; data=module uses it" in done.plan.warnings
    with pytest.raises(
        ConfigError,
        match=r"^data=module needs a LightningModule with its own loaders, and the model is a plain network",
    ):
        train("model=custom", "model._target_=torch.nn.Linear", "+model.in_features=4", "+model.out_features=2",
              "data=module")  # fmt: skip


def test_a_search_takes_the_modules_loaders(tmp_path: Path) -> None:
    config = compose([*f"{HERE}.Quiet data=module trainer.max_epochs=20 logger=none".split(), *BAR])
    found = short_run.run_short(ConfigTask(config, data_of(config)), lambda plan: (plan.within(3, 0.01), 3), score=True)
    assert len(found.losses) == 3 and found.score < 10


BAR = [f"+callbacks.bar._target_={PACKAGE}.callbacks.TQDMProgressBar"]


def test_the_users_bar_takes_the_place_of_ours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_training(compose([*f"{HERE}.Quiet data=module logger=none trainer.max_epochs=1".split(), *BAR]), tmp_path)
    out, err = capsys.readouterr()
    assert "epoch 1/1" not in out and "Epoch 0" in out + err
