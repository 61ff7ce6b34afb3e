"""A race: a sweep that trains only its best settings in full.

Each rung trains short copies of the settings that are left, as a sweep in a folder of its own, and promotes the best
ones (``lrkit.sweep.promotion``). The settings that the last rung promotes are trained as in any sweep, in the folders
that they would have there. ``race.json`` has the scores of each rung; a repeated command does not run a rung again
whose decision is there.

Reference: Jamieson and Talwalkar 2016, arXiv:1502.07943, with lengths of whole, compressed schedules in
place of first parts of trainings; Li et al. 2018, arXiv:1603.06560, for the shares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from lrkit.base.files import write_json
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.plural import plural
from lrkit.base.run_files import RACE, RUNGS
from lrkit.base.terminal_width import find_width
from lrkit.base.text_table import format_table
from lrkit.config.race_options import RaceOptions, share_text
from lrkit.runs.loss_noise import loss_noise
from lrkit.runs.run_reader import load_run
from lrkit.sweep.job import DROPPED, ENDED, Job, folder_name, read_mapping
from lrkit.sweep.promotion import Standing, count_promoted, promote
from lrkit.sweep.race_settings import RaceSetting
from lrkit.sweep.sweep import Say, Sweep

__all__ = ["Race", "share_name"]

_TAIL = 0.1  # share of the last losses, whose noise is that of the score


class Race:
    """A race in its folder.

    Args:
        sweep: the sweep of all settings.
        settings: its settings.
        options: the rungs.
    """

    def __init__(self, sweep: Sweep, settings: Sequence[RaceSetting], options: RaceOptions) -> None:
        self.sweep, self.settings, self.options = sweep, list(settings), options
        self.jobs = {job.number: job for job in sweep.jobs}
        self.written: list[dict[str, Any]] = []
        self.lost: Counter[str] = Counter()

    def run(self, work: Callable[..., int], say: Say) -> dict[str, int]:
        """Run the rungs, and then the promoted settings in full; return status -> number of jobs, as ``Sweep.run``.

        Settings that a rung dropped are not counted, except for their failed jobs.
        """
        before = self._read_rungs()
        self.sweep.write_state()  # from here on, the same command resumes in this folder
        left = self.settings
        for i, share in enumerate(self.options.rungs):
            if count_promoted(len(left), self.options.keep) == len(left):
                continue  # it could drop none
            record = before.get(share_text(share))
            if record is None or not self._fits(record, left):
                sweep = self._make_rung(left, share)
                place = f"rung {i + 1} of {len(self.options.rungs)}"
                say(f"{place}: {len(left)} settings, each in {share_text(share)} of its steps")
                counts = sweep.run(work, say)
                if counts.keys() - {*ENDED, "failed", "timeout"}:  # on_error=stop
                    return dict(counts)
                record = self._judge(sweep, left, share)
            self.written.append(record)
            self._write()
            left = self._settle(record, left, i)
            say(_describe_rung(record, find_width()))
            if not left:
                return Counter(row["status"] for row in record["settings"] for _ in row["jobs"])
        self.sweep.jobs = [self.jobs[entry.number] for setting in left for entry in setting.entries]
        self.sweep.jobs.sort(key=lambda job: job.number)
        counts = Counter(self.sweep.run(work, say))
        self._write()
        say(self._describe_cost())
        return counts + self.lost

    def _make_rung(self, left: Sequence[RaceSetting], share: Fraction) -> Sweep:
        """Return the sweep of the short copies."""
        folder = self.sweep.folder / RUNGS / share_name(share)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = []
        for entry in (entry for setting in left for entry in setting.entries):
            whole = self.jobs[entry.number]
            jobs.append(Job(entry.number, entry.short_words(share), whole.label, folder / whole.folder.name))
        jobs.sort(key=lambda job: job.number)
        common = set.intersection(*(set(job.overrides) for job in jobs))
        words = [*self.sweep.overrides, *(word for word in jobs[0].overrides if word in common)]
        return Sweep(list(dict.fromkeys(words)), folder, self.sweep.config_dir, jobs)

    def _judge(self, rung: Sweep, left: Sequence[RaceSetting], share: Fraction) -> dict[str, Any]:
        """Return the record of a rung that has ended: scores, and the settings that it promotes."""
        jobs = {job.number: job for job in rung.jobs}
        monitor = _find_monitor([job.result() for job in rung.jobs])
        sign = -1.0 if higher_is_better(monitor) else 1.0
        standings, rows = [], []
        for setting in left:
            results = [(entry, jobs[entry.number], jobs[entry.number].result()) for entry in setting.entries]
            values = {entry.seed: _score(result, monitor) for entry, _, result in results}
            noise = _find_noise([job.folder for _, job, _ in results], monitor)
            standings.append(Standing(values, noise))
            statuses = Counter(str(result.get("status", "failed")) for _, _, result in results)
            rows.append({
                "setting": setting.label,
                "jobs": [self.jobs[entry.number].folder.name for entry, _, _ in results],
                "ids": [entry.identity for entry, _, _ in results],
                "status": statuses.most_common(1)[0][0] if len(statuses) == 1 else next(
                    status for status in ("failed", "timeout", "diverged", *statuses) if status in statuses),
                "values": {str(seed): None if math.isinf(value) else sign * value for seed, value in values.items()},
                "mean": None if math.isinf(standings[-1].mean) else sign * standings[-1].mean,
                "failed": statuses["failed"] + statuses["timeout"],
            })  # fmt: skip
        promoted = promote(standings, self.options.keep)
        order = sorted(range(len(rows)), key=lambda i: (standings[i].mean, i))
        taken = sum(int(job.result().get("steps") or 0) for job in rung.jobs)
        return {
            "share": share_text(share), "folder": str(rung.folder.relative_to(self.sweep.folder)), "metric": monitor,
            "steps": taken, "settings": [{**rows[i], "promoted": i in promoted} for i in order],
        }  # fmt: skip

    def _settle(self, record: Mapping[str, Any], left: Sequence[RaceSetting], rung: int) -> list[RaceSetting]:
        """Record the dropped jobs in ``sweep.json``, and return the promoted settings."""
        by_job = {row["jobs"][0]: row for row in record["settings"]}
        promoted = []
        for setting in left:
            row = by_job[self.jobs[setting.entries[0].number].folder.name]
            self.lost["failed"] += row["failed"]
            if row["promoted"]:
                promoted.append(setting)
                continue
            for entry in setting.entries:
                job = self.jobs[entry.number]
                about = {"rung": rung + 1, "share": record["share"], "metric": record["metric"], "score": row["mean"]}
                self.sweep.state[job.folder.name] = {
                    "id": entry.identity, "overrides": list(job.overrides), "status": DROPPED, **about,
                }  # fmt: skip
        self.sweep.write_state()
        return promoted

    def _read_rungs(self) -> dict[str, dict[str, Any]]:
        """Return share -> record of the rungs that have been decided, of an interrupted race."""
        rungs = read_mapping(self.sweep.folder / RACE).get("rungs")
        records = [rung for rung in rungs if isinstance(rung, dict)] if isinstance(rungs, list) else []
        return {str(record.get("share")): record for record in records}

    def _fits(self, record: Mapping[str, Any], left: Sequence[RaceSetting]) -> bool:
        """Return whether a record is of the settings that are left, with the configs that they have now."""
        try:
            known = {
                (name, identity)
                for row in record["settings"]
                for name, identity in zip(row["jobs"], row["ids"], strict=True)
            }
            complete = all(
                {"promoted", "mean", "failed", "setting", "status"} <= row.keys() for row in record["settings"]
            )
        except (KeyError, TypeError, ValueError, AttributeError):  # a damaged file: the rung is judged again
            return False
        now = {(self.jobs[entry.number].folder.name, entry.identity) for setting in left for entry in setting.entries}
        return complete and known == now and {"share", "metric", "steps"} <= record.keys()

    def _write(self) -> None:
        """Write ``race.json``."""
        taken, grid = self._count_steps()
        about = {"keep": self.options.keep, "steps": taken, "steps of all settings": grid}
        write_json(self.sweep.folder / RACE, {**about, "rungs": self.written})

    def _count_steps(self) -> tuple[int, int]:
        """Return the optimizer steps so far, and those of all settings in full."""
        whole = sum(int(job.result().get("steps") or 0) for job in self.jobs.values())
        grid = sum(entry.steps for setting in self.settings for entry in setting.entries)
        return whole + sum(int(rung["steps"]) for rung in self.written), grid

    def _describe_cost(self) -> str:
        taken, grid = self._count_steps()
        dropped = sum(not row["promoted"] for rung in self.written for row in rung["settings"])
        names = ", ".join(
            f"{sum(not row['promoted'] for row in rung['settings'])} at {rung['share']}" for rung in self.written
        )
        return (
            f"the race took {taken} optimizer steps, {100 * taken / grid:.0f} % of the {grid} of all"
            f" {len(self.settings)} settings in full; it dropped {plural(dropped, 'setting')}"
            f" ({names}): see {RACE}"
        )


def share_name(share: Fraction) -> str:
    """Return the name of a rung's folder.

    >>> share_name(Fraction(1, 16))
    '1_16'
    """
    return folder_name(f"{share.numerator}_{share.denominator}")


def _find_monitor(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric of a rung: the monitored one, else the validation loss, else the training loss."""
    named = [str(result["monitor"]) for result in results if result.get("monitor")]
    if named:
        return Counter(named).most_common(1)[0][0]
    finals = {name for result in results for name in result.get("final") or {}}
    losses = sorted(name for name in finals if "loss" in name)
    return validation_loss_name(finals) or next(iter(losses), "val/loss")


def _score(result: Mapping[str, Any], monitor: str) -> float:
    """Return the score of a job, lower is better: its best value of the metric, infinite if it did not finish."""
    values = {**(result.get("final") or {}), **(result.get("best") or {})}
    value = values.get(monitor)
    if (
        result.get("status") not in ("done", "stopped")
        or not isinstance(value, int | float)
        or not math.isfinite(value)
    ):
        return math.inf
    return -float(value) if higher_is_better(monitor) else float(value)


def _find_noise(folders: Sequence[Path], monitor: str) -> float:
    """Return the standard error of a score that is a loss, from the training loss at the end of its curve; else 0."""
    if len(folders) > 1 or "loss" not in monitor:
        return 0.0
    series = load_run(folders[0], folders[0].name).series.get("train/loss")
    tail = [] if series is None else series.values[-max(5, math.ceil(_TAIL * len(series.values))) :]
    return loss_noise(tail) / math.sqrt(len(tail)) if len(tail) > 2 else 0.0


def _describe_rung(record: Mapping[str, Any], width: int | None) -> str:
    """Return the table of a rung: each setting with its score, best first, and what becomes of it."""
    rows = []
    for place, row in enumerate(record["settings"], 1):
        score = row["status"] if row["mean"] is None else f"{row['mean']:.4g}"
        rows.append(
            [str(place), row["setting"].replace(",", ", "), score, "promoted" if row["promoted"] else "dropped"]
        )
    names = ["place", "setting", record["metric"], "next"]
    return format_table(names, rows, width, {"setting", "next"})
