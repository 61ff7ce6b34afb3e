"""What a checkpoint holds, as data that ``torch.load(weights_only=True)`` reads: made so before it is written.

A module, its data and its callbacks may put anything into a checkpoint, by ``save_hyperparameters`` and by
``on_save_checkpoint``. Pickle writes nearly all of it, and refuses to read most of it again without executing it. So:

    plain        numbers, texts, lists, dicts, tensors, ...: what the reader knows by itself is left as it is
    of a type    paths, numpy's values, dates, DictConfig, ...: plain values in their place, and a note of which type
                 it was; ``decoding.from_plain_data`` makes them again, by a constructor that ``value_types`` names,
                 never by one that the file names
    apart        objects, classes, functions: a text in their place, and the tensors in them beside it

Enums, dataclasses and named tuples are of a type too, but their classes are the user's: they are made again where the
class is found among what the program has imported by itself, in a package that the caller names, and without calling
anything of it. Otherwise the plain values stay.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from torch import Tensor, nn

__all__ = ["DEPTH", "KEY", "PLAIN_TENSORS", "Content", "Path", "Replaced"]

#: Where a checkpoint says what was of a type, and keeps what is apart.
KEY = "lrkit.content"

DEPTH = 100  #: levels of containers; what is deeper becomes text, for pickle recurs


#: Subclasses of them may hold what a reader cannot make again.
PLAIN_TENSORS = (Tensor, nn.Parameter)

Path = tuple[Any, ...]


class Replaced(NamedTuple):
    """Something that is read back as another type than it was.

    Args:
        at: the keys and positions that lead to it.
        what: its type, in words.
        again: whether ``from_plain_data`` makes it again all the same, for its class is at hand.
        text: what stands for it, where that is a text.
    """

    at: Path
    what: str
    again: bool = False
    text: str = ""

    @property
    def name(self) -> str:
        """Where it is, as one would write it."""
        return ".".join(map(str, self.at))


@dataclasses.dataclass
class Content:
    """A checkpoint that can be read.

    Args:
        checkpoint: what to write.
        apart: what is not of its type in the file.
    """

    checkpoint: dict[str, Any]
    apart: list[Replaced]
