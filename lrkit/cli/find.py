"""`lrkit find`: the search for a learning rate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import FAILED, OK
from lrkit.base.files import shorten_path
from lrkit.base.launcher_environment import global_rank
from lrkit.base.process_pool import receive_config
from lrkit.base.python_safe_path import restore_path
from lrkit.base.terminal_width import print_line
from lrkit.cli.arguments import refuse_flags, refuse_sweep_keys, split_arguments
from lrkit.cli.errors_in_one_line import refuse_together
from lrkit.cli.output_folders import create_folder

if TYPE_CHECKING:
    from lrkit.lr_finder.result import FinderResult

__all__ = ["join_search", "run_find", "search_and_print"]


def run_find(argv: list[str]) -> int:
    """Check the config, then search; the last printed line is the override to type."""
    from lrkit.config import compose as configs

    flags, overrides, config_dir = split_arguments(argv)
    for flag in flags:
        if flag in ("-m", "--multirun"):
            raise ConfigError(
                flag, "is not for lrkit find; each job of a sweep finds its own rate by optimizer.lr=auto"
            )
    refuse_flags("find", flags)
    with refuse_together():
        config = configs.compose(overrides, config_dir)
        configs.check(config)
        refuse_sweep_keys(overrides, "a search")
    if global_rank() > 0:
        with tempfile.TemporaryDirectory() as nowhere:
            search_and_print(config, Path(nowhere), quiet=True)
        return OK
    folder = Path(create_folder(Path("outputs") / "find"))
    try:
        found = search_and_print(config, folder)
    except ConfigError:
        shutil.rmtree(folder)  # the search measured nothing
        raise
    _print_result(folder, found)
    return OK if found.lr is not None else FAILED


def _print_result(folder: Path, found: FinderResult) -> None:
    """Print the result of a search, the path of its files, and the override to type."""
    print_line(f"\n{found.sentence()}; {found.steps} steps in {found.seconds:.1f} s")
    print_line(f"everything is in {shorten_path(folder)}")
    if found.lr is not None:
        print_line(found.flag)


def join_search(folder: Path, config: Path, quiet: bool) -> int:
    restore_path()
    search_and_print(receive_config(config), folder, quiet=quiet or global_rank() > 0)
    return OK


def search_and_print(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinderResult:
    """Search with the Lightning package of the user's classes, and print the result."""
    from lrkit.config.instantiate import use_lightning

    use_lightning(config)
    from lrkit.lr_finder.find import find_lr

    return find_lr(config, folder, quiet=quiet)
