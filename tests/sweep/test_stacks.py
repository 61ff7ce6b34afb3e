"""Which jobs of a sweep form a stack, and which key keeps the others apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.sweep.job import Job
from lrkit.sweep.stacks import form_units


@cache
def composed(words: str) -> dict[str, Any]:
    return configs.compose(words.split())


def units_of(
    *of_jobs: str, stack: str = "auto", seeds: int = 0, at_a_time: int = 1, resumes: int | None = None
) -> tuple[list[list[int]], list[str]]:
    """The numbers of the jobs of each unit, for jobs with these words, or for so many seeds; and the notes."""
    every = [{**composed(words), "stack": stack} for words in of_jobs]
    every += [{**composed(""), "stack": stack, "seed": seed} for seed in range(seeds)]
    jobs = [Job(i, (), "", Path(str(i))) for i in range(len(every))]
    units, notes = form_units(
        jobs,
        lambda job: every[job.number],
        lambda job, _: ("resume", "it goes on from its checkpoint") if job.number == resumes else None,
        at_a_time,
    )
    return [[job.number for job in unit] for unit in units], notes


def test_jobs_that_differ_in_the_plan_or_the_seed_form_a_stack() -> None:
    words = ("", "seed=2 optimizer.lr=0.5", "schedule=wsd warmup=linear optimizer.weight_decay=0.1")
    units, notes = units_of(*words)
    assert units == [[0, 1, 2]] and notes == ["stack=auto: 3 jobs run as 1 stack"]
    assert composed("")["stack"] == "off" and units_of(*words, stack="off") == ([[0], [1], [2]], [])


def test_a_stack_is_divided_among_parallel_processes() -> None:
    units, notes = units_of(seeds=9, at_a_time=2)
    assert units == [[0, 1, 2, 3, 4], [5, 6, 7, 8]] and notes == ["stack=auto: 9 jobs run as 2 stacks"]
    assert units_of(seeds=3, at_a_time=2)[0] == [[0, 1, 2]]


def test_other_keys_make_other_stacks_and_the_rest_runs_separately() -> None:
    linear, skip = "model=linear", "guard=skip"
    units, notes = units_of("", linear, "", linear, skip, "optimizer.lr=99", "", resumes=6)
    assert units == [[0, 2], [1, 3], [4], [5], [6]]
    assert notes == [
        "stack=auto: 4 jobs run as 2 stacks",
        "stack=auto: 1 job run separately, by guard (a guard that skips or repeats steps)",
        "stack=auto: 1 job run separately, by optimizer.lr (the job is refused)",
        "stack=auto: 1 job run separately, by resume (it goes on from its checkpoint)",
    ]
    alone, notes = units_of("", linear)
    assert alone == [[0], [1]] and "no two differ in rate, schedule, weight decay or seed alone" in notes[0]


def test_on_refuses_a_job_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"^stack must be auto or off: guard does not fit, a guard that skips"):
        units_of("", "guard=skip", stack="on")
    with pytest.raises(ConfigError, match=r"^stack must be"):
        configs.check({**composed(""), "stack": "maybe"})
