"""The number of applied optimizer steps, which a GPU may know before the host.

Under 16-bit gradients torch calls a fused optimizer at each step, and a value on the device says whether it took the
step. Reading it at once would make the host wait for all work that it has queued. So the step is counted, the value is
copied without waiting, and a step that was skipped is taken back before the next one; by then the copy has arrived.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lrkit.optim.host_copy import HostCopy

__all__ = ["AppliedSteps"]


class AppliedSteps:
    """Counts the optimizer steps that were applied.

    Attributes:
        at_most: the number of applied steps, or one more while it is not known that the last one was skipped.
        is_known: whether ``at_most`` is the number of applied steps. An attribute, because each step reads it.

    >>> import torch
    >>> steps = AppliedSteps()
    >>> steps.add()
    >>> steps.add(skipped=torch.tensor(1.0))
    >>> steps.at_most, steps.is_known
    (1, True)
    """

    def __init__(self) -> None:
        self.at_most, self.is_known = 0, True
        self._last: _SkippedFlag | None = None  # of the last step, until it was read

    def set(self, count: int) -> None:
        self.at_most, self.is_known, self._last = count, True, None

    def add(self, skipped: Tensor | None = None) -> None:
        """Count a step; ``skipped`` is not 0 if it was skipped after all."""
        late = skipped is not None and HostCopy.is_useful(skipped)
        if skipped is None or late or not bool(skipped):
            self.at_most += 1
        self._last = _SkippedFlag(skipped) if late and skipped is not None else None
        self.is_known = self._last is None

    def settle(self) -> bool:
        """Make the count exact; return whether the last step was skipped. Waits for the device of a value."""
        last, self._last, self.is_known = self._last, None, True
        skipped = last is not None and last.read()
        self.at_most -= skipped
        return skipped

    def ask_later(self) -> Callable[[], int]:
        """A function that returns the present number of applied steps. It waits, but not after the next step."""
        count, last = self.at_most, self._last
        return lambda: count if last is None else count - last.read()


class _SkippedFlag:
    """Whether a step was skipped: a value that is on its way to the host."""

    def __init__(self, skipped: Tensor) -> None:
        self._copy: HostCopy | None = HostCopy(skipped)
        self._value = False

    def read(self) -> bool:
        if self._copy is not None:
            self._value, self._copy = bool(self._copy.read()), None
        return self._value
