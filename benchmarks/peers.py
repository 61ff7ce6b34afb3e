"""The suggestions of other range tests for a config of lrkit, each from its own package with its default settings.

Each peer gets the same input as lrkit's range test: initial weights, batches in the same order, and the configured
optimizer; the peer sets its learning rate. No plan or scheduler is attached, because each peer has its own. The peers'
output, warnings and files are suppressed. ``peers.txt`` has the commands to install the packages.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer, seed_everything
from pytorch_lightning.tuner import Tuner
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from lrkit.config import compose as configs
from lrkit.data.tensor_loader import TensorLoader
from lrkit.lightning.module import Supervised
from lrkit.optim import factory
from lrkit.optim.param_groups import split_parameters

# The other two packages are imported where they are used: fastai takes seconds, and patches torch.Tensor.


@dataclass(frozen=True)
class Suggestion:
    """The result of a range test.

    Attributes:
        lr: The rate that it suggests; None: it gave none.
        steps: Optimizer steps that it really took.
        why: Why it gave none.
    """

    lr: float | None
    steps: int
    why: str = ""


def lightning(config: dict[str, Any], data: LightningDataModule) -> Suggestion:
    """``Tuner.lr_find``: 100 steps, from 1e-8 to 1; the steepest fall of the smoothed loss over the rate itself."""
    run = _Run(config, data)
    with _suppress_output() as folder:
        trainer = Trainer(
            accelerator="cpu", devices=1, default_root_dir=folder, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        # Not the datamodule itself, which would stay attached to this trainer; and no validation between epochs.
        found = Tuner(trainer).lr_find(_Tunable(run), train_dataloaders=run.batches)
        lr = found.suggestion()
    return Suggestion(lr, run.steps, "" if lr else "fewer than two finite losses are left once the ends are cut off")


def torch_lr_finder(config: dict[str, Any], data: LightningDataModule) -> Suggestion:
    """``LRFinder.range_test``: 100 steps, from 1e-7 to 10; the steepest fall of the smoothed loss from step to step.

    If the loss becomes NaN, numpy finds the steepest fall there, and the package suggests the rate there.
    """
    run = _Run(config, data)
    with _suppress_output():
        from matplotlib.figure import Figure
        from torch_lr_finder import LRFinder

        finder = LRFinder(run.model, run.optimizer(run.lr), _loss)
        # By default the first rate is the optimizer's rate, and the package's examples set that to 1e-7.
        finder.range_test(run.loader(), start_lr=1e-7, end_lr=10, num_iter=100)
        try:
            # Only the plot returns a suggestion. A figure outside of pyplot is never shown, and need not be closed.
            _, lr = finder.plot(ax=Figure().subplots(), suggest_lr=True)
        except RuntimeError as error:  # too few steps before the loss diverged
            return Suggestion(None, run.steps, str(error))
    return Suggestion(lr, run.steps)


def fastai_valley(config: dict[str, Any], data: LightningDataModule) -> Suggestion:
    """``Learner.lr_find``: 100 steps, from 1e-7 to 10; a point in the longest valley of the smoothed loss."""
    run = _Run(config, data)
    with _suppress_output() as folder:
        from fastai.callback.schedule import valley
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner
        from fastai.optimizer import OptimWrapper

        def wrapped(_: Any, lr: float) -> OptimWrapper:
            # Not a wrapper made earlier: fastai would clear its state, and Adagrad has state from the start.
            return OptimWrapper(opt=run.optimizer(lr))

        loader = run.loader()
        # The test skips validation, but fastai needs a validation loader.
        learner = Learner(DataLoaders(loader, loader), run.model, loss_func=_loss, opt_func=wrapped, path=folder)
        with learner.no_bar():
            try:
                lr = learner.lr_find(suggest_funcs=(valley,), show_plot=False).valley
            except IndexError:
                left = learner.recorder.losses[10:-5]  # the losses that lr_find passes to valley, without NaN
                if left and not math.isnan(left[0]):
                    raise  # an error of another cause
                return Suggestion(None, run.steps, "no loss before the first NaN is left once the ends are cut off")
    return Suggestion(lr, run.steps)


PEERS: dict[str, Callable[[dict[str, Any], LightningDataModule], Suggestion]] = {
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
    "fastai valley": fastai_valley,
}


class _Run:
    """The input of a peer: model, optimizer and batches of ``loop.train``. It counts the optimizer's steps."""

    def __init__(self, config: dict[str, Any], data: LightningDataModule) -> None:
        seed_everything(config["seed"], workers=True, verbose=False)
        node = {k: getattr(data, k) if v == "auto" else v for k, v in config["model"].items()}
        self.model = configs.build(node, "model")
        self.config = config
        self.lr: float = config["optimizer"]["lr"]
        self.batches = data.train_dataloader()
        self.batches.seed = config["data"]["seed"]
        self.steps = 0

    def optimizer(self, lr: float) -> Optimizer:
        """Return the configured optimizer. Its rate is of no importance: each peer sets one before the first step."""
        node = self.config["optimizer"]
        options = {k: v for k, v in node.items() if k not in ("_target_", "lr")}
        groups = split_parameters(self.model, self.config["param_groups"])
        optimizer = factory.build_optimizer(
            node["_target_"], options, [group.options(lr * group.lr_scale) for group in groups]
        )
        factory.switch_mode(optimizer, training=True)  # else schedule-free optimizers refuse to step
        optimizer.register_step_post_hook(self._count)
        return optimizer

    def loader(self) -> DataLoader[Any]:
        """Return the batches as a ``DataLoader``, for peers that require one."""
        return DataLoader(_Epochs(self.batches), batch_size=None)

    def _count(self, *_: Any) -> None:
        self.steps += 1


class _Epochs(IterableDataset[Any]):
    """Batches in the order of the next epoch at each iteration."""

    def __init__(self, batches: TensorLoader[Any]) -> None:
        self.batches = batches
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        self.batches.set_epoch(self.epoch)
        self.epoch += 1
        yield from self.batches

    def __len__(self) -> int:
        return len(self.batches)


class _Tunable(Supervised):
    """lrkit's module for Lightning's tuner, which needs the learning rate as an attribute."""

    def __init__(self, run: _Run) -> None:
        super().__init__(run.model)
        self.lr = run.lr
        self._run = run

    def configure_optimizers(self) -> Optimizer:
        return self._run.optimizer(self.lr)


@contextmanager
def _suppress_output() -> Iterator[str]:
    """Within this context, there is no output, and the working folder is a temporary one."""
    disabled = logging.root.manager.disable
    with (
        TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield folder
        finally:
            logging.disable(disabled)


def _loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out.flatten(0, -2), y.flatten())
