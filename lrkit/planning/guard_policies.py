"""The policies of the divergence guard: each is a class with a rule for a suspicious loss, and an action.

To add a policy, add a subclass of ``Policy`` here; its name in YAML is the name of the class in lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lrkit.planning.guard import Guard
    from lrkit.planning.loss_statistics import LossStatistics

__all__ = ["POLICIES", "Action", "Policy", "policies_for_several", "policy_named"]


@dataclass(frozen=True)
class Action:
    """The action of the guard at a bad step. The optimizer step itself is always left out.

    Args:
        why: the reason for the action.
        stop: end the run as diverged.
        roll_back: load the last good copy of the weights and of the optimizer's state.
        lower_rate: multiply the gain by ``guard.gain``, and rise to it within ``guard.warmup``.
    """

    why: str
    stop: bool = False
    roll_back: bool = False
    lower_rate: bool = False


class Policy:
    """A policy of the guard: it decides, and ``callbacks.divergence_guard`` carries out the action."""

    #: Whether each step waits for the value of its loss; otherwise a GPU may be some steps ahead.
    waits_for_loss: ClassVar[bool] = True
    #: Whether the guard keeps copies of the weights and of the optimizer's state, one each ``guard.every``.
    keeps_copies: ClassVar[bool] = False
    #: Whether the policy lowers the rate; the formula in the plan then shows the gain.
    lowers_rate: ClassVar[bool] = False
    #: Whether the policy needs a run with one optimizer.
    needs_one_optimizer: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The name in YAML and in ``events.json``."""
        return type(self).__name__.lower()

    def describe(self, guard: Guard) -> str:
        """Return a line for the plan about a lower rate; empty if the policy does not lower the rate."""
        return ""

    def describe_action(self, gain: float | None) -> str:
        """Return the action in words, for the terminal; ``gain`` is the new gain if the rate was lowered."""
        raise NotImplementedError

    def suspicious_loss(self, guard: Guard, losses: LossStatistics) -> float:
        """Return the limit above which a loss is suspicious."""
        return losses.limit(guard.spike)

    def usual_loss(self, losses: LossStatistics) -> str:
        """Return in words the loss with which a suspicious loss is compared."""
        return f"{losses.middle:.4g} usually"

    def tolerated_losses(self, guard: Guard) -> int:
        """Return the number of suspicious losses in a row that make a step bad; 1: each one does."""
        return guard.patience

    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:
        """Return the action at a bad step.

        Args:
            why: the reason.
            in_a_row: the number of bad steps in a row, including this one.
            reductions: the number of earlier reductions of the rate.
        """
        raise NotImplementedError


class Stop(Policy):
    """End the run at a value that is not finite, or after ``patience`` losses in a row far above the first losses."""

    waits_for_loss = False
    needs_one_optimizer = False

    def describe_action(self, gain: float | None) -> str:
        return "stopped"

    def suspicious_loss(self, guard: Guard, losses: LossStatistics) -> float:
        return losses.far(guard.far)

    def usual_loss(self, losses: LossStatistics) -> str:
        return f"{losses.began:.4g} at the beginning"

    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:
        return Action(why, stop=True)


class Skip(Policy):
    """Leave out each bad step; more than ``patience`` of them in a row end the run."""

    def describe_action(self, gain: float | None) -> str:
        return "skipped"

    def tolerated_losses(self, guard: Guard) -> int:
        return 1

    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:
        if in_a_row > guard.patience:
            return Action(f"{in_a_row} steps in a row would have been skipped; {why}", stop=True)
        return Action(why)


class Reduce(Policy):
    """Load the last good weights and continue at a lower rate; at most ``most`` times, then end the run."""

    keeps_copies = True
    lowers_rate = True

    def describe(self, guard: Guard) -> str:
        return f"gain x {guard.gain:g} from the last good weights when the run diverges, at most {guard.most} times"

    def describe_action(self, gain: float | None) -> str:
        return f"back to the last good weights, gain {gain}"

    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:
        if reductions >= guard.most:
            return Action(f"{why}, and the rate was reduced {guard.most} times", stop=True)
        return Action(why, roll_back=True, lower_rate=True)


_BY_NAME = {policy.name: policy for policy in (kind() for kind in Policy.__subclasses__())}
#: The names of the policies, in the order of their numbers in TensorBoard's curve ``guard``.
POLICIES = tuple(_BY_NAME)


def policy_named(name: str) -> Policy:
    """Return the policy with this name.

    >>> policy_named("skip").describe_action(None)
    'skipped'
    """
    return _BY_NAME[name]


def policies_for_several() -> list[str]:
    """Return the names of the policies for a run with several optimizers."""
    return [name for name in POLICIES if not policy_named(name).needs_one_optimizer]
