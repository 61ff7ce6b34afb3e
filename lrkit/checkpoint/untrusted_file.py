"""A checkpoint's file, read so that it takes the memory that its size tells, and nothing in it is executed.

torch writes a checkpoint as an archive: its containers as one pickle, and the bytes of each tensor, all as they are.
What else a file may be (compressed, in torch's older formats, a pipe) is refused before torch sees it. A tensor may
be a view that stands for more numbers than it has; of those only small ones are let pass.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrkit.base.errors import RunError
from lrkit.base.files import open_regular_file
from lrkit.base.zip_archives import find_defect, list_members

__all__ = ["Unreadable", "find_damage", "load", "oversized"]

PICKLE = 2**26  #: bytes of the pickle, beside a sixteenth of the file
NODES = 10**7  #: values in containers, each counted as often as it is met
DEEPEST = 250
EXPANDED = 2**30  #: bytes that views stand for beyond those that they have


class Unreadable(RunError):
    """A checkpoint that is not read; the message says why."""


def find_damage(file: Path) -> str:
    """What is wrong with a checkpoint as its bytes tell; an empty string where they are as they were written."""
    if file.is_dir():
        return "it is a folder"
    try:
        with open_regular_file(file) as stream:
            if wrong := _layout(stream):
                return wrong
            with zipfile.ZipFile(stream) as parts:
                broken = parts.testzip()  # torch does not look at the checksums that it writes
    except FileNotFoundError:
        return "it is missing"
    except PermissionError:
        return "it may not be read"
    except Exception as error:  # whatever a damaged file provokes
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        cut = "it is cut off, or no checkpoint" if isinstance(error, zipfile.BadZipFile) else ""
        return cut or f"it cannot be read ({type(error).__name__})"
    return f"the checksum of {broken} is wrong" if broken else ""


def load(file: Path, map_location: Any = "cpu", *, mmap: bool = False) -> Any:
    """The content of a checkpoint.

    Args:
        file: a regular file of this machine.
        map_location: as ``torch.load`` takes it.
        mmap: leave the tensors in the file until they are looked at.

    Raises:
        Unreadable: it could take more memory than its size tells.
    """
    with open_regular_file(file) as stream:
        if wrong := _layout(stream):
            raise Unreadable(f"{file.name}: {wrong}")
        stream.seek(0)
        source: Any = file if mmap else stream
        # An index outside of a sparse tensor would be read and written to in memory that is not its own.
        with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            content = torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    if wrong := oversized(content):
        raise Unreadable(f"{file.name}: {wrong}")
    return content


def _layout(stream: Any) -> str:
    """What is wrong with an archive as that of a checkpoint, by its list of members alone."""
    size = os.fstat(stream.fileno()).st_size
    if size == 0:
        return "it is empty"
    members = list_members(stream)
    if wrong := find_defect(members, size, stored=True):
        return wrong
    pickles = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        return "it is no checkpoint: it has no data.pkl, or several"
    if pickles[0].file_size > PICKLE + size // 16:
        return f"its data.pkl has {pickles[0].file_size} bytes, and may have {PICKLE + size // 16}"
    return ""


def oversized(content: Any) -> str:
    """What of a checkpoint's content is too deep, too much, or stands for more than it is; else an empty string.

    Containers may be shared, so that a few of them stand for millions of values in a recursive walk: each counts
    as often as it is met. None may be within itself.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()
    expanded = 0
    waiting: list[tuple[Any, bool]] = [(content, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            inside.discard(id(node))
            sizes[id(node)] = size = 1 + sum(sizes.get(id(part), 1) for part in _parts(node))
            if size > NODES:
                return f"its containers stand for more than {NODES} values"
        elif id(node) in sizes:
            continue
        elif isinstance(node, Tensor):
            sizes[id(node)] = 1
            expanded += _beyond(node)
            if expanded > EXPANDED:
                return f"it has tensors that stand for more than {EXPANDED} bytes beyond those that it has"
        elif id(node) in inside:
            return "a container in it is within itself"
        elif len(inside) >= DEEPEST:
            return f"it is nested deeper than {DEEPEST}"
        else:
            inside.add(id(node))
            waiting.append((node, True))
            waiting.extend((part, False) for part in _parts(node) if isinstance(part, (Tensor, *_CONTAINERS)))
    return ""


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _parts(node: Any) -> list[Any]:
    """The values in a container, keys included."""
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    return [*node] if isinstance(node, _CONTAINERS) else []


def _beyond(tensor: Tensor) -> int:
    """How many bytes more than it has a tensor stands for: those of a view that is expanded."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return 0
    try:
        return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
    except (RuntimeError, NotImplementedError):  # of a class of its own, made of others
        return 0
