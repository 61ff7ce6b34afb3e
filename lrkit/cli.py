"""The command ``lrkit``. Each part is loaded when it is asked for: ``--help`` and ``show`` never wait for torch."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lrkit.errors import ConfigError, RunError, SearchError, did_you_mean
from lrkit.jobs import global_rank
from lrkit.signals import ASKING, Terminated, raising

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
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # all is said and done; a second Ctrl-C has nothing left to end
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
        with raising(signal.SIGTERM):
            return run()
    except ConfigError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"lrkit: {error}", file=sys.stderr)
        return BAD_INPUT
    except (SearchError, RunError) as error:
        print(f"lrkit: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        if global_rank() == 0:
            print(f"lrkit: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except Terminated as error:
        if global_rank() == 0:
            print(f"lrkit: {error}", file=sys.stderr)
        return int(error.code or 0)


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
    if global_rank() > 0:
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

    find(json.loads(config.read_text()), folder, quiet=quiet or global_rank() > 0)
    return OK


def _train(argv: list[str]) -> int:
    """Check everything first, then let Hydra run it: one job, or a sweep of jobs."""
    from lrkit import config as configs

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
    asked = [override.lstrip("+") for override in overrides]
    sweep = bool({"-m", "--multirun"} & set(flags)) or any(o.startswith(("sweep=", "launcher=")) for o in asked)
    if sweep and not informing:
        engine = any(o.startswith(("launcher=", "hydra/launcher=", "hydra/sweeper=")) for o in asked)
        return _engine(overrides, config_dir) if engine else _sweep(overrides, config_dir)
    own_folder: list[str] = []
    made: Path | None = None
    if not informing:
        config = configs.compose(overrides, config_dir)
        if config["resume"]["path"] is None:  # else the plan may come from there
            configs.check(config)
        continued = _continued(config["resume"])
        if global_rank() > 0:
            return _follow(overrides, config_dir)
        if continued is not None:
            _made(continued, "resume.path")
            own_folder = [f"hydra.run.dir={continued}", "hydra.output_subdir=null"]
        elif given := [o.partition("=")[2] for o in overrides if o.startswith("hydra.run.dir=")]:
            if "${" not in given[0]:
                _made(Path(given[0].strip("'\"")), "hydra.run.dir")
        else:
            made = Path(_new_folder(Path("outputs") / "runs"))
            own_folder = [f"hydra.run.dir={made}"]
    return _alone([*flags, *overrides, *own_folder], config_dir, made)  # argparse wants the overrides in one piece


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
    _one_process()
    parent, given = Path("outputs") / "sweeps", [o for o in overrides if o.startswith("hydra.")]
    named = _named(overrides)
    for override in given:
        if not override.startswith("hydra.sweep.dir=") or "${" in override:
            must = "is not for a sweep on this machine; what is: hydra.sweep.dir, a folder in plain words"
            raise ConfigError(override.partition("=")[0], must, override.partition("=")[2])
    overrides = [o for o in overrides if o not in given]
    folder = named or unfinished(overrides, parent) or Path(_new_folder(parent))
    _made(folder, "hydra.sweep.dir")
    sweep = Sweep(overrides, folder, config_dir)
    with raising(*ASKING):
        counts = sweep.run(_job, lambda line: print(line, flush=True))
    return _closing(folder, counts, "; the same command runs what is missing")


def _engine(overrides: list[str], config_dir: str | None) -> int:
    """Hand a sweep to a launcher or a sweeper of Hydra's, which runs the jobs where it does; at its end, the table."""
    from lrkit import config as configs
    from lrkit.job import score
    from lrkit.overrides import expand, parse
    from lrkit.sweep import quoted, tally

    words, searches = configs.swept_by(overrides, config_dir)
    configs.check_sweep(words, config_dir, searches)
    for key in ("jobs", "on_error"):
        if any(word.startswith(f"{key}=") for word in words):
            must = "is for sweeps that lrkit runs itself: an engine is told by hydra.launcher and hydra.sweeper"
            raise ConfigError(key, must)
    named = _named(overrides)
    if named is not None and "${" in str(named):
        raise ConfigError("hydra.sweep.dir", "must be a folder in plain words", str(named))
    if named is not None and tally(named):
        raise ConfigError("hydra.sweep.dir", "must be a folder without runs: an engine begins anew", str(named))
    _one_process()
    folder = named or Path(_new_folder(Path("outputs") / "sweeps"))
    _made(folder, "hydra.sweep.dir")
    same = ",".join(o.key_or_group for o in parse(overrides) if not o.is_sweep_override())
    own = [
        f"hydra.sweep.dir={quoted(str(folder.resolve()))}",  # a job may begin in another folder than this
        f"hydra.job.config.override_dirname.exclude_keys=[{same}]",  # a job is named by what differs
    ]
    given = [override for override in overrides if not override.startswith("hydra.sweep.dir=")]
    print(f"the sweep's folder is {folder}", flush=True)
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra would print what went wrong, and exit
    code = OK
    try:
        _hydra(["-m", *given, *own], config_dir, score)
    except Exception as error:
        code = FAILED
        if before == "1":
            traceback.print_exc()
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"lrkit: the engine failed: {said} (HYDRA_FULL_ERROR=1 tells where)", file=sys.stderr)
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
    counts = tally(folder)
    jobs = 1 if searches else len(expand(words, config_dir))
    if (lost := jobs - sum(counts.values())) > 0:
        counts["lost"] = lost
    ended = _closing(folder, counts)
    return code or ended


def _named(overrides: Sequence[str]) -> Path | None:
    """The folder that the command line gives to a sweep."""
    named = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("hydra.sweep.dir=")]
    return Path(named[0]) if named else None


def _one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or global_rank() > 0:
        raise ConfigError("-m", "must not be given to torchrun: each job of a sweep starts its own processes")


def _closing(folder: Path, counts: Mapping[str, int], advice: str = "") -> int:
    """The table of a sweep, what became of its jobs, and the exit code."""
    print()
    try:
        _compare([str(folder)])
    except ConfigError as error:  # no job came far enough to be compared
        print(f"lrkit: {error}", file=sys.stderr)
    lost = {status: n for status, n in counts.items() if status not in ("done", "stopped")}
    if lost:
        told = ", ".join(f"{n} {status}" for status, n in lost.items())
        print(f"lrkit: of {sum(counts.values())} jobs {told}{advice}", file=sys.stderr)
    return FAILED if lost.keys() - {"diverged"} else DIVERGED if lost else OK


def _job(words: list[str], config_dir: str | None) -> int:
    """One job of a sweep, in its own process; everything was checked."""
    return _told(lambda: _alone(words, config_dir))


def _continued(resume: dict[str, Any]) -> Path | None:
    """The folder of the run that is simply gone on with; None for a new run, and for one that branches off."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    path = Path(resume["path"])
    return next((folder for folder in (path, path.parent.parent) if (folder / "plan.json").is_file()), None)


def _alone(argv: list[str], config_dir: str | None, made: Path | None = None) -> int:
    """Train once, in this process.

    Args:
        made: the folder that was made for this run alone.
    """
    from lrkit.job import train

    statuses: list[str] = []
    failures: list[Exception] = []

    def job(config: Any) -> None:
        try:
            statuses.append(train(config).status)
        except Exception as error:  # Hydra would print it, and exit
            failures.append(error)

    _hydra(argv, config_dir, job)
    if failures:
        if isinstance(failures[0], ConfigError) and made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise failures[0]
    return DIVERGED if "diverged" in statuses else OK


def _hydra(argv: list[str], config_dir: str | None, job: Callable[[Any], Any]) -> None:
    """Hand a checked command line to Hydra."""
    import hydra

    from lrkit.overrides import CONF_DIR, VERSION_BASE, own_folder

    saved = sys.argv
    sys.argv = [saved[0], *argv]
    try:
        with own_folder(config_dir):
            hydra.main(config_path=str(CONF_DIR), config_name="train", version_base=VERSION_BASE)(job)()
    finally:
        sys.argv = saved


def _join(folder: Path, config: Path) -> int:
    """One more process of a run: the config is the one that the first process resolved."""
    import json

    from lrkit.train import run

    # The first process says how it ended; a code of our own would make Lightning kill it while it does.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        run(json.loads(config.read_text()), folder, quiet=True)
    return OK


def _follow(overrides: list[str], config_dir: str | None) -> int:
    """A process that a cluster or torchrun started beside the first: it trains along, and writes nothing."""
    from lrkit import config as configs
    from lrkit.train import run

    with tempfile.TemporaryDirectory() as folder:
        run(configs.compose(overrides, config_dir), Path(folder), quiet=True)
    return OK


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
