"""The policies of the divergence guard: each is a class with a rule for a suspicious loss and a reaction.

To add a policy, add a subclass of ``Policy`` here; its name in YAML is the name of the class in lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lrkit.planning.guard import Guard, LossStatistics

__all__ = ["POLICIES", "Action", "Policy", "policies_for_several", "policy_named"]


@dataclass(frozen=True)
class Action:
    """The reaction of the guard to an optimizer step, which is left out in any case.

    Args:
        why: the reason for the reaction.
        stop: end the run as diverged.
        roll_back: load the last good copy of the weights and of the optimizer's state.
        lower_rate: multiply the gain by ``guard.gain``, and rise to it within ``guard.warmup``.
    """

    why: str
    stop: bool = False
    roll_back: bool = False
    lower_rate: bool = False


class Policy:
    """One policy of the guard: plain decisions, which ``callbacks.divergence_guard`` carries out."""

    #: Whether the step must wait until its loss is known; otherwise a GPU may be some steps ahead.
    waits_for_loss: ClassVar[bool] = True
    #: Whether copies of the weights and of the optimizer's state are kept, ``guard.every`` apart.
    keeps_copies: ClassVar[bool] = False
    #: Whether it lowers the rate, which the formula in the plan then shows.
    lowers_rate: ClassVar[bool] = False
    #: Whether it needs a run with one optimizer.
    needs_one_optimizer: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its name in YAML and in ``events.json``."""
        return type(self).__name__.lower()

    def describe(self, guard: Guard) -> str:
        """A line for the plan about a lower rate; an empty string if the policy lowers none."""
        return ""

    def describe_action(self, gain: float | None) -> str:
        """The reaction in words, for a line on the screen; ``gain`` is the new gain where the rate was lowered."""
        raise NotImplementedError

    def suspicious_loss(self, guard: Guard, losses: LossStatistics) -> float:
        """The loss above which a loss is suspicious."""
        return losses.limit(guard.spike)

    def usual_loss(self, losses: LossStatistics) -> str:
        """The loss with which a suspicious one is compared, in words."""
        return f"{losses.middle:.4g} usually"

    def tolerated_losses(self, guard: Guard) -> int:
        """How many suspicious losses in a row make a step bad: 1 is at once."""
        return guard.patience

    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:
        """The action at a bad step.

        Args:
            why: the reason.
            in_a_row: how many bad steps there were in a row, with this one.
            reductions: how often the rate was lowered before.
        """
        raise NotImplementedError


class Stop(Policy):
    """End the run, where something is not finite or ``patience`` losses in a row are far above the first ones."""

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
    """Go back to the last good weights, and on at a lower rate; at most ``most`` times, then the run ends."""

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
    """The policy of that name.

    >>> policy_named("skip").describe_action(None)
    'skipped'
    """
    return _BY_NAME[name]


def policies_for_several() -> list[str]:
    """The names of the policies that a run with several optimizers may have."""
    return [name for name in POLICIES if not policy_named(name).needs_one_optimizer]
