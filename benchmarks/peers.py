"""What other range tests suggest for a configuration of lrkit, each by its own package with its own defaults.

They get what lrkit's own test gets: the same initial weights, the same batches in the same order and the optimizer as
configured, but for its rate, which is theirs to choose. No plan and no scheduler is attached: each brings its own. None
of them prints, warns or leaves a file behind. ``peers.txt`` says how to install the packages.
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

# The packages of the other two are imported where they are used: fastai takes seconds, and patches torch.Tensor.


@dataclass(frozen=True)
class Suggestion:
    """What a range test came to.

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
    with _quietly() as folder:
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

    Once the loss is NaN, that is where numpy sees the steepest fall, and the package suggests the rate there.
    """
    run = _Run(config, data)
    with _quietly():
        from matplotlib.figure import Figure
        from torch_lr_finder import LRFinder

        finder = LRFinder(run.model, run.optimizer(run.lr), _loss)
        # The first rate is the optimizer's own by default, and 1e-7 is what the package's examples give to that.
        finder.range_test(run.loader(), start_lr=1e-7, end_lr=10, num_iter=100)
        try:
            # Only drawing suggests. A figure that pyplot does not know is never shown, and needs no closing.
            _, lr = finder.plot(ax=Figure().subplots(), suggest_lr=True)
        except RuntimeError as error:  # too few steps before the loss diverged
            return Suggestion(None, run.steps, str(error))
    return Suggestion(lr, run.steps)


def fastai_valley(config: dict[str, Any], data: LightningDataModule) -> Suggestion:
    """``Learner.lr_find``: 100 steps, from 1e-7 to 10; a point in the longest valley of the smoothed loss."""
    run = _Run(config, data)
    with _quietly() as folder:
        from fastai.callback.schedule import valley
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner
        from fastai.optimizer import OptimWrapper

        def wrapped(_: Any, lr: float) -> OptimWrapper:
            # Not a wrapper made beforehand: fastai would clear its state, and Adagrad has some from the start.
            return OptimWrapper(opt=run.optimizer(lr))

        loader = run.loader()
        # The test skips validation, but fastai looks for the loader first.
        learner = Learner(DataLoaders(loader, loader), run.model, loss_func=_loss, opt_func=wrapped, path=folder)
        with learner.no_bar():
            try:
                lr = learner.lr_find(suggest_funcs=(valley,), show_plot=False).valley
            except IndexError:
                left = learner.recorder.losses[10:-5]  # what lr_find gives to valley, as far as it is not NaN
                if left and not math.isnan(left[0]):
                    raise  # about something else
                return Suggestion(None, run.steps, "no loss before the first NaN is left once the ends are cut off")
    return Suggestion(lr, run.steps)


PEERS: dict[str, Callable[[dict[str, Any], LightningDataModule], Suggestion]] = {
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
    "fastai valley": fastai_valley,
}


class _Run:
    """What a peer is given: model, optimizer and batches as ``loop.train`` has them. Counts the optimizer's steps."""

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
        """The configured optimizer. Its rate matters little: each peer sets its own before the first step."""
        node = self.config["optimizer"]
        options = {k: v for k, v in node.items() if k not in ("_target_", "lr")}
        groups = split_parameters(self.model, self.config["param_groups"])
        optimizer = factory.build_optimizer(
            node["_target_"], options, [group.options(lr * group.lr_scale) for group in groups]
        )
        factory.switch_mode(optimizer, training=True)  # schedule-free ones refuse to step before
        optimizer.register_step_post_hook(self._count)
        return optimizer

    def loader(self) -> DataLoader[Any]:
        """The batches as a real ``DataLoader``, for those who insist on one."""
        return DataLoader(_Epochs(self.batches), batch_size=None)

    def _count(self, *_: Any) -> None:
        self.steps += 1


class _Epochs(IterableDataset[Any]):
    """Batches in the next epoch's order each time."""

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
    """lrkit's module as Lightning's tuner wants it: the rate is an attribute."""

    def __init__(self, run: _Run) -> None:
        super().__init__(run.model)
        self.lr = run.lr
        self._run = run

    def configure_optimizers(self) -> Optimizer:
        return self._run.optimizer(self.lr)


@contextmanager
def _quietly() -> Iterator[str]:
    """No output from within, and a folder that is gone afterwards."""
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
