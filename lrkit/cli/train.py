"""`lrkit train`, for one run: begun, resumed, or joined by a further process."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import DIVERGED, OK
from lrkit.base.launcher import global_rank
from lrkit.base.links import check_links
from lrkit.base.process_pool import receive_config
from lrkit.base.run_lock import hold_lock
from lrkit.base.safe_path import restore_path
from lrkit.base.signals import Terminated
from lrkit.cli.arguments import asks_for_information, check_hydra_overrides, split_arguments
from lrkit.cli.errors_in_one_line import refuse_together
from lrkit.cli.folders import check_holds_no_run, create_folder, make_writable
from lrkit.cli.hydra_call import call_hydra, print_information, refuse_hydra_errors
from lrkit.cli.resumed import continued_folder, load_resumed_config

__all__ = ["follow_run", "join_run", "resume_run", "run_train", "train_config", "train_once"]


def run_train(argv: list[str]) -> int:
    """Check everything first, then let Hydra run it: one job, or a sweep of jobs."""
    from lrkit.config import compose as configs

    with refuse_together():
        flags, overrides, config_dir = split_arguments(argv)
        if asks_for_information(flags):
            return OK if global_rank() > 0 else print_information(flags, overrides, config_dir)
        check_hydra_overrides(overrides)
        asked = [override.lstrip("+") for override in overrides]
        sweep = bool({"-m", "--multirun"} & set(flags)) or any(o.startswith(("sweep=", "launcher=")) for o in asked)
        if sweep:
            from lrkit.cli.sweep import run_engine, run_sweep  # whose jobs are trained by this file

            engine = any(o.startswith(("launcher=", "hydra/launcher=", "hydra/sweeper=")) for o in asked)
            return run_engine(overrides, config_dir) if engine else run_sweep(overrides, config_dir)
        load_resumed_config(overrides)
        config = configs.compose(overrides, config_dir)
        if config["resume"]["path"] is None:
            configs.check(config)
        else:  # the plan may come from there
            configs.check_values(config)
        continued = continued_folder(config["resume"])
    own_folder: list[str] = []
    made: Path | None = None
    if global_rank() > 0:
        return follow_run(overrides, config_dir)
    if continued is not None:
        make_writable(continued, "resume.path")
        check_links(continued, "resume.path")
        own_folder = [f"hydra.run.dir={continued}", "hydra.output_subdir=null"]
    elif given := [o.partition("=")[2] for o in overrides if o.startswith("hydra.run.dir=")]:
        if "${" not in given[0]:
            named = Path(given[0].strip("'\""))
            make_writable(named, "hydra.run.dir")
            check_holds_no_run(named)
    else:
        made = Path(create_folder(Path("outputs") / "runs"))
        own_folder = [f"hydra.run.dir={made}"]
    folder = given[0].strip("'\"") if continued is None and made is None else str(continued or made)
    with (
        hold_lock(Path(folder), "hydra.run.dir" if continued is None else "resume.path")
        if "${" not in folder
        else nullcontext()
    ):
        return train_once([*flags, *overrides, *own_folder], config_dir, made)  # argparse wants overrides in one piece


def follow_run(overrides: list[str], config_dir: str | None) -> int:
    """A process that a cluster or torchrun started beside the first: it trains along, and writes nothing."""
    from lrkit.config import compose as configs

    with tempfile.TemporaryDirectory() as folder:
        train_config(configs.compose(overrides, config_dir), Path(folder))
    return OK


def join_run(folder: Path, config: Path) -> int:
    """One more process of a run: the config is the one that the first process resolved."""
    restore_path()
    # The first process says how it ended; a code of our own would make Lightning kill it while it does.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        train_config(receive_config(config), folder)
    return OK


def train_once(argv: list[str], config_dir: str | None, made: Path | None = None) -> int:
    """Train once, in this process.

    Args:
        made: the folder that was made for this run alone.
    """
    from lrkit.config.overrides import parse_overrides
    from lrkit.config.saved_config import resume_path_in

    words = [word for word in argv if not word.startswith("-")]
    if resume_path_in(parse_overrides(words)) is not None:
        return resume_run(words, config_dir, made)
    from lrkit.sweep.hydra_job import train_job

    statuses: list[str] = []
    failed: list[Exception] = []

    def job(config: Any) -> None:
        try:
            statuses.append(train_job(config).status)
        except Exception as error:  # Hydra would print it, and exit
            failed.append(error)

    with refuse_hydra_errors():
        call_hydra(argv, config_dir, job)
    if failed:
        if isinstance(failed[0], ConfigError) and made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise failed[0]
    return DIVERGED if "diverged" in statuses else OK


def resume_run(words: Sequence[str], config_dir: str | None, made: Path | None) -> int:
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
    load_resumed_config(words)
    config = configs.compose([word for word in words if not word.startswith("hydra.")], config_dir)
    use_lightning(config)
    from lrkit.training.run import run_training

    assert folder is not None
    make_writable(folder, "hydra.run.dir")
    try:
        return DIVERGED if run_training(config, folder).status == "diverged" else OK
    except ConfigError:
        if made is not None and not (made / "plan.json").exists():
            shutil.rmtree(made)  # nothing was planned, so nothing is in it
        raise


def train_config(config: Mapping[str, Any], folder: Path) -> None:
    """The training of a process that is not the first one, by the user's own Lightning."""
    from lrkit.config.instantiate import use_lightning

    use_lightning(config)
    from lrkit.training.run import run_training

    run_training(config, folder, quiet=True)
