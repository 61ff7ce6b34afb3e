"""The format of a checkpoint as plain data, which ``torch.load(weights_only=True)`` can read.

A module, its data and its callbacks may put any object into a checkpoint, by ``save_hyperparameters`` and by
``on_save_checkpoint``. Pickle writes nearly all objects, but reads most of them only by executing code. lrkit therefore
converts each value before it writes the file:

    plain values   numbers, strings, lists, dicts, tensors, ...: unchanged
    known types    paths, numpy values, dates, DictConfig, ...: a plain value, and a note with the type.
                   ``plain_data_decoder.from_plain_data`` restores them by a constructor that ``value_types`` lists,
                   never by a constructor that the file names
    objects        other objects, classes, functions: a text, and beside it the tensors in the object

The classes of enums, dataclasses and named tuples belong to the user. Such a value is restored if the program has
already imported its class from a package that the caller names; no method of the class is called. Otherwise the plain
value remains.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from torch import Tensor, nn

__all__ = ["DEPTH", "KEY", "PLAIN_TENSORS", "Content", "Path", "Replaced"]

#: The checkpoint's key for the notes of types, and for the tensors of objects.
KEY = "lrkit.content"

DEPTH = 100  #: levels of containers; a deeper value becomes a text, because pickle is recursive


#: Subclasses of these may contain objects that a reader cannot restore.
PLAIN_TENSORS = (Tensor, nn.Parameter)

Path = tuple[Any, ...]


class Replaced(NamedTuple):
    """A value whose type in the file differs from its type in the program.

    Args:
        at: keys and positions on the way to the value.
        what: its type, in words.
        again: whether ``from_plain_data`` restores the value, because its class is imported.
        text: the text that replaces the value; empty if a plain value does.
    """

    at: Path
    what: str
    again: bool = False
    text: str = ""

    @property
    def name(self) -> str:
        """The place of the value, as a dotted name."""
        return ".".join(map(str, self.at))


@dataclasses.dataclass
class Content:
    """A checkpoint as plain data.

    Args:
        checkpoint: the content to write.
        replaced: the values whose type in the file differs from their type in the program.
    """

    checkpoint: dict[str, Any]
    replaced: list[Replaced]
