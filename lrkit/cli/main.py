"""The command ``lrkit``. Each part is loaded when it is asked for: ``--help`` and ``show`` never wait for torch."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base import command_line, error_report, standard_streams, watchdog
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.launcher import detect_launch, global_rank, local_rank
from lrkit.base.links import check_links
from lrkit.base.process_pool import receive_config
from lrkit.base.run_lock import hold_lock
from lrkit.base.safe_path import let_go
from lrkit.base.signals import ASKING, Terminated, raise_on_signals
from lrkit.config.trusted_targets import check_trust

if TYPE_CHECKING:
    from lrkit.lr_finder.result import FinderResult

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
  --traceback                with any command: where in the code an error arose
  lrkit --version
"""

OK, FAILED, DIVERGED = 0, 1, 3
COMMANDS = ("train", "find", "show", "compare", "board")

# Hydra's flags that print something and run nothing: the short form of each, and what may follow it.
_INFORMING: dict[str, tuple[str, tuple[str, ...]]] = {
    "--help": ("-h", ()),
    "--hydra-help": ("", ()),
    "--version": ("", ()),
    "--cfg": ("-c", ("job", "hydra", "all")),
    "--info": ("-i", ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    "--shell-completion": ("-sc", ()),
}
_SHORT = {short: name for name, (short, _) in _INFORMING.items() if short} | {
    "-m": "--multirun", "-r": "--run", "-p": "--package", "-cd": "--config-dir",
}  # fmt: skip
_FLAGS = {*_INFORMING, *_SHORT, *_SHORT.values(), "--resolve", "--trust"}


def entry() -> None:
    """What the console script calls."""
    code = standard_streams.guard_streams(lambda: main(sys.argv[1:]))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # all is said and done; a second Ctrl-C has nothing left to end
    sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line; the result is the exit code. An error is told in one line, whatever it is."""
    words = [word for word in argv if word != "--traceback"]
    with error_report.tracebacks_as_asked(len(words) < len(argv)), command_line.command_line_of(argv):
        return _told(lambda: _main(words))


@contextmanager
def _alike() -> Iterator[None]:
    """Within it, what is refused is refused by every process alike, and the first one of each machine says it."""
    try:
        yield
    except ConfigError as error:
        error.told = local_rank() > 0
        raise


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        if global_rank() == 0:
            print(HELP, end="")
        return OK
    if argv[0] == "--version":
        if global_rank() == 0:
            print(metadata.version("lrkit"))
        return OK
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder", "must be one that exists: it was deleted") from None
    return _command(argv[0], argv[1:])


#: Commands in which every process of a launcher takes part; of any other the first one is enough.
_TOGETHER = ("train", "find", "search", "join")


def _command(command: str, rest: list[str]) -> int:
    if global_rank() > 0 and command not in _TOGETHER:
        return OK
    if command == "show":
        return _show(rest)
    if command == "train":
        return _train(rest)
    if command == "find":
        return _find(rest)
    if command == "search":  # one of the processes that a running `lrkit find` started, one a device
        return _search(*_folder_and_file(rest), quiet=bool(rest[2:]))
    if command == "compare":
        return _compare(rest)
    if command == "board":
        from lrkit.base import tensorboard

        return tensorboard.start_tensorboard(rest)
    if command == "join":  # a process that a running `lrkit train` started for one more device
        return _join(*_folder_and_file(rest))
    raise ConfigError("lrkit", f"has no command {command!r}. {did_you_mean(command, COMMANDS)}")


def _told(run: Callable[[], int]) -> int:
    """What ``run_training`` returns; an error is told in one line, and becomes an exit code."""
    try:
        with watchdog.run_watchdog(), raise_on_signals(signal.SIGTERM, signal.SIGINT):
            return run()
    except BrokenPipeError:  # nobody would read it
        raise
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return error_report.report_failure(error)


def _show(argv: list[str]) -> int:
    from lrkit.config import compose as configs
    from lrkit.config.overrides import expand_jobs
    from lrkit.planning import render

    flags, overrides, config_dir = _split(argv)
    for flag in flags:
        if flag not in ("-m", "--multirun"):
            raise ConfigError(flag, "is not a flag of lrkit show: it takes -m and --config-dir")
    form = "text"
    for override in [o for o in overrides if o.startswith("format=")]:
        form = override.partition("=")[2]
        overrides.remove(override)
    if form not in render.FORMATS:
        raise ConfigError("format", f"is not a format. {did_you_mean(form, render.FORMATS)}", form)
    plans = {}
    if not flags:
        _look_up(overrides)
    for chosen in expand_jobs(overrides, config_dir) if flags else [overrides]:
        swept = [o for o in chosen if o not in overrides]
        plans[_label(swept) or "lr"] = configs.plan(configs.compose(chosen, config_dir))
    if form == "png":
        folder = Path("outputs") / "show"
        path = render.draw_picture(plans, _unused(folder, ".png"))
        print(path)
        return OK
    writers = {"text": render.render_text, "csv": render.render_csv, "json": render.render_json}
    for label, plan in plans.items():
        if len(plans) > 1:
            print(f"# {label}")
        print(writers[form](plan), end="")
    return OK


def _find(argv: list[str]) -> int:
    """Check everything first, then search; the last line is what to type."""
    from lrkit.config import compose as configs
    from lrkit.planning import render

    flags, overrides, config_dir = _split(argv)
    for flag in flags:
        if flag in ("-m", "--multirun"):
            raise ConfigError(
                flag, "is not for lrkit find; each job of a sweep finds its own rate by optimizer.lr=auto"
            )
        raise ConfigError(flag, "is not a flag of lrkit find: it takes --config-dir")
    with _alike():
        config = configs.compose(overrides, config_dir)
        configs.check(config)
    if global_rank() > 0:
        with tempfile.TemporaryDirectory() as nowhere:
            _found(config, Path(nowhere), quiet=True)
        return OK
    folder = Path(_new_folder(Path("outputs") / "find"))
    try:
        found = _found(config, folder)
    except ConfigError:
        shutil.rmtree(folder)  # nothing was measured
        raise
    render.print_finder_result(folder, found)
    return OK if found.lr is not None else FAILED


def _search(folder: Path, config: Path, quiet: bool) -> int:
    let_go()
    _found(receive_config(config), folder, quiet=quiet or global_rank() > 0)
    return OK


def _found(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinderResult:
    """The search, by the user's own Lightning."""
    from lrkit.config.instantiate import use_lightning

    use_lightning(config)
    from lrkit.lr_finder.find import find_lr

    return find_lr(config, folder, quiet=quiet)


def _trained(config: Mapping[str, Any], folder: Path) -> None:
    """The training of a process that is not the first one, by the user's own Lightning."""
    from lrkit.config.instantiate import use_lightning

    use_lightning(config)
    from lrkit.train.run import run_training

    run_training(config, folder, quiet=True)


def _train(argv: list[str]) -> int:
    """Check everything first, then let Hydra run it: one job, or a sweep of jobs."""
    from lrkit.config import compose as configs

    with _alike():
        flags, overrides, config_dir = _split(argv)
        if _informing(flags):
            return OK if global_rank() > 0 else _inform(flags, overrides, config_dir)
        _check_hydra(overrides)
        asked = [override.lstrip("+") for override in overrides]
        sweep = bool({"-m", "--multirun"} & set(flags)) or any(o.startswith(("sweep=", "launcher=")) for o in asked)
        if sweep:
            engine = any(o.startswith(("launcher=", "hydra/launcher=", "hydra/sweeper=")) for o in asked)
            return _engine(overrides, config_dir) if engine else _sweep(overrides, config_dir)
        _look_up(overrides)
        config = configs.compose(overrides, config_dir)
        if config["resume"]["path"] is None:
            configs.check(config)
        else:  # the plan may come from there
            configs.check_values(config)
        continued = _continued(config["resume"])
    own_folder: list[str] = []
    made: Path | None = None
    if global_rank() > 0:
        return _follow(overrides, config_dir)
    if continued is not None:
        _made(continued, "resume.path")
        check_links(continued, "resume.path")
        own_folder = [f"hydra.run.dir={continued}", "hydra.output_subdir=null"]
    elif given := [o.partition("=")[2] for o in overrides if o.startswith("hydra.run.dir=")]:
        if "${" not in given[0]:
            named = Path(given[0].strip("'\""))
            _made(named, "hydra.run.dir")
            _check_free(named)
    else:
        made = Path(_new_folder(Path("outputs") / "runs"))
        own_folder = [f"hydra.run.dir={made}"]
    folder = given[0].strip("'\"") if continued is None and made is None else str(continued or made)
    with (
        hold_lock(Path(folder), "hydra.run.dir" if continued is None else "resume.path")
        if "${" not in folder
        else nullcontext()
    ):
        return _alone([*flags, *overrides, *own_folder], config_dir, made)  # argparse wants overrides in one piece


def _informing(flags: Sequence[str]) -> bool:
    """Whether the flags of ``lrkit train`` only ask for information. All of them are checked, for Hydra would exit."""
    given: dict[str, str] = {}
    for flag in flags:
        written, equals, value = flag.partition("=")
        name = _SHORT.get(written, written)
        if name == "--experimental-rerun":
            raise ConfigError(name, "is refused: it would execute what the file says")
        if name not in _FLAGS:
            raise ConfigError(written, f"is not a flag of lrkit train. {did_you_mean(written, _FLAGS)}")
        if name in given:
            raise ConfigError(written, "is given twice")
        choices = _INFORMING.get(name, ("", ()))[1]
        if choices and value not in choices:
            raise ConfigError(written, f"must be followed by {', '.join(choices[:-1])} or {choices[-1]}", value)
        if name == "--package" and not value:
            raise ConfigError(written, "must be followed by a group, such as optimizer")
        if equals and name != "--package" and not choices:
            raise ConfigError(written, "takes no value", value)
        given[name] = written
    doing = [written for name, written in given.items() if name in (*_INFORMING, "--multirun", "--run")]
    if len(doing) > 1:
        raise ConfigError(doing[0], f"and {doing[1]} exclude each other")
    for name in ("--resolve", "--package"):
        if name in given and "--cfg" not in given:
            raise ConfigError(given[name], "is for --cfg: lrkit train --cfg job")
    return bool(given.keys() & _INFORMING.keys())


def _inform(flags: Sequence[str], overrides: Sequence[str], config_dir: str | None) -> int:
    """Print what was asked for; run nothing."""
    from lrkit.config import compose as configs
    from lrkit.config.overrides import parse_overrides
    from lrkit.config.saved_config import resume_path_in

    if config_dir:
        configs.screen_files(overrides, config_dir)
    if (
        any(flag.startswith(("--cfg=job", "-c=job")) for flag in flags)
        and resume_path_in(parse_overrides(overrides)) is not None
    ):
        from omegaconf import OmegaConf

        _look_up(overrides)
        print(OmegaConf.to_yaml(OmegaConf.create(configs.compose(overrides, config_dir))), end="")
        return OK
    said = io.StringIO()
    try:
        with redirect_stderr(said), _refusing():
            _hydra([*flags, *overrides], config_dir, lambda _: None)
    except ConfigError:
        if not any(flag in ("-sc", "--shell-completion") for flag in flags):
            configs.compose(overrides, config_dir)  # says it better, where it is the config that is wrong
        raise
    except SystemExit as end:
        if end.code:
            raise ConfigError("lrkit train", f"was refused by Hydra: {' '.join(said.getvalue().split())}") from None
    return OK


def _check_hydra(overrides: Sequence[str]) -> None:
    """Refuse what would have Hydra do another thing than lrkit has checked."""
    for override in overrides:
        if override.lstrip("+~").startswith("hydra.mode"):
            raise ConfigError("hydra.mode", "must not be set: -m makes a sweep", override)


def _compare(argv: list[str]) -> int:
    """Rank the runs below some folders; print the table, and leave tables and pictures in ``out``."""
    from lrkit.compare import report, tables
    from lrkit.compare.ranking import compare

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
        elif equals and not os.path.exists(word) and key.isidentifier():
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
    files, notes = report.write_report(comparison, out)
    print(tables.tables_as_text(comparison), end="")
    for note in notes:
        print(f"note: {note}")
    print(f"{', '.join(file.name for file in files)} are in {out}")
    return OK


def _sweep(overrides: list[str], config_dir: str | None) -> int:
    """Run the jobs of a sweep on this machine, or those that are missing; at its end, the table."""
    from lrkit.config import compose as configs
    from lrkit.sweep.sweep import Sweep, apply_preset, find_unfinished

    overrides = apply_preset(overrides, config_dir)
    configs.check_sweep(overrides, config_dir)
    _one_process()
    parent, given = Path("outputs") / "sweeps", [o for o in overrides if o.startswith("hydra.")]
    named = _named(overrides)
    for override in given:
        if not override.startswith("hydra.sweep.dir=") or "${" in override:
            must = "is not for a sweep on this machine; what is: hydra.sweep.dir, a folder in plain words"
            raise ConfigError(override.partition("=")[0], must, override.partition("=")[2])
    overrides = [o for o in overrides if o not in given]
    folder = named or find_unfinished(overrides, parent, config_dir) or Path(_new_folder(parent))
    _made(folder, "hydra.sweep.dir")
    check_links(folder, "hydra.sweep.dir")
    sweep = Sweep(overrides, folder, config_dir)
    how = f"the same command goes on in {folder}"
    try:
        with hold_lock(folder, "hydra.sweep.dir"), raise_on_signals(*ASKING):
            counts = sweep.run(_job, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {how}") from None
    except Terminated as error:
        raise Terminated(error.signum, f"{error.said}; {how}") from None
    return _closing(folder, counts, "; the same command runs what is missing")


def _engine(overrides: list[str], config_dir: str | None) -> int:
    """Hand a sweep to a launcher or a sweeper of Hydra's, which runs the jobs where it does; at its end, the table."""
    from lrkit.config import compose as configs
    from lrkit.config.overrides import expand_jobs, parse_overrides
    from lrkit.sweep.hydra_job import score_job
    from lrkit.sweep.sweep import count_statuses, quote_value

    words, searches = configs.sweep_of_files(overrides, config_dir)
    configs.check_sweep(words, config_dir, searches)
    for key in ("jobs", "on_error", "timeout"):
        if any(word.startswith(f"{key}=") for word in words):
            must = "is for sweeps that lrkit runs itself: an engine is told by hydra.launcher and hydra.sweeper"
            raise ConfigError(key, must)
    named = _named(overrides)
    if named is not None and "${" in str(named):
        raise ConfigError("hydra.sweep.dir", "must be a folder in plain words", str(named))
    if named is not None and count_statuses(named):
        raise ConfigError("hydra.sweep.dir", "must be a folder without runs: an engine begins anew", str(named))
    _one_process()
    folder = named or Path(_new_folder(Path("outputs") / "sweeps"))
    _made(folder, "hydra.sweep.dir")
    check_links(folder, "hydra.sweep.dir")
    same = ",".join(o.key_or_group for o in parse_overrides(overrides) if not o.is_sweep_override())
    own = [
        f"hydra.sweep.dir={quote_value(str(folder.resolve()))}",  # a job may begin in another folder than this
        f"hydra.job.config.override_dirname.exclude_keys=[{same}]",  # a job is named by what differs
    ]
    given = [override for override in overrides if not override.startswith("hydra.sweep.dir=")]
    print(f"the sweep's folder is {folder}", flush=True)
    code = OK
    try:
        _hydra(["-m", *given, *own], config_dir, score_job)
    except Exception as error:
        code = FAILED
        error_report.report_failure(error, "the engine failed: ")
    counts = count_statuses(folder)
    jobs = 1 if searches else len(expand_jobs(words, config_dir))
    if (lost := jobs - sum(counts.values())) > 0:
        counts["lost"] = lost
    ended = _closing(folder, counts)
    return code or ended


def _named(overrides: Sequence[str]) -> Path | None:
    """The folder that the command line gives to a sweep."""
    named = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("hydra.sweep.dir=")]
    return Path(named[0]) if named else None


def _one_process() -> None:
    launch = detect_launch()
    if global_rank() > 0 or (launch is not None and launch.world > 1):
        by, there = ("a launcher", "") if launch is None else (launch.by, f": there are {launch}")
        raise ConfigError("-m", f"must not be given to {by}{there}; each job of a sweep starts its own processes")


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
    own = [] if config_dir is None else ["--config-dir", config_dir]
    with command_line.command_line_of(["train", *own, *words]):
        return _told(lambda: _alone(words, config_dir))


def _continued(resume: dict[str, Any]) -> Path | None:
    """The folder of the run that is simply gone on with; None for a new run, and for one that branches off."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    from lrkit.config.saved_config import run_folder

    return run_folder(str(resume["path"]))


def _look_up(overrides: Sequence[str]) -> None:
    """Read the config that a run is gone on with where only its checkpoint has it: composing does without torch."""
    from lrkit.config import saved_config
    from lrkit.config.overrides import parse_overrides

    path = saved_config.resume_path_in(parse_overrides(overrides))
    if path is not None and saved_config.run_folder(path) is None and os.path.isfile(path):
        from lrkit.checkpoint.config import read_config

        if (config := read_config(path)) is not None:
            saved_config.remember_config(path, config)


def _alone(argv: list[str], config_dir: str | None, made: Path | None = None) -> int:
    """Train once, in this process.

    Args:
        made: the folder that was made for this run alone.
    """
    from lrkit.config.overrides import parse_overrides
    from lrkit.config.saved_config import resume_path_in

    words = [word for word in argv if not word.startswith("-")]
    if resume_path_in(parse_overrides(words)) is not None:
        return _go_on(words, config_dir, made)
    from lrkit.sweep.hydra_job import train_job

    statuses: list[str] = []
    failed: list[Exception] = []

    def job(config: Any) -> None:
        try:
            statuses.append(train_job(config).status)
        except Exception as error:  # Hydra would print it, and exit
            failed.append(error)

    with _refusing():
        _hydra(argv, config_dir, job)
    if failed:
        if isinstance(failed[0], ConfigError) and made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise failed[0]
    return DIVERGED if "diverged" in statuses else OK


def _go_on(words: Sequence[str], config_dir: str | None, made: Path | None) -> int:
    """Train on from a checkpoint. Not by way of Hydra, which knows no config but that of its files."""
    from lrkit.config import compose as configs
    from lrkit.config.instantiate import use_lightning
    from lrkit.config.overrides import parse_overrides

    folder: Path | None = None
    for override in parse_overrides(words):
        key = override.key_or_group
        if key == "hydra.run.dir" and "${" not in str(override.value()):
            folder = Path(str(override.value()))
        elif override.is_hydra_override() and key != "hydra.output_subdir":
            must = "is not for a run that goes on; what is: hydra.run.dir, a folder in plain words"
            raise ConfigError(key, must, str(override.value()))
    _look_up(words)
    config = configs.compose([word for word in words if not word.startswith("hydra.")], config_dir)
    use_lightning(config)
    from lrkit.train.run import run_training

    assert folder is not None
    _made(folder, "hydra.run.dir")
    try:
        return DIVERGED if run_training(config, folder).status == "diverged" else OK
    except ConfigError:
        if made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise


def _hydra(argv: list[str], config_dir: str | None, job: Callable[[Any], Any]) -> None:
    """Hand a checked command line to Hydra."""
    import hydra

    from lrkit.config.overrides import CONF_DIR, VERSION_BASE, searching_folder, with_added_tracks

    saved, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [saved[0], *with_added_tracks(argv)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra would print what went wrong, and exit
    try:
        with searching_folder(config_dir):
            hydra.main(config_path=str(CONF_DIR), config_name="train", version_base=VERSION_BASE)(job)()
    finally:
        sys.argv = saved
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


@contextmanager
def _refusing() -> Iterator[None]:
    """What Hydra raises while it prepares a job is bad input: ours was checked, and what is left is its own keys."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        key = getattr(error, "full_key", None)
        text = (str(error) or type(error).__name__).splitlines()
        said = " ".join(text[:1] if key else text).rstrip(".")
        raise ConfigError(str(key or "lrkit train"), f"was refused by Hydra: {said}") from error


def _join(folder: Path, config: Path) -> int:
    """One more process of a run: the config is the one that the first process resolved."""
    let_go()
    # The first process says how it ended; a code of our own would make Lightning kill it while it does.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        _trained(receive_config(config), folder)
    return OK


def _folder_and_file(rest: Sequence[str]) -> tuple[Path, Path]:
    """What a process is told that lrkit starts; of anybody else's command whatever is there, which is refused."""
    folder, file, *_ = [*rest, "", ""]
    return Path(folder), Path(file)


def _follow(overrides: list[str], config_dir: str | None) -> int:
    """A process that a cluster or torchrun started beside the first: it trains along, and writes nothing."""
    from lrkit.config import compose as configs

    with tempfile.TemporaryDirectory() as folder:
        _trained(configs.compose(overrides, config_dir), Path(folder))
    return OK


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], str | None]:
    """Flags, overrides, and the folder of the user's own configs. ``--trust`` is an override too, so it goes along."""
    flags: list[str] = []
    overrides: list[str] = []
    trust: list[str] = []
    config_dir: str | None = None
    words = iter(argv)
    for word in words:
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif name in ("--config-dir", "-cd"):
            config_dir = value if has_value else next(words, None)
            if config_dir is None or not os.path.isdir(config_dir):
                raise ConfigError("--config-dir", "must be an existing folder", config_dir)
        elif name == "--trust":
            trust.append(value if has_value else next(words, ""))
        elif name in ("--cfg", "-c", "--info", "-i", "--package", "-p", "--config-name", "-cn") and not has_value:
            flags.append(f"{name}={next(words, '')}")
        else:
            flags.append(word)
    if trust:
        overrides.append(f"trust=[{','.join(check_trust(trust, '--trust'))}]")
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


def _check_free(folder: Path) -> None:
    """Refuse a folder that a run is in: a new one would write over its checkpoints."""
    from lrkit.runs.run_reader import SWEEP

    check_links(folder, "hydra.run.dir")
    if any(os.path.lexists(folder / name) for name in ("plan.json", "metrics.json", "checkpoints", SWEEP)):
        must = f"must be a folder without a run: to go on with this one say resume.path={folder}, or name another"
        raise ConfigError("hydra.run.dir", must, str(folder))


def _unused(folder: Path, ending: str) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return next(p for n in itertools.count() if not (p := folder / f"{stamp}{f'-{n}' if n else ''}{ending}").exists())


def _label(swept: Sequence[str]) -> str:
    """What tells one of several apart: the values alone where one key is swept."""
    return swept[0].partition("=")[2] if len(swept) == 1 else " ".join(swept)
