"""The two sets of weights of a schedule-free optimizer: the training weights and the evaluation weights.

Gradients are computed at ``y``, a point between the sequence ``z`` and its average ``x``, which is the result:

    y = (1 - beta) z + beta x        x = y + (1 - 1/beta) (z - y)

(Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682). A checkpoint holds both:

    state_dict                 the evaluation weights x, for ``load_from_checkpoint`` and ``restart``
    optimizer_states           the states of the optimizers in evaluation mode, which match these weights
    lrkit.training_weights     the training weights y, by parameter name, where they differ; for resuming

In exact arithmetic each set follows from the other. In floating point it does not, so training weights are copied and
restored, not computed: neither a validation nor a checkpoint changes the training by a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.optim.factory import evaluation_copy, has_modes, restore_weights, switch_mode, training_weights

__all__ = ["TRAINING_WEIGHTS", "EvaluationMode"]

#: The key of the training weights in a checkpoint.
TRAINING_WEIGHTS = "lrkit.training_weights"


class TrainingWeights(NamedTuple):
    """A parameter in evaluation mode, and a copy of its training weights."""

    parameter: Tensor
    training: Tensor
    version: int  #: torch's version counter of the parameter when it got its evaluation weights

    @property
    def is_current(self) -> bool:
        """Whether the parameter still has its evaluation weights: its version counter has not changed."""
        return self.parameter._version == self.version


class EvaluationMode(Callback):
    """Switches optimizers with two sets of weights to evaluation mode for validations and checkpoints."""

    def __init__(self) -> None:
        self.stored: list[TrainingWeights] = []
        self.was_training: list[bool] = []
        self.restored: Mapping[str, Tensor] = {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            self.restored = checkpoint.get(TRAINING_WEIGHTS, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            switch_mode(optimizer, training=True)
        parameters = dict(pl_module.named_parameters(remove_duplicate=False))
        for name, value in self.restored.items():
            if name in parameters and value.shape != parameters[name].shape:  # torch would repeat a smaller one
                shape = tuple(parameters[name].shape)
                raise ConfigError(f"{TRAINING_WEIGHTS}.{name}", f"must have the shape {shape}", tuple(value.shape))
        restore_weights([(parameters[name], value) for name, value in self.restored.items() if name in parameters])
        self.restored, self.stored = {}, []
        strategy = trainer.strategy
        if any(map(has_modes, trainer.optimizers)) and not isinstance(strategy.lightning_module_state_dict, partial):
            # Lightning saves the weights that this method returns. It calls no callback when it saves only weights.
            state_dict = partial(_evaluation_state_dict, trainer, strategy.lightning_module_state_dict)
            strategy.lightning_module_state_dict = state_dict  # type: ignore[method-assign]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.was_training = self._switch_to_evaluation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, training in zip(trainer.optimizers, self.was_training, strict=True):
            if training and has_modes(optimizer):
                switch_mode(optimizer, training)
                own = {id(p) for group in optimizer.param_groups for p in group["params"]}
                restore_weights([(each.parameter, each.training) for each in self.stored if id(each.parameter) in own])
                self.stored = [each for each in self.stored if id(each.parameter) not in own]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._switch_to_evaluation(trainer)  # after the fit the module has its evaluation weights

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        optimizers = [optimizer for optimizer in trainer.optimizers if has_modes(optimizer)]
        if "optimizer_states" not in checkpoint or not optimizers:
            return
        copies = {id(optimizer): evaluation_copy(optimizer) for optimizer in optimizers}
        checkpoint["optimizer_states"] = [
            copies[id(optimizer)].state_dict() if id(optimizer) in copies else state
            for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        training = {id(each.parameter): each.training for each in self.stored if each.is_current}
        training |= {
            id(p): p.detach()
            for p, shown in _parameter_pairs(optimizers, copies.values())
            if not _is_identical(p, shown)
        }
        names = pl_module.named_parameters(remove_duplicate=False)
        checkpoint[TRAINING_WEIGHTS] = {name: training[id(p)] for name, p in names if id(p) in training}

    def _switch_to_evaluation(self, trainer: Trainer) -> list[bool]:
        """Switch the optimizers to evaluation mode, store the training weights, return which were in training mode."""
        was_training = []
        for optimizer in trainer.optimizers:
            weights = training_weights(optimizer)
            was_training.append(switch_mode(optimizer, training=False))
            self.stored += [TrainingWeights(parameter, value, parameter._version) for parameter, value in weights]
        return was_training


def _evaluation_state_dict(trainer: Trainer, get_state_dict: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The state dict that Lightning would save, with evaluation weights."""
    content = get_state_dict()
    optimizers = [optimizer for optimizer in trainer.optimizers if has_modes(optimizer)]
    shown = {
        id(p): value
        for p, value in _parameter_pairs(optimizers, map(evaluation_copy, optimizers))
        if not _is_identical(p, value)
    }
    parameters = dict(trainer.lightning_module.named_parameters(remove_duplicate=False))
    # A module may save its weights under other names: they are then found by their memory address.
    by_address = {p.data_ptr(): p for p in parameters.values() if id(p) in shown} if shown else {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            p = parameters[name] if name in parameters else by_address.get(value.data_ptr())
            if p is not None and id(p) in shown and p.shape == value.shape:
                content[name] = shown[id(p)]
    return content


def _parameter_pairs(optimizers: Iterable[Optimizer], copies: Iterable[Optimizer]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of the optimizers, and the same parameter in the optimizer's copy."""
    for optimizer, copy in zip(optimizers, copies, strict=True):
        for group, copied in zip(optimizer.param_groups, copy.param_groups, strict=True):
            yield from zip(group["params"], copied["params"], strict=True)


def _is_identical(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, including the sign of zeros."""
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())
