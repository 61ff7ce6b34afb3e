"""Handwritten digits, included in lrkit."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np
import torch

from lrkit.data.in_memory import InMemoryData, Splits, hold_out

__all__ = ["Digits"]


class Digits(InMemoryData):
    """1797 handwritten digits of 8x8 pixels in [0, 1]: 1197 to train on, 300 to validate, 300 to test.

    Their file is a part of lrkit, so a first run needs no download.

    Source: E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository; see ``digits.LICENSE.txt``.
    """

    def load(self) -> Splits:
        packed = resources.files("lrkit.data").joinpath("digits.csv.gz").read_bytes()
        lines = gzip.decompress(packed).decode("ascii").splitlines()
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.int64))
        samples = table[:, :-1].float() / 16, table[:, -1]
        rest, test = hold_out(samples, 300, "data")
        train, val = hold_out(rest, 300, "data")
        return Splits(train, val, test, classes=10)
