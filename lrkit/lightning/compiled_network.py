"""The network compiled by ``torch.compile``: the key ``compile``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["CompiledNetwork", "find_networks"]


class CompiledNetwork(Callback):
    """Compiles the networks of a module before its first batch, in place: names in a checkpoint do not change.

    The optimizer's step is not compiled. So the learning rate is no part of the compiled program, and a schedule
    compiles nothing again; another shape of the input does.

    Args:
        options: ``mode``, ``backend``, ``dynamic``, ``fullgraph`` and ``options`` of ``torch.compile``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        networks = list(find_networks(pl_module))
        if not networks:
            must = f"must be false: {type(pl_module).__name__} has no network with parameters among its attributes"
            raise ConfigError("compile", must, True)
        for network in networks:
            network.compile(**self.options)


def find_networks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks of a module: its attributes that have parameters, and are called as a whole.

    A list or a dictionary of networks is not called, but its members are.

    >>> from torch.nn import Linear, ModuleList, ReLU
    >>> [type(part).__name__ for part in find_networks(ModuleList([Linear(1, 1), ReLU()]))]
    ['Linear']
    """
    for part in module.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from find_networks(part)
        elif next(part.parameters(), None) is not None:
            yield part
