"""The settings of a race: jobs that differ only in their seed, and the jobs of their short copies.

A short copy takes the whole curve of its run in fewer steps (``horizon.compressed_from``), as the short runs of `lrkit
find` do. SGD has the rate that corresponds to the run's rate in as many steps (``lrkit.planning.rate_translation``);
other optimizers, such as AdamW, have the run's own rate: in copies of 30 steps it ranked better than a translated one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.config.find_options import AUTO
from lrkit.config.plan_of_config import find_uncompressible
from lrkit.config.race_options import KEY, RaceOptions, share_text
from lrkit.planning import optimizer_tracks
from lrkit.planning.optimizer_traits import traits_of
from lrkit.planning.plan import Plan
from lrkit.planning.rate_translation import EXPONENT
from lrkit.runs.run_reader import run_of_config
from lrkit.sweep.job import job_identity

__all__ = ["Entry", "RaceSetting", "list_settings", "read_options", "refuse_engine"]

_LEAST = 5  # optimizer steps of a short copy


@dataclass(frozen=True)
class Entry:
    """One job of a race.

    Args:
        number: its place in the sweep.
        words: the overrides of the whole run.
        seed: the run's seed.
        identity: of the whole run, see ``job_identity``.
        steps: optimizer steps of the whole run.
        rate: its base rate.
        translated: whether its short copies have the rate translated to their length.
        fixed: further overrides of its short copies.
    """

    number: int
    words: tuple[str, ...]
    seed: object
    identity: str
    steps: int
    rate: float
    translated: bool
    fixed: tuple[str, ...]

    def short_steps(self, share: Fraction) -> int:
        """Return the optimizer steps of a short copy."""
        return max(1, round(self.steps * share))

    def short_words(self, share: Fraction) -> tuple[str, ...]:
        """Return the overrides of the short copy in a rung."""
        steps = self.short_steps(share)
        more = [f"trainer.max_steps={steps}", f"horizon.compressed_from={self.steps}", f"{KEY}=false", *self.fixed]
        if self.translated:
            rate = self.rate * (steps / self.steps) ** EXPONENT
            more += [f"optimizer.lr={rate:.6g}", "allow_extreme_lr=true"]
        replaced = {word.partition("=")[0] for word in more}
        return (*(word for word in self.words if word.partition("=")[0].lstrip("+") not in replaced), *more)


@dataclass(frozen=True)
class RaceSetting:
    """Jobs that differ only in their seed. They are promoted together.

    Args:
        label: the overrides in which it differs from the other settings.
        entries: its jobs.
    """

    label: str
    entries: tuple[Entry, ...]


def read_options(jobs: Sequence[Sequence[str]], config_dir: str | None) -> RaceOptions | None:
    """Return the options of the race, by the config of the first job; None for a sweep that is no race."""
    return RaceOptions.of(configs.compose(jobs[0], config_dir)["sweep"])


def refuse_engine(words: Sequence[str], named: str, config_dir: str | None) -> None:
    """Refuse a race whose jobs an engine of Hydra would run.

    Args:
        words: the overrides of one job.
        named: the override that chooses the engine.
    """
    if read_options([words], config_dir) is not None:
        must = f"and {named} cannot be used together: the engine chooses and runs the jobs itself"
        raise ConfigError(KEY, must)


def list_settings(
    jobs: Sequence[Sequence[str]], options: RaceOptions, config_dir: str | None
) -> tuple[RaceSetting, ...]:
    """Return the settings of a race, in the order of their first jobs.

    Raises:
        ConfigError: a run has no short copy, or there is nothing to race.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for number, words in enumerate(jobs):
        config = configs.compose(words, config_dir)
        entry = _read_entry(number, words, config, options)
        facts = run_of_config(str(number), config).facts
        groups.setdefault(tuple(sorted((key, str(value)) for key, value in facts.items())), []).append(entry)
    if len(groups) < 3:
        raise ConfigError(
            KEY, "needs three settings or more that differ in more than the seed: two are trained in full"
        )
    words_of = [set(entries[0].words) for entries in groups.values()]
    common = set.intersection(*words_of)
    return tuple(RaceSetting(_label(entries, common), tuple(entries)) for entries in groups.values())


def _label(entries: Sequence[Entry], common: set[str]) -> str:
    """Return the overrides in which a setting differs from others, without those in which its jobs differ."""
    own = set.intersection(*(set(entry.words) for entry in entries))
    words = [word for word in entries[0].words if word in own and word not in common]
    return ",".join(word for word in words if word.partition("=")[0] != "seed") or "the only one"


def _read_entry(number: int, words: Sequence[str], config: Mapping[str, Any], options: RaceOptions) -> Entry:
    _refuse_combinations(config)
    plan = configs.check(config)
    if plan is None or plan.horizon.steps is None:
        must = "needs the number of optimizer steps before a run begins: set horizon.steps, or data.train_samples"
        raise ConfigError(KEY, must)
    trainer, steps = config["trainer"], plan.horizon.steps
    if steps * options.rungs[0] < _LEAST:
        must = f"must begin at {_LEAST} of the run's {steps} optimizer steps or more: a shorter copy says nothing"
        raise ConfigError("sweep.rungs", must, [share_text(share) for share in options.rungs])
    fixed = ["test=false"]
    fixed += [f"trainer.{name}=null" for name in ("min_steps", "min_epochs") if trainer.get(name) is not None]
    if (trainer.get("check_val_every_n_epoch") or 1) > 1:
        fixed.append("trainer.check_val_every_n_epoch=1")  # or the end of a short copy would not be validated
    if config["horizon"].get("steps") is not None:
        fixed.append("horizon.steps=null")
    return Entry(
        number,
        tuple(words),
        config["seed"],
        job_identity(config),
        steps,
        plan.base_lr,
        _is_translated(plan),
        tuple(fixed),
    )


def _is_translated(plan: Plan) -> bool:
    """Return whether the best base rate depends on the length of a run as that of SGD does."""
    known = traits_of(plan.optimizer)
    return known is None or known.kind == "sgd"


def _refuse_combinations(config: Mapping[str, Any]) -> None:
    """Refuse keys of a run that has no short copy."""
    table = (
        (optimizer_tracks.KEY, bool(config[optimizer_tracks.KEY]), "each optimizer has a curve of its own"),
        ("optimizer.lr=auto", config["optimizer"].get("lr") == AUTO, "a race compares rates that are given: give some"),
        ("horizon.compressed_from", config["horizon"].get("compressed_from") is not None, "a race compresses itself"),
        ("trainer.fast_dev_run", bool(config["trainer"].get("fast_dev_run")), "its few batches are no training"),
        ("resume.path", config["resume"]["path"] is not None, "a short copy begins with new weights"),
    )
    stops = config["horizon"].get("stop_after") is not None
    given = [(key, why) for key, is_given, why in table if is_given]
    for key, why in [*given, *find_uncompressible(config, stops)]:
        raise ConfigError(key, f"and {KEY} cannot be used together: {why}")
