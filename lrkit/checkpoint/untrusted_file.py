"""Safe reading of an untrusted checkpoint: no code is executed, and the memory is limited by the size of the file.

torch writes a checkpoint as an uncompressed zip archive: one pickle for the containers, and the bytes of each tensor.
lrkit refuses any other file (compressed, in an older format of torch, a pipe) before torch reads it. A tensor can be an
expanded view, with more elements than its storage; lrkit limits their total size.

The values in a checkpoint are checked by ``lrkit.checkpoint.checkpoint_schema``.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrkit.base.errors import RunError
from lrkit.base.files import open_regular_file
from lrkit.base.zip_archives import find_defect, list_members

__all__ = ["UnsafeCheckpoint", "find_damage", "find_oversize", "load_untrusted"]

PICKLE = 2**26  #: bytes of the pickle, in addition to a sixteenth of the file
NODES = 10**7  #: values in containers; a shared container counts once for each reference
DEEPEST = 250  #: levels of containers
EXPANDED = 2**30  #: bytes of expanded views beyond their storage


class UnsafeCheckpoint(RunError):
    """A checkpoint that could take more memory than its size; the message names the reason."""


def find_damage(file: Path) -> str:
    """Return the damage of a checkpoint, by its structure and its checksums; an empty string if there is none."""
    if file.is_dir():
        return "it is a folder"
    try:
        with open_regular_file(file) as stream:
            if wrong := _find_archive_defect(stream):
                return wrong
            with zipfile.ZipFile(stream) as parts:
                broken = parts.testzip()  # torch writes checksums and does not check them
    except FileNotFoundError:
        return "it is missing"
    except PermissionError:
        return "permission denied"
    except Exception as error:  # a damaged file may raise any error
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        cut = "it is truncated, or not a checkpoint" if isinstance(error, zipfile.BadZipFile) else ""
        return cut or f"it cannot be read ({type(error).__name__})"
    return f"the checksum of {broken} is wrong" if broken else ""


def load_untrusted(file: Path, map_location: Any = "cpu", *, mmap: bool = False) -> Any:
    """Return the content of a checkpoint.

    Args:
        file: a regular file of this machine.
        map_location: the argument of ``torch.load``.
        mmap: read the bytes of a tensor only when they are used.

    Raises:
        UnsafeCheckpoint: the content could take more memory than the size of the file.
    """
    with open_regular_file(file) as stream:
        if wrong := _find_archive_defect(stream):
            raise UnsafeCheckpoint(f"{file.name}: {wrong}")
        stream.seek(0)
        source: Any = file if mmap else stream
        # An index outside of a sparse tensor would read or write memory outside of the tensor.
        # torch 2.14 warns about the time of this check, which lrkit wants.
        with torch.sparse.check_sparse_tensor_invariants(), warnings.catch_warnings():  # type: ignore[no-untyped-call]
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants", category=UserWarning)
            content = torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    if wrong := find_oversize(content):
        raise UnsafeCheckpoint(f"{file.name}: {wrong}")
    return content


def _find_archive_defect(stream: Any) -> str:
    """Return the reason why an archive is not a checkpoint, by its list of members; an empty string if it is one."""
    size = os.fstat(stream.fileno()).st_size
    if size == 0:
        return "it is empty"
    members = list_members(stream)
    if wrong := find_defect(members, size, stored=True):
        return wrong
    pickles = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        return "it is not a checkpoint: it has no data.pkl, or several"
    if pickles[0].file_size > PICKLE + size // 16:
        return f"its data.pkl has {pickles[0].file_size} bytes; the limit is {PICKLE + size // 16}"
    return ""


def find_oversize(content: Any) -> str:
    """Return the limit that a checkpoint's content exceeds; an empty string if there is none.

    A shared container counts once for each reference, because a few shared containers can expand to millions of values
    in a recursive walk. No container may contain itself.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()
    expanded = 0
    waiting: list[tuple[Any, bool]] = [(content, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            inside.discard(id(node))
            sizes[id(node)] = size = 1 + sum(sizes.get(id(part), 1) for part in _list_parts(node))
            if size > NODES:
                return f"its containers expand to more than {NODES} values"
        elif id(node) in sizes:
            continue
        elif isinstance(node, Tensor):
            sizes[id(node)] = 1
            expanded += _count_expanded_bytes(node)
            if expanded > EXPANDED:
                return f"its tensors expand to more than {EXPANDED} bytes beyond their storage"
        elif id(node) in inside:
            return "it has a container that contains itself"
        elif len(inside) >= DEEPEST:
            return f"it is nested deeper than {DEEPEST}"
        else:
            inside.add(id(node))
            waiting.append((node, True))
            waiting.extend((part, False) for part in _list_parts(node) if isinstance(part, (Tensor, *_CONTAINERS)))
    return ""


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _list_parts(node: Any) -> list[Any]:
    """Return the values in a container, keys included."""
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    return [*node] if isinstance(node, _CONTAINERS) else []


def _count_expanded_bytes(tensor: Tensor) -> int:
    """Return the number of bytes of an expanded view beyond its storage."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return 0
    try:
        return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
    except (RuntimeError, NotImplementedError):  # a subclass that consists of other tensors
        return 0
