"""What a module's own ``configure_optimizers`` would make: asked, so that it can be compared with the plan.

It is called once, for its answer alone. Whatever it raises is no answer; and whatever it did to the module (weights,
what is frozen, attributes, random numbers) is undone, for lrkit does not call it otherwise.
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
from lrkit.planning.tracks import KEY

__all__ = ["OwnOptimizers", "order_tracks", "own_optimizers_of", "refuse_several"]

#: So many optimizers are tried in every order; a module with more keeps the order of the node.
_MOST = 7


@dataclass(frozen=True)
class OwnOptimizers:
    """The optimizers of a module.

    Args:
        optimizers: class name, and the names of the parameters of each.
        scheduled: of each scheduler the place of its optimizer; None where that cannot be told.
    """

    optimizers: tuple[tuple[str, frozenset[str]], ...]
    scheduled: list[int] | None


def own_optimizers_of(module: nn.Module) -> OwnOptimizers | None:
    """What ``configure_optimizers`` of the module's class makes; None where it does not say."""
    method: Any = getattr(type(module), "configure_optimizers", None)
    if method is None or method.__module__.partition(".")[0] in ("pytorch_lightning", "lightning"):
        return None
    try:
        with _untouched(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is thrown away
            optimizers, schedulers = _parts(method(module))
    except Exception:  # from the user's code, called outside of a training: no answer
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
    """For a module that takes its steps itself, in a run with one optimizer: it must not want several.

    Raises:
        ConfigError: what they are, and what to type.
    """
    own = own_optimizers_of(module)
    if own is not None and len(own.optimizers) > 1:
        raise _several(own, module)


def _several(own: OwnOptimizers, module: nn.Module) -> ConfigError:
    roots = [list(dict.fromkeys(n.partition(".")[0] for n, _ in module.named_parameters() if n in names))
             for _, names in own.optimizers]  # fmt: skip
    made = ", ".join(f"{cls} of {_and(of)}" for (cls, _), of in zip(own.optimizers, roots, strict=True))
    said = f"must be set, for {type(module).__name__}.configure_optimizers makes {len(roots)} optimizers ({made})"
    shared = [root for root in dict.fromkeys(r for each in roots for r in each) if sum(root in r for r in roots) > 1]
    if shared or not all(roots):
        what = f", each with a pattern for its parameters; {_and(shared)} is in more than one, and must be in one"
        return ConfigError(KEY, f"{said}: say {KEY}={{first: {{parameters: '^...'}}, ...}}{what if shared else ''}")
    parts = {name for name, _ in module.named_children()}

    def node(of: Sequence[str]) -> str:
        end = "[.]" if parts.issuperset(of) else ""  # so that `net` is not `net_ema` too
        return "{}" if len(of) == 1 else f"{{parameters: '^({'|'.join(of)}){end}'}}"

    nodes = ", ".join(f"{of[0]}: {node(of)}" for of in roots)
    return ConfigError(
        KEY, f"{said}: say '{KEY}={{{nodes}}}'" if "'" not in nodes else f'{said}: say "{KEY}={{{nodes}}}"'
    )


def order_tracks(own: OwnOptimizers, module: nn.Module, tracks: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of the tracks in the order of the module's own optimizers, which is that of ``self.optimizers()``.

    The order in which tracks and optimizers have the most parameters in common; where two orders have as many, that of
    the node.

    Raises:
        ConfigError: there are as many tracks as the module has optimizers, or else this.
    """
    theirs = [names for _, names in own.optimizers]
    if len(theirs) != len(tracks):
        must = f"must be {len(theirs)}, for so many {type(module).__name__}.configure_optimizers makes"
        raise ConfigError(KEY, must, list(tracks))
    if len(theirs) > _MOST:
        return list(tracks)

    def common(order: Iterable[str]) -> int:
        return sum(len(names.intersection(tracks[name])) for names, name in zip(theirs, order, strict=True))

    return list(max(permutations(tracks), key=common))  # the first of the best, and the node's is the first of all


def _parts(made: Any) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedulers, from any of the forms that Lightning takes."""
    if isinstance(made, Optimizer):
        return [made], []
    if isinstance(made, Mapping):
        made = [made]
    if not isinstance(made, Sequence):
        return [], []
    if len(made) == 2 and isinstance(made[0], list):
        schedulers = made[1] if isinstance(made[1], list) else [made[1]]
        return made[0], [_bare(each) for each in schedulers]
    if made and all(isinstance(each, Mapping) for each in made):
        return [each["optimizer"] for each in made], [_bare(e["lr_scheduler"]) for e in made if e.get("lr_scheduler")]
    return list(made), []


def _bare(scheduler: Any) -> Any:
    return scheduler.get("scheduler") if isinstance(scheduler, Mapping) else scheduler


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Afterwards the module and the random numbers are what they were."""
    tensors = [*module.parameters(), *module.buffers()]
    # The memory for it is there: gradients, which are as large, have not been made yet.
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


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
