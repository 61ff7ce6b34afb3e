"""Checkpoints that survive: written beside their place and put there in one piece, verified when they are read.

    write a new file, to the disk -> previous.ckpt is what last.ckpt was -> the new file becomes last.ckpt

At each moment, whatever kills the process, there is one whole checkpoint at least. Lightning's own saving goes through
a temporary folder, and tears the file where that is on another file system. No link is written through: the new file's
name was free, and where last.ckpt is a link, the link is replaced.
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
from lrkit.checkpoint.plain_data_decoder import from_plain_data
from lrkit.checkpoint.untrusted_file import Unreadable, find_damage, load
from lrkit.checkpoint.weights_only_check import find_unreadable
from lrkit.config.resume_options import LAST, PREVIOUS, checkpoint_candidates
from lrkit.lightning.classes import Callback, ModelCheckpoint, TorchCheckpointIO, Trainer

__all__ = [
    "LAST",
    "PREVIOUS",
    "DurableIO",
    "FixedNameCheckpoint",
    "install_durable_io",
    "read_checkpoint",
    "sweep_up",
]


class FixedNameCheckpoint(ModelCheckpoint):
    """A checkpoint that is known by the name of its file, whatever metric it turns out to watch.

    Lightning asks for this name at each hook of each step, and would put it together from all options each time.
    It is saved where a validation or an epoch ends, so after a batch there is nothing to think about.
    """

    on_train_batch_end = Callback.on_train_batch_end

    @property
    def state_key(self) -> str:
        return f"Kept {self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the scores that were best. Lightning removes what the paths beside them name, whosever it is."""
        own = str(Path(self.dirpath or "", f"{self.filename}.ckpt"))
        paths = {name: own if state_dict.get(name) else "" for name in ("best_model_path", "kth_best_model_path")}
        best = dict.fromkeys([own][: len(state_dict["best_k_models"])], state_dict["best_model_score"])
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "last_model_path": ""})


class DurableIO(TorchCheckpointIO):
    """Saves and loads checkpoints that are one local file; what is remote is left to Lightning.

    Args:
        last: the checkpoint whose forerunner is kept beside it.
    """

    def __init__(self, last: Path) -> None:
        self.last = _placed(last)
        self.sound: set[Path] = set()  # files that this process has written, or read and found whole
        self.remote: set[str] = set()  # paths on other machines that this process has written
        self.verified = False  # whether what is written here has been read once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``path``.

        The first one is read again before it takes its place: what cannot be read then could not be gone on from.

        Raises:
            RunError: it cannot be written, or not be read; what was there before is left as it was.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            self.remote.add(str(path))
            return
        file = _placed(path)
        beside: Path | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside, number = create_temporary_file(file)
            _write(checkpoint, number)
            if not self.verified:
                _verify(checkpoint, beside)
                self.verified = True
            if file == self.last and file in self.sound:
                _keep(file)
            os.replace(beside, file)
            _settle(file.parent)
        except Exception as error:
            if beside is not None:
                _remove(beside)
            cause = _cause(error)
            if cause is None:
                raise  # what is to be saved cannot be saved anywhere
            why = cause.strerror or str(cause)
            raise RunError(f"checkpoint {file} cannot be written ({why}); {describe_last_good(self.last)}") from None
        self.sound.add(file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read ``path``; nothing in it is ever executed, whatever ``weights_only`` says."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, True)
        content: dict[str, Any] = load(Path(path), map_location)
        self.sound.add(_placed(path))
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file. Which one, Lightning may have from a checkpoint: no folder, and elsewhere only one of ours."""
        file = Path(path)
        if str(path) in self.remote:
            super().remove_checkpoint(path)
        elif file.is_file() or file.is_symlink():
            _remove(file)


def install_durable_io(trainer: Trainer, last: Path) -> None:
    """Let a trainer save by ``DurableIO``, where it would by Lightning's default: what a user has chosen stays."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableIO(last)


def read_checkpoint(file: Path) -> tuple[Any, str]:
    """The content of a checkpoint, or None and what is wrong with it. Nothing in the file is executed."""
    if wrong := find_damage(file):
        return None, wrong
    try:
        return from_plain_data(load(file)), ""
    except Unreadable as error:
        return None, str(error).removeprefix(f"{file.name}: ")
    except Exception as error:
        return None, f"it cannot be read ({type(error).__name__})"


def describe_last_good(last: Path) -> str:
    """Which checkpoint there is to go on from, in words."""
    for file in checkpoint_candidates(last):
        content, wrong = read_checkpoint(file)
        if not wrong:
            step = content.get("lrkit", {}).get("step", content.get("global_step"))
            return f"the last good one is {file}, step {step}"
    return "there is none before it"


def sweep_up(folder: Path) -> None:
    """Remove what a process that was killed has left half written."""
    for file in find_leftovers(folder, ".ckpt"):
        _remove(file)


def _placed(path: str | Path) -> Path:
    """A file by its name in its folder, wherever that is: not where the name itself, if it is a link, leads to."""
    file = Path(path)
    return file.parent.resolve() / file.name


def _write(checkpoint: dict[str, Any], number: int) -> None:
    with os.fdopen(number, "wb") as stream:
        torch.save(checkpoint, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _verify(checkpoint: dict[str, Any], file: Path) -> None:
    """Read a file as a run that goes on from it would, but for the numbers in the tensors."""
    try:
        try:
            load(file, mmap=True)
        except Unreadable:
            raise
        except (RuntimeError, OSError):  # a file system without mmap
            load(file)
    except Unreadable as error:
        raise RunError(f"checkpoint {file.stem} could not be read again ({error})") from None
    except pickle.UnpicklingError:
        what = find_unreadable(checkpoint)
        raise RunError(f"checkpoint {file.stem} could not be read again: the reader refuses {what}") from None


def _keep(file: Path) -> None:
    """Let ``previous.ckpt`` be what ``file`` is, without a moment at which ``file`` is missing, and without copying."""
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
        _remove(link)


def _settle(folder: Path) -> None:
    """Let the folder's list of names reach the disk too, where an operating system has a way to say so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _cause(error: BaseException | None) -> OSError | None:
    """The operating system's refusal behind an error: torch tells of a full disk in words of its own."""
    seen: Sequence[BaseException] = ()
    while error is not None and error not in seen:
        if isinstance(error, OSError):
            return error
        seen = [*seen, error]
        error = error.__cause__ or error.__context__
    return None
