"""Lightning's loop without what nobody reads: what it spends on a step should not be more than the step itself.

At each of a dozen places in a step Lightning calls each callback, and around each call it formats a name and opens a
context for its profiler. lrkit's own callbacks are many and small; so they are handed to Lightning as one, which passes
on to each only what it listens to. And where no profiler was asked for, there is one that does nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lrkit.lightning.classes import Callback, PassThroughProfiler

__all__ = ["CallbackList", "NoProfiler"]

_HOOKS = [name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


class CallbackList(Callback):
    """Several callbacks as one, in their order.

    Args:
        parts: the callbacks; no two of the same kind with a state.

    >>> class Count(Callback):
    ...     seen = 0
    ...
    ...     def on_train_start(self, trainer, pl_module):
    ...         self.seen += 1
    >>> count = Count()
    >>> CallbackList([count, Callback()]).on_train_start(None, None)
    >>> count.seen
    1
    """

    def __init__(self, parts: Sequence[Callback]) -> None:
        self.parts = tuple(parts)
        for name in _HOOKS:
            listening = [
                getattr(part, name) for part in parts if getattr(type(part), name) is not getattr(Callback, name)
            ]
            if listening:
                setattr(self, name, listening[0] if len(listening) == 1 else _each(listening))

    @property
    def state_key(self) -> str:
        return "AsOne"  # the name in checkpoints, which outlives that of the class

    def state_dict(self) -> dict[str, Any]:
        states = {part.state_key: part.state_dict() for part in self.parts}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part in self.parts:
            if part.state_key in state_dict:
                part.load_state_dict(state_dict[part.state_key])


def _each(hooks: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call(*args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)

    return call


class NoProfiler(PassThroughProfiler):
    """No profiler: one context for all, where Lightning makes a generator for each thing that it does not time."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self._nothing
