"""Small networks to compare schedules on; ``inputs`` and ``outputs`` are those of the data module.

The last axis of their output has the classes (as logits) or the targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_number, listed, whole
from lrkit.data.tensor_loader import check_whole_number

__all__ = ["CharTransformer", "Cnn1d", "Cnn2d", "Linear", "Mlp"]

Shape = int | Sequence[int]


class Linear(nn.Module):
    """Logistic or linear regression: ``out = W x + b``, with ``x`` flattened to a vector.

    Args:
        inputs: The number of features, or the shape of a sample.
        outputs: The number of classes or targets.
    """

    def __init__(self, inputs: Shape, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(_count_inputs(inputs), check_whole_number("model.outputs", outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *inputs)`` to ``(n, outputs)``."""
        out: Tensor = self.layer(x.flatten(1))
        return out


class Mlp(nn.Module):
    """Fully connected layers with ReLU between them.

    Args:
        inputs: The number of features, or the shape of a sample.
        outputs: The number of classes or targets.
        hidden: The width of each hidden layer.
        dropout: The share of each hidden layer that training sets to 0.
    """

    def __init__(self, inputs: Shape, outputs: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0) -> None:
        super().__init__()
        widths = [_count_inputs(inputs), *_check_widths("model.hidden", hidden)]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(_check_dropout(dropout))]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], check_whole_number("model.outputs", outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *inputs)`` to ``(n, outputs)``."""
        out: Tensor = self.head(self.body(x.flatten(1)))
        return out


class Cnn1d(nn.Module):
    """The ``ConvBase`` of the MNIST-1D paper: three strided convolutions, 5,210 parameters for 40 points.

    Args:
        inputs: The number of points in a signal.
        outputs: The number of classes or targets.
        channels: The width of each convolution.

    Source: S. Greydanus and D. Kobak, *Scaling Down Deep Learning with MNIST-1D*, 2024, arXiv:2011.14439.
    """

    def __init__(self, inputs: Shape, outputs: int, channels: int = 25) -> None:
        super().__init__()
        channels = check_whole_number("model.channels", channels)
        length = _count_inputs(inputs)
        if length < 3:
            raise ConfigError("model.inputs", "must be a signal of at least 3 points", inputs)
        self.body = nn.Sequential(
            nn.Conv1d(1, channels, 5, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        for kernel in (5, 3, 3):
            length = (length + 2 - kernel) // 2 + 1
        self.head = nn.Linear(channels * length, check_whole_number("model.outputs", outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *inputs)``, read as one signal, to ``(n, outputs)``."""
        out: Tensor = self.head(self.body(x.flatten(1).unsqueeze(1)).flatten(1))
        return out


class Cnn2d(nn.Module):
    """Convolution, batch norm, ReLU and halving, once per width; then the mean over the image.

    Args:
        inputs: ``(channels, height, width)``, or the number of pixels of a square image of one channel.
        outputs: The number of classes or targets.
        widths: The channels of each convolution. Each one halves the image.
    """

    def __init__(self, inputs: Shape, outputs: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        pixels = _count_inputs(inputs)
        shape = (1, *[math.isqrt(pixels)] * 2) if isinstance(inputs, int) else tuple(inputs)
        if len(shape) != 3 or math.prod(shape) != pixels:
            raise ConfigError("model.inputs", "must be (channels, height, width) or a square number", inputs)
        sizes = _check_widths("model.widths", widths)
        least = 2 ** len(sizes)
        if min(shape[1:]) < least:
            must = f"must be at least {least} pixels high and wide for {len(sizes)} model.widths"
            raise ConfigError("model.inputs", must, inputs)
        self.shape = shape
        channels = [shape[0], *sizes]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(channels):
            # No bias: batch norm would subtract it.
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], check_whole_number("model.outputs", outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *inputs)`` to ``(n, outputs)``."""
        out: Tensor = self.head(self.body(x.reshape(-1, *self.shape)).mean((2, 3)))
        return out


class CharTransformer(nn.Module):
    """A small causal transformer, on which warmup matters.

    With ``norm: post`` (layer norm after the addition, as in 2017) Adam at a rate of 1e-2 makes no progress without
    warmup; with ``norm: pre`` (layer norm before each block, as today) it does.

    Args:
        inputs: The length of the longest text: each position has a learned embedding.
        outputs: The number of characters in the vocabulary.
        layers: Number of blocks of attention and feed-forward network.
        width: The size of a character's representation.
        heads: Number of attention heads, which divide the width.
        norm: ``pre`` or ``post``.
        dropout: The share of each block's output, and of the attention weights, that training sets to 0.

    Source: R. Xiong et al., *On Layer Normalization in the Transformer Architecture*, ICML 2020,
    arXiv:2002.04745.
    """

    class_axis = -1  # also for a text whose length equals the size of the vocabulary

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int = 6,
        width: int = 64,
        heads: int = 4,
        norm: str = "pre",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if norm not in ("pre", "post"):
            raise ConfigError("model.norm", "must be pre or post", norm)
        width, heads = check_whole_number("model.width", width), check_whole_number("model.heads", heads)
        if width % heads:
            raise ConfigError("model.width", f"must be a multiple of model.heads ({heads})", width)
        dropout = _check_dropout(dropout)
        self.characters = nn.Embedding(check_whole_number("model.outputs", outputs), width)
        self.positions = nn.Embedding(check_whole_number("model.inputs", inputs), width)
        self.blocks = nn.Sequential(
            *(_Block(width, heads, norm, dropout) for _ in range(check_whole_number("model.layers", layers)))
        )
        self.norm = (
            nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        )  # with post, the last block ends with a layer norm
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Characters ``(n, length)`` as int64 to logits of the next character, ``(n, length, outputs)``."""
        positions = torch.arange(x.shape[1], device=x.device)
        out: Tensor = self.head(self.norm(self.blocks(self.characters(x) + self.positions(positions))))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads, dropout)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre = norm == "pre"

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x)))
            out: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        else:
            x = self.norm1(x + self.dropout(self.attention(x)))
            out = self.norm2(x + self.dropout(self.feed_forward(x)))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (n, length, 3 x width) to three of (n, heads, length, width / heads)
        q, k, v = self.queries_keys_values(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _count_inputs(inputs: Shape) -> int:
    """The number of values in one sample."""
    axes = inputs if isinstance(inputs, Sequence) else [inputs]
    return math.prod(check_whole_number("model.inputs", axis) for axis in axes)


def _check_widths(key: str, widths: Any) -> list[int]:
    listed(whole(1), meaning="a list of whole numbers >= 1").check(key, widths)
    return list(widths)


def _check_dropout(dropout: float) -> float:
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ConfigError("model.dropout", "must be in [0, 1)", dropout)
    return float(dropout)
