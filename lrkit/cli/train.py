"""`lrkit train`: checks the command line, chooses the folder, and starts a run, a sweep or a process of a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lrkit.base.exit_codes import OK
from lrkit.base.launcher_environment import global_rank
from lrkit.base.process_pool import receive_config
from lrkit.base.python_safe_path import restore_path
from lrkit.base.run_lock import hold_lock
from lrkit.base.signals import Terminated
from lrkit.base.symbolic_links import check_links
from lrkit.cli.arguments import asks_for_information, check_hydra_overrides, refuse_sweep_keys, split_arguments
from lrkit.cli.errors_in_one_line import refuse_together
from lrkit.cli.hydra_call import print_information, set_run_folder
from lrkit.cli.output_folders import check_holds_no_run, create_folder, make_writable
from lrkit.cli.resumed_run import find_continued_folder, load_resumed_config
from lrkit.cli.single_run import train_once

__all__ = ["join_run", "run_train", "train_config", "train_other_rank"]


def run_train(argv: list[str]) -> int:
    """Check the command line, then run one job or a sweep of jobs."""
    from lrkit.config import compose as configs

    with refuse_together():
        flags, overrides, config_dir = split_arguments(argv)
        if asks_for_information(flags):
            return OK if global_rank() > 0 else print_information(flags, overrides, config_dir)
        check_hydra_overrides(overrides)
        asked = [override.lstrip("+") for override in overrides]
        sweep = bool({"-m", "--multirun"} & set(flags)) or any(
            o.startswith(("sweep=", "sweep.race=", "launcher=")) for o in asked
        )
        if sweep:
            from lrkit.cli.sweep import run_engine, run_sweep

            engine = any(o.startswith(("launcher=", "hydra/launcher=", "hydra/sweeper=")) for o in asked)
            return run_engine(overrides, config_dir) if engine else run_sweep(overrides, config_dir)
        load_resumed_config(overrides)
        config, composed = configs.compose_with_hydra(overrides, config_dir)
        # The plan of a resumed run may come from the checkpoint.
        (configs.check if config["resume"]["path"] is None else configs.check_values)(config)
        refuse_sweep_keys(asked, "one run")
        continued = find_continued_folder(config["resume"])
    own_folder: list[str] = []
    made: Path | None = None
    if global_rank() > 0:
        return train_other_rank(overrides, config_dir)
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
        if composed is not None and made is not None:
            set_run_folder(composed, made)
        return train_once([*overrides, *own_folder], config_dir, composed, made)


def train_other_rank(overrides: list[str], config_dir: str | None) -> int:
    """Train in another process of a cluster or torchrun, which writes no files."""
    from lrkit.config import compose as configs

    with tempfile.TemporaryDirectory() as folder:
        train_config(configs.compose(overrides, config_dir), Path(folder))
    return OK


def join_run(folder: Path, config: Path) -> int:
    """Join a run as another process, with the config that the first process resolved."""
    restore_path()
    # The first process reports the end. After another exit code of this process, Lightning would kill it before.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        train_config(receive_config(config), folder)
    return OK


def train_config(config: Mapping[str, Any], folder: Path) -> None:
    """Train in a process that is not the first one, with the Lightning package of the user's classes."""
    from lrkit.config.instantiate import use_lightning

    use_lightning(config)
    from lrkit.training.run import run_training

    run_training(config, folder, quiet=True)
