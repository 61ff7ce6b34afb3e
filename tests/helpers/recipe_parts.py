"""Small networks of the transformers package, and generated data for them, for the recipes in ``conf/experiment/``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification


class Bert(nn.Module):
    """A BERT of four blocks for two classes."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=16)  # fmt: skip
        self.net = BertForSequenceClassification(config)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.net(tokens).logits
        return logits


class Vit(nn.Module):
    """A vision transformer of four blocks for two classes."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
                           image_size=8, patch_size=4, num_channels=1, num_labels=2)  # fmt: skip
        self.net = ViTForImageClassification(config)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images).logits
        return logits


class Tokens(Dataset[tuple[Tensor, int]]):
    """Texts of eight tokens; the class is whether the first is even."""

    classes = ("odd", "even")

    def __init__(self, size: int = 200) -> None:
        self.x = torch.randint(0, 20, (size, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], int(self.x[i, 0] % 2 == 0)


class Images(Tokens):
    """Images of eight by eight; the class is whether the upper half is brighter."""

    def __init__(self, size: int = 200) -> None:
        self.x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], int(self.x[i, 0, :4].mean() > self.x[i, 0, 4:].mean())
