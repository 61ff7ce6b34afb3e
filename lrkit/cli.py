"""The command ``lrkit``. Each part is loaded when it is asked for: ``--help`` and ``show`` never wait for torch."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lrkit.errors import ConfigError, SearchError, did_you_mean

__all__ = ["entry", "main"]

HELP = """\
lrkit: declarative learning rates for PyTorch Lightning

  lrkit train [overrides]    train; -m sweeps: lrkit train -m schedule=step,cosine
  lrkit find  [overrides]    the rate to train with: a range test, confirmed by short trainings
  lrkit show  [overrides]    the plan and its curve, without data or torch; format=text|csv|json|png
  lrkit compare PATH...      rank and draw the runs of sweeps; metric=NAME by=best|final out=FOLDER
  lrkit board   PATH         TensorBoard on runs; port=6006

An override is key=value: lrkit train schedule=cosine warmup=linear optimizer.lr=0.05
  lrkit train --help         every group, option and key
  lrkit --version
"""

OK, FAILED, BAD_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130
COMMANDS = ("train", "find", "show", "compare", "board")

# Hydra's flags that print something and run nothing.
_INFORMING = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc"}
_FLAGS = _INFORMING | {"--multirun", "-m", "--run", "-r", "--resolve", "--package", "-p", "--config-dir", "-cd"}


def entry() -> None:
    """What the console script calls."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line; the result is the exit code."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return OK
    if argv[0] == "--version":
        print(metadata.version("lrkit"))
        return OK
    if os.getcwd() not in sys.path:  # models and data of the user's own, as `python -m` would find them
        sys.path.append(os.getcwd())
    return _told(lambda: _command(argv[0], list(argv[1:])))


def _command(command: str, rest: list[str]) -> int:
    if command == "show":
        return _show(rest)
    if command == "train":
        return _train(rest)
    if command == "find":
        return _find(rest)
    if command == "search":  # one of the processes that a running `lrkit find` started, one a device
        return _search(Path(rest[0]), Path(rest[1]), quiet=bool(rest[2:]))
    if command == "compare":
        return _compare(rest)
    if command == "board":
        from lrkit import board

        return board.start(rest)
    if command == "join":  # a process that a running `lrkit train` started for one more device
        return _join(Path(rest[0]), Path(rest[1]))
    raise ConfigError("lrkit", f"has no command {command!r}. {did_you_mean(command, COMMANDS)}")


def _told(run: Callable[[], int]) -> int:
    """What ``run`` returns; an error of ours is told in one line, and becomes an exit code."""
    try:
        return run()
    except ConfigError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"lrkit: {error}", file=sys.stderr)
        return BAD_INPUT
    except SearchError as error:
        print(f"lrkit: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("lrkit: interrupted", file=sys.stderr)
        return INTERRUPTED


def _show(argv: list[str]) -> int:
    from lrkit import config as configs
    from lrkit import show
    from lrkit.overrides import expand

    flags, overrides, config_dir = _split(argv)
    for flag in flags:
        if flag not in ("-m", "--multirun"):
            raise ConfigError(flag, "is not a flag of lrkit show: it takes -m and --config-dir")
    form = "text"
    for override in [o for o in overrides if o.startswith("format=")]:
        form = override.partition("=")[2]
        overrides.remove(override)
    if form not in show.FORMATS:
        raise ConfigError("format", f"is not a format. {did_you_mean(form, show.FORMATS)}", form)
    plans = {}
    for chosen in expand(overrides, config_dir) if flags else [overrides]:
        swept = [o for o in chosen if o not in overrides]
        plans[_label(swept) or "lr"] = configs.plan(configs.compose(chosen, config_dir))
    if form == "png":
        folder = Path("outputs") / "show"
        path = show.picture(plans, _unused(folder, ".png"))
        print(path)
        return OK
    writers = {"text": show.text, "csv": show.csv, "json": show.as_json}
    for label, plan in plans.items():
        if len(plans) > 1:
            print(f"# {label}")
        print(writers[form](plan), end="")
    return OK


def _find(argv: list[str]) -> int:
    """Check everything first, then search; the last line is what to type."""
    from lrkit import config as configs
    from lrkit import show

    flags, overrides, config_dir = _split(argv)
    for flag in flags:
        if flag in ("-m", "--multirun"):
            raise ConfigError(
                flag, "is not for lrkit find; each job of a sweep finds its own rate by optimizer.lr=auto"
            )
        raise ConfigError(flag, "is not a flag of lrkit find: it takes --config-dir")
    config = configs.compose(overrides, config_dir)
    configs.check(config)
    if _global_rank() > 0:
        from lrkit.find import find

        with tempfile.TemporaryDirectory() as nowhere:
            find(config, Path(nowhere), quiet=True)
        return OK
    folder = Path(_new_folder(Path("outputs") / "find"))
    try:
        from lrkit.find import find

        found = find(config, folder)
    except ConfigError:
        shutil.rmtree(folder)  # nothing was measured
        raise
    show.answer(folder, found)
    return OK if found.lr is not None else FAILED


def _search(folder: Path, config: Path, quiet: bool) -> int:
    import json

    from lrkit.find import find

    find(json.loads(config.read_text()), folder, quiet=quiet or _global_rank() > 0)
    return OK


def _train(argv: list[str]) -> int:
    """Check everything first, then let Hydra run it: one job, or a sweep of jobs."""
    from lrkit import config as configs
    from lrkit.overrides import parse

    flags, overrides, config_dir = _split(argv)
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--experimental-rerun":
            raise ConfigError(name, "is refused: it would execute what the file says")
        if name not in _FLAGS:
            raise ConfigError(name, f"is not a flag of lrkit train. {did_you_mean(name, _FLAGS)}")
        if name in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
            raise ConfigError(name, "must be followed by job, hydra or all", value)
    informing = any(flag.partition("=")[0] in _INFORMING for flag in flags)
    sweep = bool({"-m", "--multirun"} & set(flags)) or any(o.startswith("+sweep=") for o in overrides)
    engine = [o for o in overrides if o.startswith(("hydra/launcher=", "hydra/sweeper=", "+launcher="))]
    if sweep and not informing and not engine:
        return _sweep(overrides, config_dir)
    own_folder: list[str] = []
    continued: Path | None = None
    made: Path | None = None
    if not informing:
        if sweep:
            configs.check_sweep(overrides, config_dir)
        else:
            config = configs.compose(overrides, config_dir)
            if config["resume"]["path"] is None:  # else the plan may come from there
                configs.check(config)
            continued = _continued(config["resume"])
        if _global_rank() > 0:
            return _follow(overrides, config_dir)
        if continued is not None:
            own_folder = [f"hydra.run.dir={continued}", "hydra.output_subdir=null"]
        elif given := [o for o in overrides if o.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]:
            for key, _, value in (o.partition("=") for o in given):
                if "${" not in value:
                    _made(Path(value.strip("'\"")), key)
        else:
            kind, parent = ("sweep", "sweeps") if sweep else ("run", "runs")
            made = Path(_new_folder(Path("outputs") / parent))
            own_folder = [f"hydra.{kind}.dir={made}"]
        if sweep:  # a job is named by what differs
            same = ",".join(o.key_or_group for o in parse(overrides) if not o.is_sweep_override())
            own_folder.append(f"hydra.job.config.override_dirname.exclude_keys=[{same}]")
    return _hydra([*flags, *overrides, *own_folder], config_dir, made)  # argparse wants the overrides in one piece


def _compare(argv: list[str]) -> int:
    """Rank the runs below some folders; print the table, and leave tables and pictures in ``out``."""
    from lrkit import report, tables
    from lrkit.compare import compare

    keys = ("metric", "by", "out")
    given: dict[str, str] = {}
    paths: list[Path] = []
    for word in argv:
        key, equals, value = word.partition("=")
        if equals and key in keys:
            if not value or key in given:
                raise ConfigError(key, f"has no value: write {key}=..." if not value else "is given twice", word)
            given[key] = value
        elif word.startswith("-"):
            raise ConfigError(word, f"is not a flag of lrkit compare: it takes folders, and {'=, '.join(keys)}=")
        elif equals and not Path(word).exists() and key.isidentifier():
            raise ConfigError(key, f"is not a key. {did_you_mean(key, keys)}")
        else:
            paths.append(Path(word))
    if not paths:
        raise ConfigError("lrkit compare", "needs a folder of runs: lrkit compare outputs/sweeps/...")
    comparison = compare(paths, given.get("metric"), given.get("by", "best"))
    if "out" in given or len(paths) == 1:
        out = Path(given["out"]) if "out" in given else paths[0]
        _made(out, "out")
    else:
        out = Path(_new_folder(Path("outputs") / "compare"))
    files, notes = report.write(comparison, out)
    print(tables.text(comparison), end="")
    for note in notes:
        print(f"note: {note}")
    print(f"{', '.join(file.name for file in files)} are in {out}")
    return OK


def _sweep(overrides: list[str], config_dir: str | None) -> int:
    """Run the jobs of a sweep on this machine, or those that are missing; at its end, the table."""
    from lrkit import config as configs
    from lrkit.sweep import Sweep, preset, unfinished

    overrides = preset(overrides, config_dir)
    configs.check_sweep(overrides, config_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("-m", "must not be given to torchrun: each job of a sweep starts its own processes")
    parent, given = Path("outputs") / "sweeps", [o for o in overrides if o.startswith("hydra.")]
    named = [o.partition("=")[2].strip("'\"") for o in given if o.startswith("hydra.sweep.dir=")]
    for override in given:
        if not override.startswith("hydra.sweep.dir=") or "${" in override:
            must = "is not for a sweep on this machine; what is: hydra.sweep.dir, a folder in plain words"
            raise ConfigError(override.partition("=")[0], must, override.partition("=")[2])
    overrides = [o for o in overrides if o not in given]
    folder = Path(named[0]) if named else unfinished(overrides, parent) or Path(_new_folder(parent))
    _made(folder, "hydra.sweep.dir")
    sweep = Sweep(overrides, folder, config_dir)
    counts = sweep.run(_job, lambda line: print(line, flush=True))
    print()
    try:
        _compare([str(folder)])
    except ConfigError as error:  # no job came far enough to be compared
        print(f"lrkit: {error}", file=sys.stderr)
    lost = {status: n for status, n in counts.items() if status in ("failed", "diverged", "interrupted", "waiting")}
    if lost:
        told = ", ".join(f"{n} {status}" for status, n in lost.items())
        print(f"lrkit: of {len(sweep.jobs)} jobs {told}; the same command runs what is missing", file=sys.stderr)
    return FAILED if lost.keys() - {"diverged"} else DIVERGED if lost else OK


def _job(words: list[str], config_dir: str | None) -> int:
    """One job of a sweep, in its own process; everything was checked."""
    return _told(lambda: _hydra(words, config_dir))


def _continued(resume: dict[str, Any]) -> Path | None:
    """The folder of the run that is simply gone on with; None for a new run, and for one that branches off."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    path = Path(resume["path"])
    return next((folder for folder in (path, path.parent.parent) if (folder / "plan.json").is_file()), None)


def _hydra(argv: list[str], config_dir: str | None, made: Path | None = None) -> int:
    """Hand a checked command line to Hydra; a job that fails is reported at once and does not end a sweep.

    Args:
        made: the folder that was made for this run alone.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    from lrkit.config import CONF_DIR, VERSION_BASE
    from lrkit.overrides import own_folder
    from lrkit.sweep import folder_name

    OmegaConf.register_new_resolver("lrkit.name", folder_name, replace=True)
    failures: list[BaseException] = []
    statuses: list[str] = []

    def job(config: DictConfig) -> dict[str, Any]:
        settings = HydraConfig.get()
        sweep = settings.mode == RunMode.MULTIRUN
        if sweep:
            print(f"\n# job {settings.job.num}: {settings.job.override_dirname}", flush=True)
        from lrkit.train import run

        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        try:
            result = run({str(k): v for k, v in plain.items()}, Path(settings.runtime.output_dir))
        except Exception as error:
            if not sweep:
                failures.append(error)
                return {"status": "failed"}
            if isinstance(error, ConfigError | SearchError):
                print(f"lrkit: {error}", file=sys.stderr)
            else:
                traceback.print_exc()
            failures.append(error)
            return {"status": "failed"}
        statuses.append(result.status)
        return {"status": result.status, **result.final}

    saved = sys.argv
    sys.argv = [saved[0], *argv]
    try:
        with own_folder(config_dir):
            hydra.main(config_path=str(CONF_DIR), config_name="train", version_base=VERSION_BASE)(job)()
    finally:
        sys.argv = saved
    if failures and not {"-m", "--multirun"} & set(argv):
        if isinstance(failures[0], ConfigError) and made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise failures[0]
    if failures:
        print(f"lrkit: {len(failures)} job(s) of the sweep failed", file=sys.stderr)
        return FAILED
    return DIVERGED if "diverged" in statuses else OK


def _join(folder: Path, config: Path) -> int:
    """One more process of a run: the config is the one that the first process resolved."""
    import json

    from lrkit.train import run

    run(json.loads(config.read_text()), folder, quiet=True)
    return OK


def _follow(overrides: list[str], config_dir: str | None) -> int:
    """A process that a cluster or torchrun started beside the first: it trains along, and writes nothing."""
    from lrkit import config as configs
    from lrkit.train import run

    with tempfile.TemporaryDirectory() as folder:
        run(configs.compose(overrides, config_dir), Path(folder), quiet=True)
    return OK


def _global_rank() -> int:
    """Which process of a distributed run this is, as launchers say it."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if (rank := os.environ.get(name, "")).isdigit():
            return int(rank)
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], str | None]:
    """Flags, overrides, and the folder of the user's own configs."""
    flags: list[str] = []
    overrides: list[str] = []
    config_dir: str | None = None
    words = iter(argv)
    for word in words:
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif name in ("--config-dir", "-cd"):
            config_dir = value if has_value else next(words, None)
            if config_dir is None or not Path(config_dir).is_dir():
                raise ConfigError("--config-dir", "must be an existing folder", config_dir)
        elif name in ("--cfg", "-c", "--info", "-i", "--package", "-p", "--config-name", "-cn") and not has_value:
            flags.append(f"{name}={next(words, '')}")
        else:
            flags.append(word)
    return flags, overrides, config_dir


def _new_folder(parent: Path) -> str:
    """A folder that did not exist before: named by the time, made exclusively, so that no two runs share it."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    _made(parent, "the folder for results")
    for attempt in itertools.count():
        folder = parent / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return str(folder)
    raise AssertionError


def _made(folder: Path, key: str) -> None:
    """Make a folder, or say why that cannot be; before anything runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(key, f"must be a folder that can be written to ({error.strerror})", str(folder)) from None


def _unused(folder: Path, ending: str) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return next(p for n in itertools.count() if not (p := folder / f"{stamp}{f'-{n}' if n else ''}{ending}").exists())


def _label(swept: Sequence[str]) -> str:
    """What tells one of several apart: the values alone where one key is swept."""
    return swept[0].partition("=")[2] if len(swept) == 1 else " ".join(swept)
