"""Calls Hydra with a command line that lrkit has checked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import OK
from lrkit.cli.resumed_run import has_saved_config, load_resumed_config

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["call_hydra", "print_information", "refuse_hydra_errors", "run_composed", "set_run_folder"]


def print_information(flags: Sequence[str], overrides: Sequence[str], config_dir: str | None) -> int:
    """Print the requested information; run nothing."""
    from lrkit.config import compose as configs
    from lrkit.config.config_file import split_config_file

    if config_dir:
        configs.screen_files(overrides, config_dir)
    is_job = any(flag.startswith(("--cfg=job", "-c=job")) for flag in flags)
    if not is_job and split_config_file(overrides)[0] is not None:
        raise ConfigError("--config", "does not go with these flags: of a config in a file lrkit prints --cfg job only")
    if is_job and has_saved_config(overrides):
        from omegaconf import OmegaConf

        load_resumed_config(overrides)
        print(OmegaConf.to_yaml(OmegaConf.create(configs.compose(overrides, config_dir))), end="")
        return OK
    said = io.StringIO()
    try:
        with redirect_stderr(said), refuse_hydra_errors():
            call_hydra([*flags, *overrides], config_dir, lambda _: None)
    except ConfigError:
        configs.compose(overrides, config_dir)  # has the better message if the config is wrong
        raise
    except SystemExit as end:
        if end.code:
            raise ConfigError("lrkit train", f"was refused by Hydra: {' '.join(said.getvalue().split())}") from None
    return OK


@contextmanager
def refuse_hydra_errors() -> Iterator[None]:
    """Within this context, an error of Hydra's own keys becomes a ``ConfigError``; lrkit's keys were checked before."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        key = getattr(error, "full_key", None)
        text = (str(error) or type(error).__name__).splitlines()
        said = " ".join(text[:1] if key else text).rstrip(".")
        raise ConfigError(str(key or "lrkit train"), f"was refused by Hydra: {said}") from error


def call_hydra(argv: list[str], config_dir: str | None, job: Callable[[Any], Any]) -> None:
    """Call Hydra with a checked command line."""
    import hydra

    from lrkit.config.overrides import CONF_DIR, VERSION_BASE, searching_folder, with_added_tracks

    saved, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [saved[0], *with_added_tracks(argv)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra would print the error and exit
    try:
        with searching_folder(config_dir):
            hydra.main(config_path=str(CONF_DIR), config_name="train", **VERSION_BASE)(job)()
    finally:
        sys.argv = saved
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def run_composed(composed: DictConfig, config_dir: str | None, job: Callable[[Any], Any]) -> None:
    """Run a job with a config that Hydra has composed already: in Hydra's folder of the job, with Hydra's callbacks.

    ``hydra.main`` would compose the same config twice more, the first time to learn that this is no sweep.

    Args:
        composed: with its node ``hydra``, see ``lrkit.config.compose.compose_with_hydra``.
    """
    from hydra.core.global_hydra import GlobalHydra

    from lrkit.config.overrides import hydra_initialised

    with hydra_initialised(config_dir):
        hydra: Any = GlobalHydra.instance().hydra
        loader = hydra.config_loader = _ComposedConfig(hydra.config_loader, composed)

        def checked_job(config: Any) -> Any:
            if not loader.is_used:
                raise RuntimeError("this version of hydra-core composes another config than the one that lrkit checked")
            return job(config)

        hydra.run("train", checked_job, [])


class _ComposedConfig:
    """Hydra's config loader, with a config that is composed already.

    No subclass of Hydra's own loader: with one, hydra-core 1.4 does not call ``load_configuration``.
    """

    def __init__(self, loader: Any, composed: DictConfig) -> None:
        self.loader, self.composed = loader, composed
        self.is_used = False

    def load_configuration(self, *_: Any, **__: Any) -> DictConfig:
        self.is_used = True
        return self.composed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def set_run_folder(composed: DictConfig, folder: Path) -> None:
    """Set the folder of a run in its composed config, as the override ``hydra.run.dir=...`` does."""
    from omegaconf import open_dict, read_write

    with read_write(composed.hydra), open_dict(composed.hydra):
        composed.hydra.run.dir = str(folder)
        composed.hydra.overrides.hydra.append(f"hydra.run.dir={folder}")
