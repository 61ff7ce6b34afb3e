"""Atomic writing and verified reading of checkpoints.

    write a new file and sync it to the disk -> link last.ckpt as previous.ckpt -> rename the new file to last.ckpt

If the process is killed at any moment, at least one complete checkpoint exists. Lightning's own code writes to a
temporary folder, and its final move is not atomic if that folder is on another file system. A write never follows a
link: the name of the new file is unused, and if last.ckpt is a link, the rename replaces the link.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lrkit.base.errors import RunError
from lrkit.base.files import choose_temporary_name, create_temporary_file, find_leftovers
from lrkit.base.run_files import PREVIOUS
from lrkit.checkpoint.plain_data_decoder import from_plain_data
from lrkit.checkpoint.untrusted_file import UnsafeCheckpoint, find_damage, load_untrusted
from lrkit.checkpoint.weights_only_check import find_unreadable
from lrkit.config.resume_options import checkpoint_candidates
from lrkit.lightning.imports import Callback, ModelCheckpoint, TorchCheckpointIO, Trainer

__all__ = [
    "DurableIO",
    "FixedNameCheckpoint",
    "install_durable_io",
    "read_checkpoint",
    "remove_leftovers",
]


class FixedNameCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` whose state key is the name of its file, for any monitored metric.

    Lightning reads the state key at each hook of each step, and its own property formats all options each time. The
    checkpoint is saved after a validation or an epoch, so the hook after a batch does nothing.
    """

    on_train_batch_end = Callback.on_train_batch_end

    @property
    def state_key(self) -> str:
        return f"Kept {self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best scores, but not the saved paths, because Lightning deletes the files at these paths."""
        own = str(Path(self.dirpath or "", f"{self.filename}.ckpt"))
        paths = {name: own if state_dict.get(name) else "" for name in ("best_model_path", "kth_best_model_path")}
        best = dict.fromkeys([own][: len(state_dict["best_k_models"])], state_dict["best_model_score"])
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "last_model_path": ""})


class DurableIO(TorchCheckpointIO):
    """Saves and loads checkpoints that are one local file. Lightning handles remote paths.

    Args:
        last: the checkpoint whose previous version is kept beside it, as ``previous.ckpt``.
    """

    def __init__(self, last: Path) -> None:
        self.last = _resolve_folder(last)
        self.sound: set[Path] = set()  # files that this process has written, or read without an error
        self.remote: set[str] = set()  # remote paths that this process has written
        self.verified = False  # whether the first checkpoint has been read again

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``path``.

        The first checkpoint of a run is read again before the rename, because a run could not be resumed from a file
        that cannot be read.

        Raises:
            RunError: the file cannot be written or read again; the previous file is unchanged.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            self.remote.add(str(path))
            return
        file = _resolve_folder(path)
        beside: Path | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside, number = create_temporary_file(file)
            _write_to_disk(checkpoint, number)
            if not self.verified:
                _verify_file(checkpoint, beside)
                self.verified = True
            if file == self.last and file in self.sound:
                _keep_as_previous(file)
            os.replace(beside, file)
            _sync_folder(file.parent)
        except Exception as error:
            if beside is not None:
                _remove_file(beside)
            cause = _find_os_error(error)
            if cause is None:
                raise  # the content cannot be saved in any place
            why = cause.strerror or str(cause)
            raise RunError(f"checkpoint {file} cannot be written ({why}); {describe_last_good(self.last)}") from None
        self.sound.add(file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read ``path``. Executes no code from the file, for any value of ``weights_only``."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, True)
        content: dict[str, Any] = load_untrusted(Path(path), map_location)
        self.sound.add(_resolve_folder(path))
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file, but no folder, and only own remote files: the path may come from a checkpoint."""
        file = Path(path)
        if str(path) in self.remote:
            super().remove_checkpoint(path)
        elif file.is_file() or file.is_symlink():
            _remove_file(file)


def install_durable_io(trainer: Trainer, last: Path) -> None:
    """Give a trainer ``DurableIO``, unless the user chose another plugin than Lightning's default."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableIO(last)


def read_checkpoint(file: Path) -> tuple[Any, str]:
    """Return the content of a checkpoint, or None and its damage. Executes no code from the file."""
    if wrong := find_damage(file):
        return None, wrong
    try:
        return from_plain_data(load_untrusted(file)), ""
    except UnsafeCheckpoint as error:
        return None, str(error).removeprefix(f"{file.name}: ")
    except Exception as error:
        return None, f"it cannot be read ({type(error).__name__})"


def describe_last_good(last: Path) -> str:
    """Return the checkpoint from which the run can be resumed, in words."""
    for file in checkpoint_candidates(last):
        content, wrong = read_checkpoint(file)
        if not wrong:
            step = content.get("lrkit", {}).get("step", content.get("global_step"))
            return f"the last good one is {file}, step {step}"
    return "there is no earlier checkpoint"


def remove_leftovers(folder: Path) -> None:
    """Remove the incomplete files of a killed process."""
    for file in find_leftovers(folder, ".ckpt"):
        _remove_file(file)


def _resolve_folder(path: str | Path) -> Path:
    """Return a path with its folder resolved, but not its last part, which may be a link."""
    file = Path(path)
    return file.parent.resolve() / file.name


def _write_to_disk(checkpoint: dict[str, Any], number: int) -> None:
    with os.fdopen(number, "wb") as stream:
        torch.save(checkpoint, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _verify_file(checkpoint: dict[str, Any], file: Path) -> None:
    """Read a file as a resumed run would, except for the numbers in its tensors."""
    try:
        try:
            load_untrusted(file, mmap=True)
        except UnsafeCheckpoint:
            raise
        except (RuntimeError, OSError):  # a file system without mmap
            load_untrusted(file)
    except UnsafeCheckpoint as error:
        raise RunError(f"checkpoint {file.stem} could not be read after it was written ({error})") from None
    except pickle.UnpicklingError:
        what = find_unreadable(checkpoint)
        raise RunError(
            f"checkpoint {file.stem} could not be read after it was written: torch.load refuses {what}"
        ) from None


def _keep_as_previous(file: Path) -> None:
    """Make ``previous.ckpt`` a hard link to ``file``: ``file`` is never missing, and nothing is copied."""
    kept = file.with_name(PREVIOUS)
    link = choose_temporary_name(kept)
    try:
        os.link(file, link)
        os.replace(link, kept)
    except FileNotFoundError:
        return  # another process has removed it
    except OSError:  # a file system without hard links
        os.replace(file, kept)
    finally:
        _remove_file(link)


def _sync_folder(folder: Path) -> None:
    """Sync the folder's list of names to the disk, if the operating system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_file(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _find_os_error(error: BaseException | None) -> OSError | None:
    """Return the ``OSError`` behind an error: torch raises an error of its own for a full disk."""
    seen: Sequence[BaseException] = ()
    while error is not None and error not in seen:
        if isinstance(error, OSError):
            return error
        seen = [*seen, error]
        error = error.__cause__ or error.__context__
    return None
