"""Tracks: the optimizers of a module with several, each with its own parameters, groups, curve and count of steps.

Examples are a GAN, an actor and its critic, or one optimizer for matrices and another for the other parameters. The
module takes its optimizer steps itself (Lightning's manual optimization), and the node ``optimizers`` names the tracks.
A track uses the run's value of each key that it does not set. Without a pattern it has the parameters of the module's
attribute with its name.

    track    parameters                       steps in batches with        steps in an epoch of b batches
    name     pattern, or ``name.*``           batch_idx % every == offset  ceil((b - offset) / every)

This file needs no torch, so that ``lrkit show`` can plan tracks without a model: it uses the names of parameters.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean, name_some
from lrkit.base.validation import is_whole
from lrkit.planning.guard_policies import POLICIES, policies_for_several
from lrkit.schedules.horizon import Horizon

__all__ = [
    "KEY",
    "Track",
    "assign_parameters",
    "horizon_of",
    "needs_manual",
    "no_such_track",
    "parse_tracks",
    "refuse_combinations",
    "step_at",
    "steps_in",
    "track_tag",
]  # fmt: skip

KEY = "optimizers"
#: The groups of a config that a track may set.
PARTS = ("optimizer", "schedule", "warmup", "cooldown", "param_groups")
#: The groups with an option ``none``: an empty node of a track means that it has none.
_MAY_BE_NONE = ("warmup", "cooldown")
_TARGET = "_target_"


@dataclass(frozen=True)
class Track:
    """One optimizer of several.

    Args:
        name: the name of the track; its tags in TensorBoard are ``lr/<name>/<group>``.
        parameters: a regular expression, searched for in dotted parameter names; None: the parameters of the module's
            attribute ``name``.
        every: the number of batches from one step to the next.
        offset: the first batch of an epoch with a step, counted from 0.
        said: the other keys of its node.
    """

    name: str
    parameters: str | None = None
    every: int = 1
    offset: int = 0
    said: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key(self) -> str:
        """The key of its node."""
        return f"{KEY}.{self.name}"

    def takes(self, parameter: str) -> bool:
        """Return whether the track has a parameter, by its dotted name.

        >>> Track("actor").takes("actor.0.weight"), Track("actor").takes("actors.0.weight")
        (True, False)
        >>> Track("actor", "^(actor|trunk)[.]").takes("trunk.bias")
        True
        """
        if self.parameters is not None:
            return re.search(self.parameters, parameter) is not None
        return parameter == self.name or parameter.startswith(f"{self.name}.")

    def config(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of the run with the values of the track.

        A node with a ``_target_`` replaces the run's node; another node replaces only the keys that it has.

        Raises:
            ConfigError: a key that the run's node does not have.
        """
        merged = {part: self._merge_part(part, run[part]) for part in PARTS}
        return {**run, **merged, KEY: {}}

    def named(self, error: ConfigError) -> ConfigError:
        """Return the error with the key of this track's node, if a track may set the key."""
        if error.key.partition(".")[0].partition("=")[0] in (*PARTS, "every", "offset"):
            return error.under(self.key)
        return ConfigError(error.key, f"{error.must} (of {self.key})", error.received)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Within this context, errors have the key of this track."""
        try:
            yield
        except ConfigError as error:
            raise self.named(error) from error.__cause__

    def summary(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of a track's config that its plan saves."""
        return {
            "parameters": self.parameters,
            "every": self.every,
            "offset": self.offset,
            **{part: config[part] for part in PARTS},
        }

    def _merge_part(self, part: str, base: Mapping[str, Any]) -> Mapping[str, Any]:
        if part not in self.said:
            return base
        node, key = self.said[part], f"{self.key}.{part}"
        if part in _MAY_BE_NONE and not node:
            return {}
        if not isinstance(node, Mapping):
            raise ConfigError(key, "must be a group of keys", node)
        if _TARGET in node:
            if part == "optimizer" and "lr" not in node:
                raise ConfigError(f"{key}.lr", "must be set: the run's rate is that of another optimizer")
            return node
        for name in node:
            if not base:
                raise ConfigError(f"{key}.{name}", f"is not a key of {part}=none; to choose one: {part}@{key}=linear")
            if name not in base:
                accepted = [each for each in base if each != _TARGET]
                raise ConfigError(f"{key}.{name}", f"is not a key. {did_you_mean(str(name), accepted)}")
        return {**base, **node}


def parse_tracks(node: Any, parts: Sequence[str] = PARTS) -> tuple[Track, ...]:
    """Check a node ``optimizers``; empty for a run with one optimizer.

    Args:
        node: name -> the node of a track.
        parts: the keys that a track may have beside ``parameters``, ``every`` and ``offset``.

    Raises:
        ConfigError: with the key, such as ``optimizers.generator.every``.

    >>> [track.every for track in parse_tracks({"generator": {"every": 5}, "critic": {}})]
    [5, 1]
    >>> parse_tracks({"generator": {"evry": 5}})  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: optimizers.generator.evry is not a key. Did you mean 'every'? ...
    """
    if not isinstance(node, Mapping):
        raise no_such_track(node)
    tracks: list[Track] = []
    for name, said in node.items():
        key = f"{KEY}.{name}"
        # The characters that a tag of TensorBoard and an override can have: a slash or a dot would add a level to them.
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
            raise ConfigError(KEY, "must have names made of letters, digits, `_` and `-`", name)
        said = {} if said is None else said
        if not isinstance(said, Mapping):
            raise ConfigError(key, "must be a group of keys", said)
        accepted = ("parameters", "every", "offset", *parts)
        for inner in said:
            if inner not in accepted:
                hint = "Did you mean 'optimizer.lr'? " if inner == "lr" else ""
                raise ConfigError(f"{key}.{inner}", f"is not a key. {hint}{did_you_mean(str(inner), accepted)}")
        pattern, every = said.get("parameters"), said.get("every", 1)
        if pattern is not None:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ConfigError(f"{key}.parameters", f"must be a regular expression ({error})", pattern) from None
        if not is_whole(every, 1):
            raise ConfigError(f"{key}.every", "must be a whole number of batches >= 1", every)
        offset = said.get("offset", 0)
        if not is_whole(offset, 0, every - 1):
            raise ConfigError(f"{key}.offset", f"must be a whole number in [0, {every}), below {key}.every", offset)
        rest = {part: value for part, value in said.items() if part in parts}
        tracks.append(Track(name, pattern, every, offset, MappingProxyType(rest)))
    return tuple(tracks)


def assign_parameters(
    parameters: Mapping[str, bool], tracks: Sequence[Track], also: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> dict[str, list[str]]:
    """Return the parameters of each track: each trained parameter belongs to exactly one track.

    Args:
        parameters: dotted name -> whether it is trained.
        also: the other names of tied parameters; they count if no track has the parameter by its first name.

    Raises:
        ConfigError: a track without parameters, or a parameter in no track or in two tracks.

    >>> assign_parameters({"actor.weight": True, "critic.weight": True}, parse_tracks({"actor": {}, "critic": {}}))
    {'actor': ['actor.weight'], 'critic': ['critic.weight']}
    >>> assign_parameters({"trunk.weight": True}, parse_tracks({"actor": {}}), {"trunk.weight": ["actor.trunk.weight"]})
    {'actor': ['trunk.weight']}
    """
    trained = [name for name, trains in parameters.items() if trains]
    members: dict[str, list[str]] = {track.name: [] for track in tracks}
    for name in trained:
        first = [track for track in tracks if track.takes(name)]
        for track in first or [track for track in tracks if any(map(track.takes, also.get(name, ())))]:
            members[track.name].append(name)
    for track in tracks:
        if not members[track.name]:
            raise _has_none(track, parameters)
    for i, track in enumerate(tracks):
        for other in tracks[i + 1 :]:
            both = [name for name in members[track.name] if name in set(members[other.name])]
            if both:
                must = f"and {other.key} both match {name_some(both)}: a parameter must have one optimizer"
                raise ConfigError(track.key, must)
    taken = {name for names in members.values() for name in names}
    if left := [name for name in trained if name not in taken]:
        root = left[0].partition(".")[0]
        must = (
            f"must match every trained parameter, and none matches {name_some(left)}: widen a pattern, such as"
            f" {KEY}.{tracks[0].name}.parameters='^({tracks[0].name}|{root})[.]', or freeze the parameter"
        )
        raise ConfigError(KEY, must)
    return members


def horizon_of(run: Horizon, every: int, offset: int = 0) -> Horizon:
    """Return the horizon of a track: its steps in a run whose steps are batches.

    >>> horizon_of(Horizon(24, 12, 8), 5).steps, horizon_of(Horizon(30, 12, 8), 5).steps
    (6, 8)
    >>> horizon_of(Horizon(24, 12, 8), 5, offset=4).steps
    4
    """
    if every == 1:
        return run
    per_epoch = run.require("steps_per_epoch", "every")
    own = _count_epoch_steps(per_epoch, every, offset)
    steps = None if run.steps is None else _count_steps(run.steps, per_epoch, every, offset)
    if not own or steps == 0:
        raise ConfigError("offset", f"leaves it no step in an epoch of {per_epoch} batches", offset)
    sources = {
        **run.sources,
        "steps": f"every {every} of {run.steps} batches",
        "steps_per_epoch": f"every {every} of {per_epoch} batches",
    }
    stop = None if run.stop_after is None else _count_steps(run.stop_after, per_epoch, every, offset)
    return dataclasses.replace(
        run, steps=steps, steps_per_epoch=own, sources=MappingProxyType(sources), stop_after=stop
    )


def steps_in(batch_idx: int, every: int, offset: int = 0) -> int:
    """Return the number of steps of a track in one batch of an epoch: 1 or 0."""
    return int(batch_idx % every == offset)


def step_at(batch: int, every: int, offset: int, per_epoch: int | None) -> int | None:
    """Return the step of a track in a batch of the run, both counted from 0; None for a batch without a step.

    >>> [step_at(batch, 2, 0, 3) for batch in range(6)]
    [0, None, 1, 2, None, 3]
    """
    if every == 1 or per_epoch is None:
        return batch
    epoch, index = divmod(batch, per_epoch)
    if not steps_in(index, every, offset):
        return None
    return epoch * _count_epoch_steps(per_epoch, every, offset) + index // every


def _count_epoch_steps(batches: int, every: int, offset: int) -> int:
    """Return the number of steps in the first ``batches`` batches of an epoch."""
    return max(0, -(-(batches - offset) // every))


def _count_steps(batches: int, per_epoch: int, every: int, offset: int) -> int:
    """Return the number of steps in the first ``batches`` batches of the run."""
    epochs, rest = divmod(batches, per_epoch)
    return epochs * _count_epoch_steps(per_epoch, every, offset) + _count_epoch_steps(rest, every, offset)


def track_tag(tag: str, track: str) -> str:
    """Return the tag of a track's group.

    >>> track_tag("lr/default", "actor"), track_tag("gain", "actor")
    ('lr/actor/default', 'gain/actor')
    """
    kind, slash, group = tag.partition("/")
    return f"{kind}/{track}{slash}{group}"


def refuse_combinations(config: Mapping[str, Any]) -> None:
    """Refuse keys that cannot be used together with ``optimizers``.

    Raises:
        ConfigError: with the other key, and the reason.
    """
    trainer, guard, policy = config["trainer"], (config["guard"] or {}).get("policy"), config["resume"]["policy"]
    fast = trainer.get("fast_dev_run")
    allowed = " or ".join(f"guard={name}" for name in (*policies_for_several(), "off"))
    refused = [name for name in POLICIES if name not in policies_for_several()]
    table: tuple[tuple[str, bool, str], ...] = (
        ("trainer.max_steps", trainer.get("max_steps") not in (None, -1),
         "Lightning counts the steps of all optimizers together: set trainer.max_epochs"),
        ("trainer.fast_dev_run", fast is not True and (fast or 0) > 1,
         "Lightning counts the steps of all optimizers together: set trainer.fast_dev_run=true, for one batch"),
        ("trainer.accumulate_grad_batches", (trainer.get("accumulate_grad_batches") or 1) != 1,
         "Lightning accumulates only where it takes the optimizer step itself; for an optimizer that steps more rarely"
         f" there is {KEY}.<name>.every"),
        ("batch.effective", config["batch"].get("effective") is not None, "it is reached by accumulation, which"
         " Lightning does only where it takes the optimizer step itself"),
        ("horizon.compressed_from", config["horizon"].get("compressed_from") is not None, "each track has its"
         " own curve"),
        ("trainer.gradient_clip_val", bool(trainer.get("gradient_clip_val")),
         "a module that takes its steps clips too: self.clip_gradients(optimizer, gradient_clip_val=...)"),
        (f"guard={guard}", guard in refused,
         f"a spike and a rollback are defined by one loss and one optimizer: use {allowed}"),
        (f"resume.policy={policy}", policy in ("extend", "cooldown"), "each track is at a step of its own:"
         " use override"),
    )  # fmt: skip
    for key, said, why in table:
        if said:
            raise ConfigError(key, f"and {KEY} cannot be used together: {why}")
    lrs = {"optimizer.lr": config["optimizer"].get("lr")}
    for name, node in config[KEY].items():
        own = node.get("optimizer") if isinstance(node, Mapping) else None
        if isinstance(own, Mapping):
            lrs[f"{KEY}.{name}.optimizer.lr"] = own.get("lr")
    for key, lr in lrs.items():
        if lr == "auto":
            raise ConfigError(f"{key}=auto", f"and {KEY} cannot be used together: a search looks for one rate")


def no_such_track(node: Any) -> ConfigError:
    """Return the error for a node without tracks."""
    return ConfigError(KEY, "must name each optimizer: {generator: {}, discriminator: {}}", node)


def needs_manual(module: str) -> ConfigError:
    """Return the error for a module that leaves the optimizer step to Lightning."""
    must = f"needs a module that takes its steps itself: {module}.automatic_optimization is true, for one optimizer"
    return ConfigError(KEY, must)


def _has_none(track: Track, parameters: Mapping[str, bool]) -> ConfigError:
    """Return the error for a track without parameters."""
    if frozen := [name for name in parameters if track.takes(name)]:
        return ConfigError(track.key, f"must have a parameter that is trained: {name_some(frozen)} is frozen")
    roots = list(dict.fromkeys(name.partition(".")[0] for name in parameters))
    if track.parameters is not None:
        must = f"must match a parameter: it matches none of {name_some(list(parameters))}"
        return ConfigError(f"{track.key}.parameters", must, track.parameters)
    must = (
        f"must be an attribute of the module with parameters, or have a pattern for them: {track.key}.parameters='^...'"
    )
    return ConfigError(track.key, f"{must}. {did_you_mean(track.name, roots)}")
