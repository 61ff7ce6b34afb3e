"""Which jobs of a sweep run as one program (``stack=auto``), and which key keeps the others apart."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.plural import plural
from lrkit.base.process_pool import PATIENCE
from lrkit.config import compose as configs
from lrkit.stacking.stackable_config import why_not_stackable, without_free_keys
from lrkit.sweep.job import Job

__all__ = ["form_units", "seconds_to_save"]

#: Jobs of a stack at most: their weights, gradients and optimizer states are in memory at the same time.
MOST = 128
#: Jobs of a stack at least, where it is divided among parallel processes.
LEAST = 4
#: Seconds in which a job of a stack writes its files, after those before it; a small one needs 0.3 s.
_SECONDS_A_JOB = 5


def form_units(
    jobs: Sequence[Job],
    config_of: Callable[[Job], Mapping[str, Any]],
    why_alone: Callable[[Job, Mapping[str, Any]], tuple[str, str] | None],
    at_a_time: int,
) -> tuple[list[list[Job]], list[str]]:
    """Return the jobs in groups, each for one process, and lines for the user about the stacks.

    Args:
        jobs: the jobs to run.
        config_of: returns the resolved config of a job.
        why_alone: returns the key that gives a job with this config its own process, and the reason; None for none.
        at_a_time: number of parallel processes, among which a stack is divided.

    Raises:
        ConfigError: with ``stack=on``, a job does not fit a stack; the message names the key.
    """
    if not jobs or (asked := config_of(jobs[0]).get("stack", "off")) == "off":
        return [[job] for job in jobs], []
    alike: dict[str, list[Job]] = {}
    reasons: Counter[str] = Counter()
    for job in jobs:
        config = config_of(job)
        refused = why_alone(job, config) or _find_reason(config)
        if refused is not None and asked == "on":
            raise ConfigError("stack", f"must be auto or off: {refused[0]} does not fit, {refused[1]}", asked)
        if refused is not None:
            reasons[f"{refused[0]} ({refused[1]})"] += 1
        group = f"alone {job.number}" if refused is not None else _name_group(config)
        alike.setdefault(group, []).append(job)
    units = [part for group in alike.values() for part in _divide(group, at_a_time)]
    sizes = [len(unit) for unit in units if len(unit) > 1]
    notes = [f"stack={asked}: {sum(sizes)} jobs run as {plural(len(sizes), 'stack')}"] if sizes else []
    notes += [f"stack={asked}: {plural(count, 'job')} run separately, by {reason}" for reason, count in reasons.items()]
    if asked == "auto" and not sizes and not reasons:
        notes = ["stack=auto: the jobs run separately: no two differ in rate, schedule, weight decay or seed alone"]
    return sorted(units, key=lambda unit: unit[0].number), notes


def seconds_to_save(jobs: int) -> float:
    """Return how long a sweep that is stopped waits for a process with some jobs, which save one after the other.

    >>> seconds_to_save(1), seconds_to_save(128)
    (60, 695)
    """
    return PATIENCE + _SECONDS_A_JOB * (jobs - 1)


def _find_reason(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the key that keeps a job out of a stack, with the reason; None if it can be a member."""
    if config.get("timeout") is not None:
        return "timeout", "a time limit is that of one process"
    if (refused := why_not_stackable(config)) is not None:
        return refused
    try:
        configs.check(config)
    except ConfigError as error:
        return error.key, "the job is refused"
    return None


def _name_group(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for the jobs of a stack."""
    own = {key: value for key, value in without_free_keys(config).items() if key not in ("jobs", "on_error")}
    return json.dumps(own, sort_keys=True, default=str)


def _divide(group: Sequence[Job], at_a_time: int) -> list[list[Job]]:
    """Return the jobs of a group in stacks: one for each parallel process, if each then has enough jobs."""
    parts = max(1, min(at_a_time, len(group) // LEAST), math.ceil(len(group) / MOST))
    size = math.ceil(len(group) / parts)
    return [[*group[i : i + size]] for i in range(0, len(group), size)]
