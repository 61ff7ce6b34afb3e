"""Text, character by character."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.data.file_readers import read_standard_library, read_text
from lrkit.data.in_memory import InMemoryData, Pair, Splits, fetch_pair
from lrkit.data.option_checks import check_exists, check_path
from lrkit.data.tensor_loader import check_whole_number

__all__ = ["Text"]


class Text(InMemoryData):
    """Next-character prediction on a text: ``x`` is a window of ``context`` characters, ``y`` the window one further.

    An epoch is ``train_samples`` windows at random offsets in the first 90 % of the text, drawn anew in each
    epoch. Validation and test are ``val_samples`` windows each, evenly spread over the two halves of the rest.

    Args:
        path: A text file in UTF-8. None: 1.5 MB of the source code of Python's standard library, which depends on
            the version of Python.
        context: Number of characters in a window.
        train_samples: Number of windows in an epoch.
        val_samples: Number of windows in the validation set, and in the test set.

    Attributes:
        vocabulary: After ``setup``: the characters, in the order of their numbers.
    """

    origin = "data.path"
    class_axis = -1  # outputs are (batch, context, characters), for a context of any length
    vocabulary: str

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        path: str | None = None,
        context: int = 64,
        train_samples: int = 6400,
        val_samples: int = 512,
        placement: str = "auto",
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples, placement)
        self.path = None if path is None else check_path("data.path", path, "a text file")
        self.context = check_whole_number("data.context", context)
        self.windows = check_whole_number("data.train_samples", train_samples)
        self.val_samples = check_whole_number("data.val_samples", val_samples)

    def check_source(self) -> None:
        if self.path is not None:
            check_exists(self.path)

    def load(self) -> Splits:
        text = read_standard_library() if self.path is None else read_text(self.path)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        symbols, numbers = np.unique(codes, return_inverse=True)
        self.vocabulary = "".join(map(chr, symbols))
        ids = torch.from_numpy(numbers.astype(np.int64))
        cut, middle = len(ids) * 90 // 100, len(ids) * 95 // 100
        if middle - cut <= self.context:
            must = f"must have at least {20 * (self.context + 1)} characters for data.context={self.context}"
            raise ConfigError("data.path", must, len(ids))
        train, *held_out = (self._cut_windows(part) for part in (ids[:cut], ids[cut:middle], ids[middle:]))
        if self.windows > len(train[0]):
            raise ConfigError(
                "data.train_samples",
                f"must be at most {len(train[0])}, the number of windows in the training text",
                self.windows,
            )
        val, test = (self._select_evenly(pair) for pair in held_out)
        return Splits(train, val, test, classes=len(symbols), epoch=self.windows)

    def _cut_windows(self, ids: Tensor) -> Pair:
        """All windows of the text, as overlapping views that take no memory."""
        windows = ids.unfold(0, self.context + 1, 1)
        return windows[:, :-1], windows[:, 1:]

    def _select_evenly(self, pair: Pair) -> Pair:
        count = len(pair[0])
        if self.val_samples > count:
            raise ConfigError(
                "data.val_samples",
                f"must be at most {count}, the number of windows in each held-out text",
                self.val_samples,
            )
        offsets = torch.arange(self.val_samples) * count // self.val_samples
        return fetch_pair(*pair, offsets)
