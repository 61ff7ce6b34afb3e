"""The two sets of weights of a schedule-free optimizer: those that train, and those that are evaluated and used.

Gradients are taken at ``y``, a point between the sequence ``z`` and its average ``x``, which is the result:

    y = (1 - beta) z + beta x        x = y + (1 - 1/beta) (z - y)

(Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682). A checkpoint holds both:

    state_dict                 the evaluation weights x, for use: by ``load_from_checkpoint``, by ``restart``
    optimizer_states           the optimizer's, in evaluation mode, as belongs to them
    lrkit.training_weights     the training weights y, by the names of the parameters, where they differ; to go on with

In exact arithmetic the one follows from the other. In floating point it does not, so training weights are copied and
put back, never computed back: neither a validation nor a checkpoint changes the training by a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.classes import Callback, LightningModule, Trainer
from lrkit.optim.factory import evaluation_copy, has_modes, restore_weights, switch_mode, training_weights

__all__ = ["TRAINING_WEIGHTS", "EvaluationMode"]

#: Where a checkpoint keeps the training weights.
TRAINING_WEIGHTS = "lrkit.training_weights"


class TrainingWeights(NamedTuple):
    """A parameter that holds its evaluation weights, and its training weights."""

    parameter: Tensor
    training: Tensor
    version: int  #: of the parameter when it was given them

    @property
    def is_current(self) -> bool:
        """Whether the parameter still holds them: nobody has given it others."""
        return self.parameter._version == self.version


class EvaluationMode(Callback):
    """Puts optimizers that keep two sets of weights into the mode that is to be evaluated and saved."""

    def __init__(self) -> None:
        self.aside: list[TrainingWeights] = []
        self.before: list[bool] = []
        self.saved: Mapping[str, Tensor] = {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            self.saved = checkpoint.get(TRAINING_WEIGHTS, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            switch_mode(optimizer, training=True)
        parameters = dict(pl_module.named_parameters(remove_duplicate=False))
        for name, value in self.saved.items():
            if name in parameters and value.shape != parameters[name].shape:  # torch would repeat a smaller one
                shape = tuple(parameters[name].shape)
                raise ConfigError(f"{TRAINING_WEIGHTS}.{name}", f"must have the shape {shape}", tuple(value.shape))
        restore_weights([(parameters[name], value) for name, value in self.saved.items() if name in parameters])
        self.saved, self.aside = {}, []
        strategy = trainer.strategy
        if any(map(has_modes, trainer.optimizers)) and not isinstance(strategy.lightning_module_state_dict, partial):
            # Where Lightning takes the weights from: callbacks are not asked when weights alone are saved.
            shown = partial(_state_dict, trainer, strategy.lightning_module_state_dict)
            strategy.lightning_module_state_dict = shown  # type: ignore[method-assign]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = self._evaluate(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, training in zip(trainer.optimizers, self.before, strict=True):
            if training and has_modes(optimizer):
                switch_mode(optimizer, training)
                mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
                restore_weights([(each.parameter, each.training) for each in self.aside if id(each.parameter) in mine])
                self.aside = [each for each in self.aside if id(each.parameter) not in mine]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(trainer)  # what is left in memory is what was evaluated

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        optimizers = [optimizer for optimizer in trainer.optimizers if has_modes(optimizer)]
        if "optimizer_states" not in checkpoint or not optimizers:
            return
        twins = {id(optimizer): evaluation_copy(optimizer) for optimizer in optimizers}
        checkpoint["optimizer_states"] = [
            twins[id(optimizer)].state_dict() if id(optimizer) in twins else state
            for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        training = {id(each.parameter): each.training for each in self.aside if each.is_current}
        training |= {id(p): p.detach() for p, shown in _pairs(optimizers, twins.values()) if not _same(p, shown)}
        names = pl_module.named_parameters(remove_duplicate=False)
        checkpoint[TRAINING_WEIGHTS] = {name: training[id(p)] for name, p in names if id(p) in training}

    def _evaluate(self, trainer: Trainer) -> list[bool]:
        """Switch to evaluation, and keep the training weights; which optimizers were in training mode."""
        before = []
        for optimizer in trainer.optimizers:
            weights = training_weights(optimizer)
            before.append(switch_mode(optimizer, training=False))
            self.aside += [TrainingWeights(parameter, value, parameter._version) for parameter, value in weights]
        return before


def _state_dict(trainer: Trainer, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The weights as Lightning would save them, but those of evaluation."""
    content = ask()
    optimizers = [optimizer for optimizer in trainer.optimizers if has_modes(optimizer)]
    shown = {id(p): value for p, value in _pairs(optimizers, map(evaluation_copy, optimizers)) if not _same(p, value)}
    parameters = dict(trainer.lightning_module.named_parameters(remove_duplicate=False))
    # A module may save its weights under other names; they are known by their memory then.
    places = {p.data_ptr(): p for p in parameters.values() if id(p) in shown} if shown else {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            p = parameters[name] if name in parameters else places.get(value.data_ptr())
            if p is not None and id(p) in shown and p.shape == value.shape:
                content[name] = shown[id(p)]
    return content


def _pairs(optimizers: Iterable[Optimizer], twins: Iterable[Optimizer]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of the optimizers, and the copy of it that its twin owns."""
    for optimizer, twin in zip(optimizers, twins, strict=True):
        for mine, theirs in zip(optimizer.param_groups, twin.param_groups, strict=True):
            yield from zip(mine["params"], theirs["params"], strict=True)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, to the sign of a zero."""
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())
