"""The values of a sweep: a list for each key, or paired values for several keys.

``optimizer.lr=0.1,0.2`` is Hydra's form. Paired values are lrkit's: ``optimizer.lr,data.batch_size=(0.1,64),(0.2,128)``
makes two jobs, each with a value for both keys. Other swept keys multiply the number of jobs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from lrkit.base.errors import ConfigError
from lrkit.config.hydra_form import split_values
from lrkit.config.overrides import hydra_initialised, is_paired, list_options, parse_overrides

__all__ = ["Choice", "expand_jobs", "list_choices"]

MAX_JOBS = 1000


@dataclass(frozen=True)
class Choice:
    """The values in a sweep for one key, or for several keys with paired values.

    Args:
        text: the override of the command line.
        keys: its keys, or groups.
        alternatives: for each choice, one override for each key; a job has one of the choices.
        is_swept: whether the override is a sweep, even of one value.
    """

    text: str
    keys: tuple[str, ...]
    alternatives: list[tuple[str, ...]]
    is_swept: bool

    @property
    def is_paired(self) -> bool:
        """Whether the choice has several keys with paired values."""
        return len(self.keys) > 1


def list_choices(overrides: Sequence[str], config_dir: str | None = None, *, searches: bool = False) -> list[Choice]:
    """Return the choices of a sweep, in the order of its overrides.

    Args:
        overrides: as on the command line, with several values for each swept key.
        config_dir: the folder of the user's own configs, whose options ``glob(*)`` lists too.
        searches: whether the sweeper picks values from a range: the alternatives are then the ends of the range.

    Raises:
        ConfigError: an override that cannot be parsed, or a key that occurs twice.
    """
    plain = iter(parse_overrides([text for text in overrides if not is_paired(text)]))
    choices = []
    for text in overrides:
        if is_paired(text):
            choices.append(_read_pairs(text))
            continue
        override = next(plain)
        values = _list_extreme_values(override, config_dir) if searches else _expand_override(override, config_dir)
        name = override.key_or_group + (f"@{override.package}" if override.package else "")
        choices.append(Choice(text, (name,), [(value,) for value in values], override.is_sweep_override()))
    _check_keys_once(choices)
    return choices


def expand_jobs(overrides: Sequence[str], config_dir: str | None = None) -> list[list[str]]:
    """Return the jobs of a sweep: every combination of the swept values; the last key changes first.

    >>> expand_jobs(["seed=1,2", "optimizer.lr,data.batch_size=(0.1,64),(0.2,128)"])[1:3]
    [['seed=1', 'optimizer.lr=0.2', 'data.batch_size=128'], ['seed=2', 'optimizer.lr=0.1', 'data.batch_size=64']]
    """
    choices = list_choices(overrides, config_dir)
    jobs = 1
    for choice in choices:
        jobs *= len(choice.alternatives)
        if jobs > MAX_JOBS:
            raise ConfigError("-m", f"must have at most {MAX_JOBS} jobs: this sweep has more")
    combinations = itertools.product(*(choice.alternatives for choice in choices))
    return [list(itertools.chain.from_iterable(job)) for job in combinations]


def _check_keys_once(choices: Sequence[Choice]) -> None:
    """Refuse paired values for a key that another override sets too."""
    seen: dict[str, str] = {}
    for choice in choices:
        for key in choice.keys:
            name = key.lstrip("+~")
            if name in seen:
                raise ConfigError(name, f"is given twice: {seen[name]} and {choice.text}")
            seen[name] = choice.text


def _read_pairs(text: str) -> Choice:
    """Parse paired values.

    >>> _read_pairs("optimizer,optimizer.lr=(adam,1e-3),(sgd,0.1)").alternatives
    [('optimizer=adam', 'optimizer.lr=1e-3'), ('optimizer=sgd', 'optimizer.lr=0.1')]
    """
    written, _, values = text.partition("=")
    keys = tuple(key.strip() for key in written.split(","))
    if not all(key.lstrip("+") for key in keys):
        raise ConfigError(written, "must be keys with commas between them", text)
    if len({key.lstrip("+") for key in keys}) < len(keys):
        raise ConfigError(written, "must have each key once", text)
    example = ",".join(f"({','.join(f'{key}{i}' for key in 'abcdefgh'[: len(keys)])})" for i in (1, 2))
    must = f"must have {len(keys)} values in parentheses for each job: {written}={example}"
    alternatives: dict[Any, tuple[str, ...]] = {}
    for group in split_values(values):
        if not (group.startswith("(") and group.endswith(")")):
            raise ConfigError(written, must, values)
        members = split_values(group[1:-1])
        if len(members) != len(keys) or not all(members):
            raise ConfigError(written, must, group)
        words = tuple(f"{key}={member}" for key, member in zip(keys, members, strict=True))
        for override in parse_overrides(words):
            if override.is_sweep_override():
                raise ConfigError(override.key_or_group, f"must have one value in each {written}=(...)", group)
        alternatives.setdefault(tuple(_parse_literal(member) for member in members), words)
    if len(alternatives) < 2:
        alone = " ".join(next(iter(alternatives.values())))
        raise ConfigError(written, f"must have at least two values for each key; for one value write {alone}", values)
    if len(alternatives) > MAX_JOBS:
        raise ConfigError("-m", f"must have at most {MAX_JOBS} jobs: this sweep has more")
    return Choice(text, keys, list(alternatives.values()), is_swept=True)


def _expand_override(override: Override, config_dir: str | None = None) -> list[str]:
    """Return the override itself, or one override for each swept value."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    key, _, written = text.partition("=")
    sweep: Any = override.value()
    try:
        if isinstance(sweep, Glob):
            with hydra_initialised(config_dir):
                named = [option for option in list_options(override.key_or_group) if option != "custom"]
                values = sweep.filter(named)
        else:
            if isinstance(sweep, RangeSweep):  # to shuffle a range, Hydra would list all of its values
                sweep.shuffle = False
            # One more than the maximum: a range of 10**12 values must not be listed to its end.
            values = list(itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    except ConfigError:  # from one of the user's files
        raise
    except (HydraException, ValueError, ArithmeticError):
        raise ConfigError(key, "must sweep over a list of values, or a range of them: range(0,10,2)", written) from None
    if not values:
        raise ConfigError(key, "must sweep over at least one value", written)
    # Without this, equal values would be trained twice.
    once: dict[Any, str] = {}
    for value in values:
        once.setdefault(_parse_literal(str(value)), str(value))
    return [f"{key}={value}" for value in once.values()]


def _parse_literal(text: str) -> Any:
    """Return a value for the comparison of texts: 0.1 equals 0.10, but 1 differs from 1.0, as 1 step from 100 %.

    >>> _parse_literal("0.1") == _parse_literal("1e-1"), _parse_literal("1") == _parse_literal("1.0")
    (True, False)
    >>> _parse_literal("'a'") == _parse_literal("a")
    True
    """
    for kind in (int, float):
        try:
            return kind.__name__, kind(text)
        except ValueError:
            continue
    return "text", text[1:-1] if text[:1] == text[-1:] and text[:1] in ("'", '"') else text


def _list_extreme_values(override: Override, config_dir: str | None = None) -> list[str]:
    """Return the overrides to check for a sweeper that searches: the ends of a range, or each value of a list."""
    sweep: Any = override.value()
    if not isinstance(sweep, IntervalSweep | RangeSweep):
        return _expand_override(override, config_dir)
    key, _, written = str(override.input_line).partition("=")
    low, high = sweep.start, sweep.end if isinstance(sweep, IntervalSweep) else sweep.stop
    if low is None or high is None or not low < high:
        raise ConfigError(key, "must have its lower value first in a search", written)
    if "log" in sweep.tags and low <= 0:
        raise ConfigError(key, "must be > 0 in a search on a logarithmic scale", written)
    return [f"{key}={low}", f"{key}={high}"]
