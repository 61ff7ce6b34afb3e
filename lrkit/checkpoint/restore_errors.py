"""What Lightning takes up from a checkpoint: where a part of it makes no sense, that is told in one line, by its name.

lrkit checks a checkpoint before (``lrkit.checkpoint.checkpoint_schema``). What it does not know (states of others'
callbacks, optimizers, precision plugins, data) is found out when it is taken up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lrkit.base.error_report import describe_cause
from lrkit.base.errors import ConfigError, Diverged, RunError, SearchError
from lrkit.lightning.classes import Trainer

__all__ = ["install", "taking_up"]

#: Where Lightning takes up a part, and what that is.
_PARTS = {
    "resume_start": "a version of Lightning",
    "restore_datamodule": "a state of the data",
    "restore_callbacks": "states of callbacks",
    "restore_precision_plugin_state": "a state of mixed precision",
    "restore_loops": "counts of batches and steps",
    "restore_optimizers": "states of optimizers",
    "restore_lr_schedulers": "states of schedulers",
}


def install(trainer: Trainer, path: Path) -> None:
    """Have a trainer that goes on from ``path`` say which part of it cannot be taken up. Before the fit."""
    connector = trainer._checkpoint_connector
    for name, what in _PARTS.items():
        setattr(connector, name, partial(_take, what, path, getattr(connector, name)))


def _take(what: str, path: Path, usual: Callable[..., None], *given: Any, **more: Any) -> None:
    with taking_up(what, path):
        usual(*given, **more)


@contextmanager
def taking_up(what: str, path: Path) -> Iterator[None]:
    """Within it, an error is one of the checkpoint ``path``, which holds ``what``."""
    try:
        yield
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise ConfigError(
            "resume.path", f"must be a checkpoint as lrkit writes them, and in {path.name} {said}"
        ) from None
    except (Diverged, RunError, SearchError):
        raise
    except Exception as error:
        raise ConfigError(
            "resume.path", f"holds {what} that cannot be taken up: {describe_cause(error)}", str(path)
        ) from error
