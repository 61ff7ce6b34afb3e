"""The processes that Lightning starts for further devices join the run in its folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lrkit.base.process_pool import pass_config
from lrkit.base.python_safe_path import launch_with_safe_path
from lrkit.lightning.imports import (
    Trainer,
)

__all__ = ["rejoin_as_worker"]


@contextmanager
def rejoin_as_worker(folder: Path, asked: Mapping[str, Any], trainer: Trainer) -> Iterator[None]:
    """Processes that Lightning starts for further devices run the resolved config, never the command line again.

    Lightning repeats ``sys.argv``; with Hydra's it would compose anew, resolve ``${now:}`` anew and, under ``-m``,
    start a second sweep. So for the time of the fit the command line is: join the run in this folder, by this config.
    """
    from hydra.core.hydra_config import HydraConfig

    if "LOCAL_RANK" in os.environ:  # this is a worker process, or a launcher started all processes
        yield
        return
    argv, hydra, environment = sys.argv, HydraConfig.instance().cfg, dict(os.environ)
    with pass_config(asked) as file, launch_with_safe_path(trainer.strategy.launcher):
        sys.argv, HydraConfig.instance().cfg = [argv[0], "join", str(folder), file], None
        try:
            yield
        finally:
            sys.argv, HydraConfig.instance().cfg = argv, hydra
            # The next job of a sweep must not see the ranks of this one.
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                os.environ.pop(name, None)
                if name in environment:
                    os.environ[name] = environment[name]
