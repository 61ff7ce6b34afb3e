"""Finding a learning rate: range tests on throw-away copies, what they say, and a race that confirms it."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lrkit.assembly import data_of, hush_lightning, optimizer_of, trainer_of
from lrkit.base.errors import ConfigError, SearchError
from lrkit.base.files import read_json
from lrkit.base.process_pool import pass_config
from lrkit.base.safe_path import safe_path
from lrkit.checkpoint.policies import Resumption
from lrkit.config import compose as configs
from lrkit.config.find_options import AUTO, Search
from lrkit.lightning.classes import LightningDataModule, Trainer
from lrkit.lr_finder import short_run
from lrkit.lr_finder.curve_analysis import CurveReading, RangeTestRun, has_diverged, read_curves
from lrkit.lr_finder.result import FinderResult, round_rate
from lrkit.lr_finder.short_run import ShortRun
from lrkit.lr_finder.successive_halving import Confirmation, confirm_rate
from lrkit.optim import factory
from lrkit.planning.optimizer_traits import finds_rate
from lrkit.planning.plan import Plan
from lrkit.planning.tracks import KEY
from lrkit.schedules.curve import Curve
from lrkit.schedules.shapes import RangeTest

__all__ = ["find_lr", "resolve_auto_lr"]

Say = Callable[[str], None]
Weights = Mapping[str, Tensor] | None


def find_lr(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinderResult:
    """Find the base learning rate for a config.

    Nothing of a later run is touched: each training here is a trial on a copy of its own (see
    ``lrkit.lr_finder.short_run``), and a run seeds everything anew. Where the trainer has several processes, all of
    them take part and agree.

    Args:
        config: what ``lrkit.config.compose`` returned; its ``optimizer.lr`` does not matter.
        folder: where ``find.json``, ``find.csv``, ``find.png`` and the picture for TensorBoard go; it exists.
        quiet: print nothing.

    Raises:
        ConfigError: the config cannot mean what it says.
    """
    search = Search.of(config["find"])
    say: Say = (lambda line: None) if quiet else (lambda line: print(line, flush=True))
    configs.check(config)
    if config[KEY]:
        raise ConfigError(KEY, "and lrkit find cannot be used together: a search looks for one rate, by one loss")
    target, options = optimizer_of(config)
    factory.check_optimizer(target, options)
    if config["schedule"].get("_target_") == f"lrkit.schedules.{RangeTest.__name__}":
        raise ConfigError("schedule", "must be the one to train with: to look for its rate is a range test already")
    if finds_rate(target):
        name = target.rpartition(".")[2]
        found = FinderResult(1.0, reason=f"{name} finds the learning rate itself, and optimizer.lr multiplies it")
        found.save(folder, config)
        return found
    hush_lightning()
    trainer = trainer_of(short_run.trainer_options(config), config.get("trust", ()))
    world = trainer.world_size
    if world > 1 and not _launched(trainer):
        return _in_processes(config, folder, world, quiet)
    found = _search(config, search, say)
    if trainer.is_global_zero:
        for line in found.save(folder, config):
            say(f"note: {line}")
    return found


def resolve_auto_lr(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """The config with a number in place of ``optimizer.lr=auto``, found now and left in ``folder``.

    Raises:
        SearchError: there is no suggestion.
    """
    if config["optimizer"].get("lr") != AUTO:
        return dict(config)
    folder.mkdir(exist_ok=True)
    found = find_lr(config, folder, quiet=quiet)
    if found.lr is None:
        raise SearchError(f"optimizer.lr=auto found {found.sentence()}; what was measured is in {folder}")
    if not quiet:
        print(found.sentence() + "\n", flush=True)
    interval = None if found.low is None else [found.low, found.high]
    return {
        **config,
        "optimizer": {**config["optimizer"], "lr": found.lr},
        "find": {**config["find"], "interval": interval},
    }


def _search(config: Mapping[str, Any], search: Search, say: Say) -> FinderResult:
    begun = time.perf_counter()
    # Any number will do: what each trial trains at is said by the plan that it follows.
    config = {**config, "optimizer": {**config["optimizer"], "lr": 1.0}, "allow_extreme_lr": True}
    weights, data = _weights(config), data_of(config)
    tests = list(_range_tests(config, search, data, weights, say))
    sweeps, steps = [_sweep(test, search) for test in tests], sum(len(test.losses) for test in tests)
    reading = read_curves(sweeps)
    lr, low, high, reason = reading.lr, reading.low, reading.high, reading.reason
    verdict: Confirmation | None = None
    if search.confirm and lr is not None:
        said = ", ".join(f"{name} {estimate:.2g}" for name, estimate in reading.estimates.items())
        say(f"the curve says: {said}")
        verdict, raced = _confirmed(config, tests[0].full, reading, data, weights, say)
        lr, low, high, reason, steps = verdict.lr, verdict.low, verdict.high, verdict.reason, steps + raced
    seconds, heats = round(time.perf_counter() - begun, 3), verdict.heats if verdict else ()
    if lr is None or low is None or high is None:
        return FinderResult(None, None, None, reason, False, steps, seconds, sweeps, reading, heats)
    lr, low, high = round_rate(lr), round_rate(low), round_rate(high)
    return FinderResult(
        lr, min(low, lr), max(high, lr), "", verdict is not None, steps, seconds, sweeps, reading, heats
    )


def _range_tests(
    config: Mapping[str, Any], search: Search, data: LightningDataModule, weights: Weights, say: Say
) -> Iterator[ShortRun]:
    """The range tests, each with a seed of its own."""

    def rising(full: Plan) -> tuple[Plan, int]:
        """The rate alone rises, with every group in its proportion."""
        horizon = dataclasses.replace(full.horizon, steps=search.length(full.horizon.steps))
        plain = dataclasses.replace(full, horizon=horizon, momentum=None, decay_curve=None, plateau=None)
        curve = Curve.build(search.schedule(), horizon)
        return dataclasses.replace(plain, base_lr=search.end, curve=curve), horizon.require("steps", "find.steps")

    def stop(losses: Sequence[float]) -> str:
        return "it diverged" if has_diverged(losses) else ""

    for repeat in range(search.repeats):
        seeded = _with_seed(config, config["seed"] + repeat)
        its_own = data if repeat == 0 else data_of(seeded)
        test = short_run.run_short(seeded, its_own, rising, stop=stop, probe=search.loss == "val", weights=weights)
        last = test.rates[-1] if test.losses else search.start
        say(f"range test {repeat + 1} of {search.repeats}: {len(test.losses)} steps; {test.ended}, at lr {last:.3g}")
        yield test


def _sweep(test: ShortRun, search: Search) -> RangeTestRun:
    """What a range test measured, as far as it is finite."""
    losses = test.validated if search.loss == "val" else test.losses
    kept = [(lr, loss) for lr, loss in zip(test.rates, losses, strict=False) if math.isfinite(loss)]
    return RangeTestRun([lr for lr, _ in kept], [loss for _, loss in kept], test.ended)


def _confirmed(
    config: Mapping[str, Any], full: Plan, reading: CurveReading, data: LightningDataModule, weights: Weights, say: Say
) -> tuple[Confirmation, int]:
    """The verdict of the race, and the steps that it took."""
    taken = 0

    def train(rate: float, length: int) -> float:
        nonlocal taken
        raced = short_run.run_short(
            config, data, lambda plan: (plan.within(length, rate), length), score=True, weights=weights
        )
        taken += len(raced.losses)
        ended = f"{raced.score:.4g}" if math.isfinite(raced.score) else "diverged"
        say(f"  lr {rate:<10.4g} {length} steps: {ended}")
        return raced.score

    assert reading.minimum is not None
    say(f"race: the run's {full.horizon.steps or 'endless'} steps, compressed")
    return confirm_rate(train, reading.minimum, full.horizon.steps), taken


def _weights(config: Mapping[str, Any]) -> Weights:
    """The weights to begin with, where the run begins with those of a checkpoint."""
    resumption = Resumption.of(config, lambda: None)
    if resumption.saved is None:
        return None
    if resumption.policy != "restart":
        raise ConfigError(
            "resume.policy", "must be restart to look for a rate: else the run has one", resumption.policy
        )
    weights: Weights = resumption.saved.content["state_dict"]
    return weights


def _with_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The config with another seed, for the order of the data too where that goes by the same one."""
    data = config["data"]
    follows = data.get("seed") == config["seed"]
    return {**config, "seed": seed % 2**32, "data": {**data, "seed": seed % 2**32} if follows else data}


def _launched(trainer: Trainer) -> bool:
    """Whether somebody else (torchrun, a cluster) has started all processes of this trainer."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and bool(environment.creates_processes_externally)


def _in_processes(config: Mapping[str, Any], folder: Path, world: int, quiet: bool) -> FinderResult:
    """Search with a process for each device, all started before the first trial and ended after the last."""
    trainer = config["trainer"]
    if (trainer.get("num_nodes") or 1) > 1:
        raise ConfigError("trainer.num_nodes", "must be 1 here, or start the processes by torchrun or srun", world)
    for word in ("spawn", "fork", "notebook"):
        if word in str(trainer.get("strategy")):
            raise ConfigError("trainer.strategy", "must not start processes by itself in a search: use ddp", word)
    with pass_config(config) as file:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m", "lrkit"]
        command = [sys.executable, "-P", *launcher, "search", str(folder), file, *(["quiet"] if quiet else [])]
        home = Path(__file__).resolve().parents[2]  # -P: not from the folder that we are in, which may have a torch.py
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), *([] if home.name == "site-packages" else [str(home)])]
        with safe_path():  # of those that torch starts in turn
            code = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}).returncode
    result = folder / "find.json"
    found = read_json(result)
    if code or not isinstance(found, dict):
        raise SearchError(f"the search on {world} processes ended with exit code {code}")
    return FinderResult.from_json(found)
