"""Small networks with the module trees and the names of third parties' networks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

W = 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(W, 3 * W), nn.Linear(W, W)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(W, W), nn.Linear(W, W)


class Block(nn.Module):
    """timm's transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(W), Attention(), nn.LayerNorm(W), Mlp()


class EncoderBlock(nn.Module):
    """torchvision's, whose feed-forward network is a Sequential with numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.self_attention, self.ln_2 = nn.LayerNorm(W), nn.MultiheadAttention(W, 1), nn.LayerNorm(W)
        self.mlp = nn.Sequential(nn.Linear(W, W), nn.GELU(), nn.Dropout(), nn.Linear(W, W), nn.Dropout())


class ConvNextBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(W))
        self.conv_dw, self.norm, self.mlp = nn.Conv2d(W, W, 7, groups=W), nn.LayerNorm(W), Mlp()


class BasicBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(W, W, 3), nn.BatchNorm2d(W)
        self.conv2, self.bn2 = nn.Conv2d(W, W, 3), nn.BatchNorm2d(W)
        self.downsample = nn.Sequential(nn.Conv2d(W, W, 1), nn.BatchNorm2d(W))


class DenseLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(W), nn.Conv2d(W, W, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(W), nn.Conv2d(W, W, 3)


class Transition(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(OrderedDict(norm=nn.BatchNorm2d(W), conv=nn.Conv2d(W, W, 1)))


class Stage(nn.Module):
    """A stage of timm's ConvNeXt and Swin: downsampling, then blocks."""

    def __init__(self, block: type[nn.Module], count: int, *, first: bool) -> None:
        super().__init__()
        norm_conv = nn.Sequential(nn.LayerNorm(W), nn.Conv2d(W, W, 2))
        self.downsample = nn.Identity() if first else norm_conv
        self.blocks = nn.Sequential(*(block() for _ in range(count)))


class RegStage(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        for i in range(count):
            self.add_module(f"b{i + 1}", BasicBlock())


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(W, W), nn.Linear(W, W), nn.Linear(W, W)


class MoeBlock(nn.Module):
    """A block that holds a row of its own, side by side: it is no stage."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.gate = Attention(), nn.Linear(W, 8)
        self.experts = nn.ModuleList([Expert() for _ in range(8)])


def net(**parts: Any) -> nn.Module:
    """A module with these parameters and children, in this order."""
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def conv_norm() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, W, 3), nn.BatchNorm2d(W))


def timm_vit(count: int = 3) -> nn.Module:
    return net(
        cls_token=parameter(1, 1, W), reg_token=parameter(1, 4, W), pos_embed=parameter(1, 9, W),
        patch_embed=net(proj=nn.Conv2d(3, W, 2)), blocks=nn.Sequential(*(Block() for _ in range(count))),
        norm=nn.LayerNorm(W), head=nn.Linear(W, 2),
    )  # fmt: skip


def torchvision_vit(count: int = 12) -> nn.Module:
    layers = nn.Sequential(OrderedDict((f"encoder_layer_{i}", EncoderBlock()) for i in range(count)))
    encoder = net(pos_embedding=parameter(1, 9, W), layers=layers, ln=nn.LayerNorm(W))
    heads = nn.Sequential(OrderedDict(head=nn.Linear(W, 2)))
    return net(class_token=parameter(1, 1, W), conv_proj=nn.Conv2d(3, W, 2), encoder=encoder, heads=heads)


def convnext() -> nn.Module:
    stages = [Stage(ConvNextBlock, count, first=i == 0) for i, count in enumerate((2, 1, 3))]
    head = net(norm=nn.LayerNorm(W), fc=nn.Linear(W, 2))
    return net(stem=nn.Sequential(nn.Conv2d(3, W, 4), nn.LayerNorm(W)), stages=nn.Sequential(*stages), head=head)


def swin() -> nn.Module:
    layers = [Stage(Block, count, first=i == 0) for i, count in enumerate((2, 2, 1))]
    patch_embed = net(proj=nn.Conv2d(3, W, 4), norm=nn.LayerNorm(W))
    return net(patch_embed=patch_embed, layers=nn.Sequential(*layers), norm=nn.LayerNorm(W), head=nn.Linear(W, 2))


def efficientnet() -> nn.Module:
    stages = [nn.Sequential(*(kind() for _ in range(n))) for kind, n in ((BasicBlock, 1), (Block, 2), (Block, 3))]
    last = net(conv_head=nn.Conv2d(W, W, 1), bn2=nn.BatchNorm2d(W), classifier=nn.Linear(W, 2))
    first = net(conv_stem=nn.Conv2d(3, W, 3), bn1=nn.BatchNorm2d(W), blocks=nn.Sequential(*stages))
    return net(**dict(first.named_children()), **dict(last.named_children()))


def resnet(counts: tuple[int, ...] = (2, 1, 1, 2)) -> nn.Module:
    layers = {f"layer{i + 1}": nn.Sequential(*(BasicBlock() for _ in range(n))) for i, n in enumerate(counts)}
    return net(conv1=nn.Conv2d(3, W, 7), bn1=nn.BatchNorm2d(W), **layers, fc=nn.Linear(W, 2))


def regnet() -> nn.Module:
    return net(stem=conv_norm(), s1=RegStage(1), s2=RegStage(1), s3=RegStage(3), head=net(fc=nn.Linear(W, 2)))


def densenet() -> nn.Module:
    features = nn.Sequential(OrderedDict(conv0=nn.Conv2d(3, W, 7), norm0=nn.BatchNorm2d(W)))
    for i, count in enumerate((2, 3)):
        block = nn.ModuleDict({f"denselayer{j + 1}": DenseLayer() for j in range(count)})
        features.add_module(f"denseblock{i + 1}", block)
        if i == 0:
            features.add_module("transition1", Transition())
    features.add_module("norm5", nn.BatchNorm2d(W))
    return net(features=features, classifier=nn.Linear(W, 2))


def torchvision_convnext() -> nn.Module:
    """All in one Sequential: stem, stage, downsampling, stage."""
    down = nn.Sequential(nn.LayerNorm(W), nn.Conv2d(W, W, 2))
    stages = [nn.Sequential(*(ConvNextBlock() for _ in range(n))) for n in (2, 3)]
    features = nn.Sequential(conv_norm(), stages[0], down, stages[1])
    return net(features=features, classifier=nn.Sequential(nn.LayerNorm(W), nn.Flatten(1), nn.Linear(W, 2)))


def authors_convnext() -> nn.Module:
    """Downsampling in a list of its own, that is there before the stages."""
    downs = [nn.Sequential(nn.Conv2d(3, W, 4), nn.LayerNorm(W))]
    downs += [nn.Sequential(nn.LayerNorm(W), nn.Conv2d(W, W, 2)) for _ in range(2)]
    stages = [nn.Sequential(*(ConvNextBlock() for _ in range(n))) for n in (2, 1, 3)]
    lists = {"downsample_layers": nn.ModuleList(downs), "stages": nn.ModuleList(stages)}
    return net(**lists, norm=nn.LayerNorm(W), head=nn.Linear(W, 2))


def lucidrains_vit() -> nn.Module:
    layers = nn.ModuleList([nn.ModuleList([Attention(), Mlp()]) for _ in range(3)])
    embedding = nn.Sequential(nn.LayerNorm(W), nn.Linear(W, W), nn.LayerNorm(W))
    transformer = net(norm=nn.LayerNorm(W), layers=layers)
    parts = {"to_patch_embedding": embedding, "transformer": transformer, "mlp_head": nn.Linear(W, 2)}
    return net(pos_embedding=parameter(1, 9, W), cls_token=parameter(1, 1, W), **parts)


def tower(count: int, **first: nn.Module) -> nn.Module:
    blocks = net(layers=nn.ModuleList([Block() for _ in range(count)]))
    return net(**first, encoder=blocks, final_layer_norm=nn.LayerNorm(W))


def open_clip(vision: int = 4, text: int = 2) -> nn.Module:
    """The text tower's embeddings and norm are the model's own."""
    visual = net(
        class_embedding=parameter(W), positional_embedding=parameter(9, W), proj=parameter(W, W),
        conv1=nn.Conv2d(3, W, 2), ln_pre=nn.LayerNorm(W),
        transformer=net(resblocks=nn.ModuleList([Block() for _ in range(vision)])), ln_post=nn.LayerNorm(W),
    )  # fmt: skip
    return net(
        positional_embedding=parameter(7, W), text_projection=parameter(W, W), logit_scale=parameter(),
        visual=visual, transformer=net(resblocks=nn.ModuleList([Block() for _ in range(text)])),
        token_embedding=nn.Embedding(9, W), ln_final=nn.LayerNorm(W),
    )  # fmt: skip
