"""Less overhead in Lightning's loop: several callbacks as one, and a profiler that does nothing.

At each of a dozen hooks in a step Lightning calls each callback, and around each call it formats a name and opens a
context for its profiler. lrkit's own callbacks are many and small, so Lightning gets them as one callback, which calls
only the hooks that each of them overrides. Without a profiler in the config, ``NoProfiler`` replaces Lightning's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lrkit.lightning.imports import Callback, PassThroughProfiler

__all__ = ["CallbackList", "NoProfiler"]

_HOOKS = [name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


class CallbackList(Callback):
    """A callback that calls several callbacks, in their order.

    Args:
        parts: the callbacks; no two with the same state key and a state.

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
            overridden = [
                getattr(part, name) for part in parts if getattr(type(part), name) is not getattr(Callback, name)
            ]
            if overridden:
                setattr(self, name, overridden[0] if len(overridden) == 1 else _call_in_order(overridden))

    @property
    def state_key(self) -> str:
        return "AsOne"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        states = {part.state_key: part.state_dict() for part in self.parts}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part in self.parts:
            if part.state_key in state_dict:
                part.load_state_dict(state_dict[part.state_key])


def _call_in_order(hooks: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """A function that calls the hooks in their order."""

    def call(*args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)

    return call


class NoProfiler(PassThroughProfiler):
    """A profiler that does nothing, with one context for all actions: Lightning's creates a generator for each."""

    _context: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self._context
