"""The optimizers that a module's own ``configure_optimizers`` creates, for a comparison with the plan.

lrkit calls the method once and discards the optimizers. If it raises an error, lrkit does without the comparison. All
changes to the module (weights, frozen parameters, attributes) and to the random generators are undone.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.planning.optimizer_tracks import KEY

__all__ = ["OwnOptimizers", "find_own_optimizers", "order_tracks", "refuse_several"]

#: The most optimizers for which every order is tried; with more, the order is that of the config.
_MOST = 7


@dataclass(frozen=True)
class OwnOptimizers:
    """The optimizers of a module.

    Args:
        optimizers: for each, the name of its class, and the names of its parameters.
        scheduled: for each scheduler, the index of its optimizer; None if an index is unknown.
    """

    optimizers: tuple[tuple[str, frozenset[str]], ...]
    scheduled: list[int] | None


def find_own_optimizers(module: nn.Module) -> OwnOptimizers | None:
    """Return the optimizers that the module's class creates; None if it has no such method, or the method fails."""
    method: Any = getattr(type(module), "configure_optimizers", None)
    if method is None or method.__module__.partition(".")[0] in ("pytorch_lightning", "lightning"):
        return None
    try:
        with _restore_module_after(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about objects that are discarded
            optimizers, schedulers = _split_result(method(module))
    except Exception:  # raised by the user's code, which may need a training
        return None
    if not optimizers or not all(isinstance(each, Optimizer) for each in optimizers):
        return None
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = tuple(
        (type(each).__name__, frozenset(names[id(p)] for g in each.param_groups for p in g["params"] if id(p) in names))
        for each in optimizers
    )
    places = {id(each): i for i, each in enumerate(optimizers)}
    scheduled = [places.get(id(getattr(each, "optimizer", None)), -1) for each in schedulers]
    return OwnOptimizers(found, None if -1 in scheduled else scheduled)


def refuse_several(module: nn.Module) -> None:
    """Refuse a module with manual optimization that creates several optimizers, in a run with one.

    Raises:
        ConfigError: with the optimizers, and the key to set.
    """
    own = find_own_optimizers(module)
    if own is not None and len(own.optimizers) > 1:
        raise _make_several_error(own, module)


def _make_several_error(own: OwnOptimizers, module: nn.Module) -> ConfigError:
    roots = [list(dict.fromkeys(n.partition(".")[0] for n, _ in module.named_parameters() if n in names))
             for _, names in own.optimizers]  # fmt: skip
    made = ", ".join(f"{cls} of {_join_by_and(of)}" for (cls, _), of in zip(own.optimizers, roots, strict=True))
    said = f"must be set, because {type(module).__name__}.configure_optimizers makes {len(roots)} optimizers ({made})"
    shared = [root for root in dict.fromkeys(r for each in roots for r in each) if sum(root in r for r in roots) > 1]
    if shared or not all(roots):
        what = f", each with a pattern for its parameters; {_join_by_and(shared)} is in several, and must be in one"
        return ConfigError(KEY, f"{said}: say {KEY}={{first: {{parameters: '^...'}}, ...}}{what if shared else ''}")
    parts = {name for name, _ in module.named_children()}

    def node(of: Sequence[str]) -> str:
        end = "[.]" if parts.issuperset(of) else ""  # so that `net` does not match `net_ema`
        return "{}" if len(of) == 1 else f"{{parameters: '^({'|'.join(of)}){end}'}}"

    nodes = ", ".join(f"{of[0]}: {node(of)}" for of in roots)
    return ConfigError(
        KEY, f"{said}: say '{KEY}={{{nodes}}}'" if "'" not in nodes else f'{said}: say "{KEY}={{{nodes}}}"'
    )


def order_tracks(own: OwnOptimizers, module: nn.Module, tracks: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of the tracks in the order of the module's own optimizers, that of ``self.optimizers()``.

    It is the order in which tracks and optimizers share the most parameters; if two orders share equally many, the
    order of the config.

    Raises:
        ConfigError: the number of tracks differs from the number of the module's optimizers.
    """
    theirs = [names for _, names in own.optimizers]
    if len(theirs) != len(tracks):
        must = f"must have {len(theirs)} names, one for each optimizer of {type(module).__name__}.configure_optimizers"
        raise ConfigError(KEY, must, list(tracks))
    if len(theirs) > _MOST:
        return list(tracks)

    def common(order: Iterable[str]) -> int:
        return sum(len(names.intersection(tracks[name])) for names, name in zip(theirs, order, strict=True))

    return list(max(permutations(tracks), key=common))  # max returns the first of equals


def _split_result(made: Any) -> tuple[list[Any], list[Any]]:
    """Return the optimizers and the schedulers, from any return value that Lightning accepts."""
    if isinstance(made, Optimizer):
        return [made], []
    if isinstance(made, Mapping):
        made = [made]
    if not isinstance(made, Sequence):
        return [], []
    if len(made) == 2 and isinstance(made[0], list):
        schedulers = made[1] if isinstance(made[1], list) else [made[1]]
        return made[0], [_get_scheduler(each) for each in schedulers]
    if made and all(isinstance(each, Mapping) for each in made):
        schedulers = [_get_scheduler(each["lr_scheduler"]) for each in made if each.get("lr_scheduler")]
        return [each["optimizer"] for each in made], schedulers
    return list(made), []


def _get_scheduler(scheduler: Any) -> Any:
    return scheduler.get("scheduler") if isinstance(scheduler, Mapping) else scheduler


@contextmanager
def _restore_module_after(module: nn.Module) -> Iterator[None]:
    """After this context, the module and the random generators are in their earlier state."""
    tensors = [*module.parameters(), *module.buffers()]
    # The copies fit into memory: the gradients, of the same size, do not exist yet.
    before = [(t, t.detach().clone(), t._version, t.requires_grad) for t in tensors]
    inside = [vars(part) for part in module.modules()]
    inside += [part[name] for part in inside for name in ("_parameters", "_buffers", "_modules")]
    attributes = [(names, dict(names)) for names in inside]
    drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        for now, were in attributes:
            now.clear()
            now.update(were)
        with torch.no_grad():
            for tensor, copy, version, trains in before:
                if tensor._version != version:
                    tensor.copy_(copy)
                if tensor.requires_grad != trains:
                    tensor.requires_grad_(trains)
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.set_rng_state(drawn[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _join_by_and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
