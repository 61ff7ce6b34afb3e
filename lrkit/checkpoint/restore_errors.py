"""Errors while Lightning restores the parts of a checkpoint, reported in one line with the name of the part.

lrkit checks a checkpoint before (``lrkit.checkpoint.checkpoint_schema``). It cannot check the states of third-party
callbacks, optimizers, precision plugins and data; their errors occur only when they are restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lrkit.base.error_report import describe_cause
from lrkit.base.errors import ConfigError, Diverged, RunError, SearchError
from lrkit.lightning.imports import Trainer

__all__ = ["explain_restore_errors", "install_restore_errors"]

#: The method of Lightning that restores a part, and the name of the part in the message.
_PARTS = {
    "resume_start": "a version of Lightning",
    "restore_datamodule": "a state of the data",
    "restore_callbacks": "states of callbacks",
    "restore_precision_plugin_state": "a state of mixed precision",
    "restore_loops": "counts of batches and steps",
    "restore_optimizers": "states of optimizers",
    "restore_lr_schedulers": "states of schedulers",
}


def install_restore_errors(trainer: Trainer, path: Path) -> None:
    """Let a trainer that resumes from ``path`` name the part that it cannot restore. Call this before the fit."""
    connector = trainer._checkpoint_connector
    for name, what in _PARTS.items():
        setattr(connector, name, partial(_restore_part, what, path, getattr(connector, name)))


def _restore_part(what: str, path: Path, usual: Callable[..., None], *given: Any, **more: Any) -> None:
    with explain_restore_errors(what, path):
        usual(*given, **more)


@contextmanager
def explain_restore_errors(what: str, path: Path) -> Iterator[None]:
    """Within this context, an error becomes a ``ConfigError`` about the part ``what`` of the checkpoint ``path``."""
    try:
        yield
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise ConfigError(
            "resume.path", f"must be a checkpoint in the format of lrkit; in {path.name}, {said}"
        ) from None
    except (Diverged, RunError, SearchError):
        raise
    except Exception as error:
        raise ConfigError(
            "resume.path", f"contains {what} that cannot be restored: {describe_cause(error)}", str(path)
        ) from error
