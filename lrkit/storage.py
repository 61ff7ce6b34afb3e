"""Checkpoints that survive: written beside their place and put there in one piece, verified when they are read.

    write last.ckpt.new, to the disk -> previous.ckpt is what last.ckpt was -> last.ckpt.new becomes last.ckpt

At each moment, whatever kills the process, there is one whole checkpoint at least. Lightning's own saving goes through
a temporary folder, and tears the file where that is on another file system.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lrkit.checkpoint_content import readable, restored
from lrkit.errors import RunError
from lrkit.lightning import Callback, ModelCheckpoint, TorchCheckpointIO, Trainer
from lrkit.resume_options import LAST, PREVIOUS, candidates

__all__ = ["LAST", "PREVIOUS", "DurableIO", "Kept", "candidates", "damage", "install", "read", "sweep_up"]

_NEW = ".new"


class Kept(ModelCheckpoint):
    """A checkpoint that is known by the name of its file, whatever metric it turns out to watch.

    Lightning asks for this name at each hook of each step, and would put it together from all options each time.
    It is saved where a validation or an epoch ends, so after a batch there is nothing to think about.
    """

    on_train_batch_end = Callback.on_train_batch_end

    @property
    def state_key(self) -> str:
        return f"Kept {self.filename}"


class DurableIO(TorchCheckpointIO):
    """Saves and loads checkpoints that are one local file; what is remote is left to Lightning.

    Args:
        last: the checkpoint whose forerunner is kept beside it.
    """

    def __init__(self, last: Path) -> None:
        self.last = last.resolve()
        self.sound: set[Path] = set()  # files that this process has written, or read and found whole
        self.verified = False  # whether what is written here has been read once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``path``.

        The first one is read again before it takes its place: what cannot be read then could not be gone on from.

        Raises:
            RunError: it cannot be written, or not be read; what was there before is left as it was.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path).resolve()
        beside = file.with_name(file.name + _NEW)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(checkpoint, beside)
            if not self.verified:
                _verify(checkpoint, beside)
                self.verified = True
            if file == self.last and file in self.sound:
                _keep(file)
            os.replace(beside, file)
            _settle(file.parent)
        except Exception as error:
            sweep_up(file.parent)
            cause = _cause(error)
            if cause is None:
                raise  # what is to be saved cannot be saved anywhere
            why = cause.strerror or str(cause)
            raise RunError(f"checkpoint {file} cannot be written ({why}); {last_good(self.last)}") from None
        self.sound.add(file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read ``path``; nothing in it is ever executed, whatever ``weights_only`` says."""
        content = super().load_checkpoint(path, map_location, True)
        self.sound.add(Path(path).resolve())
        return content


def install(trainer: Trainer, last: Path) -> None:
    """Let a trainer save by ``DurableIO``, where it would by Lightning's default: what a user has chosen stays."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableIO(last)


def damage(file: Path) -> str:
    """What is wrong with a checkpoint as its bytes tell; an empty string where they are as they were written."""
    if file.is_dir():
        return "it is a folder"
    try:
        if file.stat().st_size == 0:
            return "it is empty"
        with zipfile.ZipFile(file) as parts:
            # torch does not look at the checksums that it writes.
            broken = parts.testzip()
    except FileNotFoundError:
        return "it is missing"
    except PermissionError:
        return "it may not be read"
    except Exception as error:  # whatever a damaged file provokes
        cut = "it is cut off, or no checkpoint" if isinstance(error, zipfile.BadZipFile) else ""
        return cut or f"it cannot be read ({type(error).__name__})"
    return f"the checksum of {broken} is wrong" if broken else ""


def read(file: Path) -> tuple[Any, str]:
    """The content of a checkpoint, or None and what is wrong with it. Nothing in the file is executed."""
    if wrong := damage(file):
        return None, wrong
    try:
        return restored(torch.load(file, map_location="cpu", weights_only=True)), ""
    except Exception as error:
        return None, f"it cannot be read ({type(error).__name__})"


def last_good(last: Path) -> str:
    """Which checkpoint there is to go on from, in words."""
    for file in candidates(last):
        content, wrong = read(file)
        if not wrong:
            step = content.get("lrkit", {}).get("step", content.get("global_step"))
            return f"the last good one is {file}, step {step}"
    return "there is none before it"


def sweep_up(folder: Path) -> None:
    """Remove what a process that was killed has left half written."""
    for file in folder.glob(f"*{_NEW}"):
        _remove(file)


def _write(checkpoint: dict[str, Any], file: Path) -> None:
    with file.open("wb") as stream:
        torch.save(checkpoint, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _verify(checkpoint: dict[str, Any], file: Path) -> None:
    """Read a file as a run that goes on from it would, but for the numbers in the tensors."""
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            torch.load(file, mmap=True, **options)
        except (RuntimeError, OSError):  # a file system without mmap
            torch.load(file, **options)
    except pickle.UnpicklingError:
        what = readable(checkpoint)
        raise RunError(f"checkpoint {file.stem} could not be read again: the reader refuses {what}") from None


def _keep(file: Path) -> None:
    """Let ``previous.ckpt`` be what ``file`` is, without a moment at which ``file`` is missing, and without copying."""
    kept, link = file.with_name(PREVIOUS), file.with_name(PREVIOUS + _NEW)
    try:
        _remove(link)
        os.link(file, link)
        os.replace(link, kept)
    except FileNotFoundError:
        return  # somebody has taken it away
    except OSError:  # a file system without hard links
        os.replace(file, kept)


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
