"""Modules of third-party packages, each with its arguments and with data for it.

``LIGHTNING_HERE`` names the Lightning package to use. If the third-party package imports the other one, its imports are
redirected to this one; nothing else of it changes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import signal
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

HERE = os.environ.get("LIGHTNING_HERE", "pytorch_lightning")
_RESPELLED = ("gluonts", "lightly", "pytorch_forecasting", "pytorch_tabular")
_OTHER = {"pytorch_lightning": "lightning.pytorch", "lightning.pytorch": "pytorch_lightning"}[HERE]


class Respelled(SourceFileLoader):
    """Reads a file as if it imported the Lightning that is used here."""

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text().replace(_OTHER, HERE)
        return compile(source, self.path, "exec", dont_inherit=True)


class Respelling:
    """Finds the modules of ``_RESPELLED``, to be read by ``Respelled``."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in _RESPELLED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Respelled(spec.loader.name, spec.loader.path)
        return spec


def _without_cuda_ops() -> None:
    """torchvision's wheel has operators only for CUDA; the registration of their shapes is skipped."""
    register: Any = torch.library.register_fake

    def registered(op: Any, *args: Any, **options: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register(op, *args, **options)

    torch.library.register_fake = registered


sys.meta_path.insert(0, Respelling)  # type: ignore[arg-type]
_without_cuda_ops()
L: Any = importlib.import_module(HERE)


class Data(L.LightningDataModule):  # type: ignore[misc]
    """Two loaders of torch on the samples of ``samples``, in the usual style."""

    n, batch_size = 20, 4

    def samples(self) -> Any:
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        torch.manual_seed(0)
        self.points = self.samples()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, self.batch_size)


class Noise(Data):
    """For Lightning's boring modules: tensors alone."""

    def samples(self) -> Any:
        return list(torch.randn(self.n, 32))


class Images(Data):
    """Small pictures in four classes."""

    channels, size = 3, 32

    def samples(self) -> Any:
        return TensorDataset(torch.randn(self.n, self.channels, self.size, self.size), torch.arange(self.n) % 4)


class Masks(Data):
    """Pictures, and a class for each pixel."""

    def samples(self) -> Any:
        return TensorDataset(torch.randn(self.n, 3, 32, 32), torch.randint(0, 4, (self.n, 32, 32)))


class Tokens(Data):
    """Sequences, and the next token at each place."""

    def samples(self) -> Any:
        text = torch.randint(0, 40, (self.n, 9))
        return TensorDataset(text[:, :-1].clone(), text[:, 1:].clone())


class Sentences(Data):
    """Sequences in two classes."""

    def samples(self) -> Any:
        return TensorDataset(torch.randint(0, 40, (self.n, 8)), torch.arange(self.n) % 2)


class Record(L.Callback):  # type: ignore[misc]
    """Writes down the rates of each step, as each optimizer uses them, and may send SIGTERM at a step of the first."""

    def __init__(self, out: str, stop: int | None = None) -> None:
        self.out, self.stop, self.rates = Path(out), stop, []  # type: ignore[var-annotated]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def used(rates: list[dict[str, float]], optimizer: Any, *_: Any) -> None:
            rates.append({group["name"]: float(group["lr"]) for group in optimizer.param_groups})

        self.rates = [[] for _ in trainer.optimizers]
        for rates, optimizer in zip(self.rates, trainer.optimizers, strict=True):
            optimizer.register_step_pre_hook(functools.partial(used, rates))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.stop == len(self.rates[0]):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, *_: Any) -> None:
        self.out.write_text(json.dumps(self.rates))

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()


def demo(name: str) -> type:
    """One of Lightning's own demonstrations."""
    found: type = getattr(importlib.import_module(f"{HERE}.demos.boring_classes"), name)
    return found


BoringModel = demo("BoringModel")
ManualOptimBoringModel = demo("ManualOptimBoringModel")


def linear_classifier() -> L.LightningModule:
    """lightly: a linear evaluation (Chen et al. 2020, SimCLR) on a small network of timm's."""
    import timm
    from lightly.utils.benchmarking import LinearClassifier

    backbone = timm.create_model("test_resnet", num_classes=0)
    return LinearClassifier(
        backbone, batch_size_per_device=4, feature_dim=backbone.num_features, num_classes=4, topk=(1, 2)
    )


def deep_ar() -> L.LightningModule:
    """GluonTS: DeepAR (Salinas et al. 2020)."""
    from gluonts.torch.model.deepar.lightning_module import DeepARLightningModule

    return DeepARLightningModule(
        model_kwargs={
            "freq": "D", "context_length": 8, "prediction_length": 4, "num_feat_dynamic_real": 1, "hidden_size": 8,
            "num_feat_static_real": 1, "num_feat_static_cat": 1, "cardinality": [1], "lags_seq": [1, 2],
        }
    )  # fmt: skip


def feed_forward() -> L.LightningModule:
    """GluonTS: a feed-forward network."""
    from gluonts.torch.model.simple_feedforward.lightning_module import SimpleFeedForwardLightningModule

    sizes = {"context_length": 8, "prediction_length": 4, "hidden_dimensions": [8]}
    return SimpleFeedForwardLightningModule(model_kwargs=sizes)


class Series(Data):
    """The input of the GluonTS networks in this file."""

    def samples(self) -> Any:
        def one() -> dict[str, Tensor]:
            return {
                "feat_static_cat": torch.zeros(1, dtype=torch.int64), "feat_static_real": torch.zeros(1),
                "past_time_feat": torch.randn(10, 1), "past_target": torch.randn(10),
                "past_observed_values": torch.ones(10), "future_time_feat": torch.randn(4, 1),
                "future_target": torch.randn(4), "future_observed_values": torch.ones(4),
            }  # fmt: skip

        return [one() for _ in range(self.n)]


class ShortSeries(Series):
    """The same without the fields that the feed-forward network does not accept."""

    def samples(self) -> Any:
        kept = ("past_target", "future_target", "future_observed_values")
        return [{name: sample[name][-8:] for name in kept} for sample in super().samples()]


def time_series() -> Any:
    import numpy as np
    import pandas as pd
    from pytorch_forecasting import TimeSeriesDataSet

    values = np.random.default_rng(0).normal(size=80)
    frame = pd.DataFrame({"t": np.tile(np.arange(20), 4), "g": np.repeat(list("abcd"), 20), "y": values})
    return TimeSeriesDataSet(
        frame, time_idx="t", target="y", group_ids=["g"], max_encoder_length=8, max_prediction_length=4,
        min_encoder_length=8, time_varying_unknown_reals=["y"],
    )  # fmt: skip


def fusion_transformer() -> L.LightningModule:
    """pytorch-forecasting: the Temporal Fusion Transformer (Lim et al. 2021)."""
    from pytorch_forecasting import TemporalFusionTransformer
    from pytorch_forecasting.metrics import QuantileLoss

    sizes = {"hidden_size": 4, "attention_head_size": 1, "hidden_continuous_size": 4}
    return TemporalFusionTransformer.from_dataset(time_series(), loss=QuantileLoss(), log_interval=-1, **sizes)


def n_beats() -> L.LightningModule:
    """pytorch-forecasting: N-BEATS (Oreshkin et al. 2020)."""
    from pytorch_forecasting import NBeats

    return NBeats.from_dataset(time_series(), widths=[8, 16], num_blocks=[1, 1], log_interval=-1)


class Forecasts(L.LightningDataModule):  # type: ignore[misc]
    """pytorch-forecasting's own loaders."""

    batch_size = 6

    def train_dataloader(self) -> DataLoader[Any]:
        return time_series().to_dataloader(train=True, batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return time_series().to_dataloader(train=False, batch_size=self.batch_size)


def category_embedding() -> L.LightningModule:
    """PyTorch Tabular: its hyper-parameters are a DictConfig."""
    from omegaconf import OmegaConf
    from pytorch_tabular.models import CategoryEmbeddingModel, CategoryEmbeddingModelConfig

    config = OmegaConf.structured(CategoryEmbeddingModelConfig(task="regression", layers="8-4", seed=1))
    inferred = {
        "categorical_dim": 0, "continuous_dim": 3, "output_dim": 1, "output_cardinality": None, "embedding_dims": [],
        "categorical_cardinality": [], "embedded_cat_dim": 0,
    }  # fmt: skip
    return CategoryEmbeddingModel(config=config, inferred_config=OmegaConf.create(inferred))


class Table(Data):
    def samples(self) -> Any:
        return [
            {"continuous": torch.randn(3), "target": torch.randn(1), "categorical": torch.zeros(0)}
            for _ in range(self.n)
        ]


def timm_resnet() -> nn.Module:
    """timm: a small ResNet."""
    import timm

    model: nn.Module = timm.create_model("test_resnet", num_classes=4)
    return model


def timm_vit() -> nn.Module:
    """timm: a small vision transformer."""
    import timm

    model: nn.Module = timm.create_model("test_vit", num_classes=4, img_size=32)
    return model


def simple_vit() -> nn.Module:
    """vit-pytorch: SimpleViT (Beyer et al. 2022)."""
    from vit_pytorch import SimpleViT

    model: nn.Module = SimpleViT(image_size=32, patch_size=8, num_classes=4, dim=16, depth=2, heads=2, mlp_dim=16)
    return model


def unet() -> nn.Module:
    """segmentation_models_pytorch: a U-Net: classes along the second axis."""
    import segmentation_models_pytorch as smp

    model: nn.Module = smp.Unet("timm-mobilenetv3_small_minimal_100", encoder_weights=None, classes=4)
    return model


SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip


def gpt2() -> nn.Module:
    """transformers: GPT-2, whose output is a ``ModelOutput``."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def bert() -> nn.Module:
    """transformers: BERT with a head for two classes."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **SMALL))


def hf_vit() -> nn.Module:
    """transformers: a vision transformer."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=4, **SMALL))
