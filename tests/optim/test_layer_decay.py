"""Layer-wise decay: the levels of third parties' networks equal those of their authors and of timm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_lightning
import pytest
from miniature_networks import (
    Attention,
    Block,
    MoeBlock,
    W,
    authors_convnext,
    conv_norm,
    convnext,
    densenet,
    efficientnet,
    lucidrains_vit,
    net,
    open_clip,
    parameter,
    regnet,
    resnet,
    swin,
    timm_vit,
    torchvision_convnext,
    torchvision_vit,
    tower,
)
from torch import nn

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.optim.layer_decay import find_layers
from lrkit.optim.network_blocks import UnclearLayers
from lrkit.optim.param_groups import group_remarks, split_parameters
from lrkit.planning.plan import Plan


def blocks(*paths: str, first: int = 1) -> dict[str, int]:
    return {path: first + i for i, path in enumerate(paths)}


def row(path: str, count: int, first: int = 1) -> dict[str, int]:
    return blocks(*(f"{path}{i}" for i in range(count)), first=first)


def plain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


# The level of all parameters of a module; the empty path has the others. The first seven are compared with the
# group_matcher of timm 1.0.31 for these names; it differs where `timm:` says so.
LEVELS: list[tuple[Callable[[], nn.Module], dict[str, int]]] = [
    # timm: norm is at 3, with the last block; BEiT's authors have it above
    (timm_vit, {"": 0, **row("blocks.", 3), "norm": 4, "head": 4}),
    (convnext, {"stem": 0, **row("stages.0.blocks.", 2), "stages.1": 3, "stages.2.downsample": 4,
                **row("stages.2.blocks.", 3, 4), "head": 7}),
    # timm: norm is at 5
    (swin, {"patch_embed": 0, **row("layers.0.blocks.", 2), "layers.1.downsample": 3, **row("layers.1.blocks.", 2, 3),
            "layers.2": 5, "norm": 6, "head": 6}),
    # timm: conv_head and bn2 are at 6
    (efficientnet, {"": 0, "blocks.0.0": 1, **row("blocks.1.", 2, 2), **row("blocks.2.", 3, 4),
                    "conv_head": 7, "bn2": 7, "classifier": 7}),
    (resnet, {"": 0, **row("layer1.", 2), "layer2": 3, "layer3": 4, **row("layer4.", 2, 5), "fc": 7}),
    (regnet, {"stem": 0, "s1": 1, "s2": 2, **blocks("s3.b1", "s3.b2", "s3.b3", first=3), "head": 6}),
    # timm: transition1 is at 2, with the block before it
    (densenet, {"": 0, **blocks("features.denseblock1.denselayer1", "features.denseblock1.denselayer2"),
                "features.transition1": 3, **row("features.denseblock2.denselayer", 4, 2),
                "features.norm5": 6, "classifier": 6}),
    (torchvision_vit, {"": 0, **row("encoder.layers.encoder_layer_", 12), "encoder.ln": 13, "heads": 13}),
    (torchvision_convnext, {"features.0": 0, **row("features.1.", 2), "features.2": 3, **row("features.3.", 3, 3),
                            "classifier": 6}),
    # get_num_layer_for_convnext: downsample_layers.i with the first block of stage i
    (authors_convnext, {"downsample_layers.0": 0, **row("stages.0.", 2), "downsample_layers.1": 3, "stages.1": 3,
                        "downsample_layers.2": 4, **row("stages.2.", 3, 4), "norm": 7, "head": 7}),
    (lucidrains_vit, {"": 0, **row("transformer.layers.", 3), "mlp_head": 4}),
    # each tower has its own depth, and both end below the top
    (open_clip, {"": 5, "logit_scale": 5, "visual.class_embedding": 0, "visual.positional_embedding": 0,
                 "visual.conv1": 0, "visual.ln_pre": 0, **row("visual.transformer.resblocks.", 4),
                 "positional_embedding": 2, "token_embedding": 2, **row("transformer.resblocks.", 2, 3)}),
    (lambda: net(vision_model=tower(2, patch=nn.Conv2d(3, W, 2)), text_model=tower(2, tokens=nn.Embedding(9, W)),
                 logit_scale=parameter(), projection=nn.Linear(W, W)),
     {"": 3, "vision_model.patch": 0, **row("vision_model.encoder.layers.", 2), "text_model.tokens": 0,
      **row("text_model.encoder.layers.", 2)}),
    # encoder and head, one above the other, however they are wrapped
    (lambda: plain(timm_vit(), nn.Linear(2, 2)), {"": 0, **row("0.blocks.", 3), "0.norm": 4, "0.head": 4, "1": 4}),
    (lambda: net(_orig_mod=net(backbone=plain(tower(3, tokens=nn.Embedding(9, W)))), head=plain(nn.Linear(W, W))),
     {"": 0, **row("_orig_mod.backbone.0.encoder.layers.", 3), "_orig_mod.backbone.0.final_layer_norm": 4, "head": 4}),
    # sentence-transformers: a pooling without parameters, a dense layer
    (lambda: plain(net(auto_model=tower(3, embeddings=nn.Embedding(9, W))), nn.Identity(),
                   net(linear=nn.Linear(W, W))),
     {"0.auto_model.embeddings": 0, **row("0.auto_model.encoder.layers.", 3), "0.auto_model.final_layer_norm": 4,
      "2": 4}),
    # an encoder below its decoder, also where that was made first; the norm between them belongs to the encoder
    (lambda: net(shared=nn.Embedding(9, W), encoder=tower(2), decoder=tower(2)),
     {"shared": 0, **row("encoder.encoder.layers.", 2), "encoder.final_layer_norm": 2,
      **row("decoder.encoder.layers.", 2, 3), "decoder.final_layer_norm": 5}),
    (lambda: net(embed=nn.Linear(W, W), decoder=nn.ModuleList([Block(), Block()]),
                 encoder=nn.ModuleList([Block(), Block()]), head=nn.Linear(W, 2)),
     {"embed": 0, **row("encoder.", 2), **row("decoder.", 2, 3), "head": 5}),
    # rows that are in a block: experts, and the heads of Karpathy's lectures
    (lambda: net(embed=nn.Embedding(9, W), layers=nn.ModuleList([MoeBlock() for _ in range(3)]), norm=nn.LayerNorm(W)),
     {"embed": 0, **row("layers.", 3), "norm": 4}),
    # hybrids: another class now and then
    (lambda: net(embed=nn.Embedding(9, W), layers=nn.ModuleList([Block(), MoeBlock(), Block(), MoeBlock()])),
     {"embed": 0, **row("layers.", 4)}),
    # a small row belongs to the modules around it: the heads of several tasks
    (lambda: net(embed=nn.Embedding(9, W), layers=nn.ModuleList([MoeBlock() for _ in range(8)]),
                 heads=nn.ModuleList([Attention(), Attention()])),
     {"embed": 0, **row("layers.", 8), "heads": 9}),
    # plain layers: one for each matrix or kernel, its norm with it
    (lambda: plain(nn.Linear(W, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), {"0": 0, "2": 1, "4": 2}),
    (lambda: plain(net(body=plain(nn.Linear(W, 8), nn.ReLU(), nn.Linear(8, 8)), head=nn.Linear(8, 2))),
     {"0.body.0": 0, "0.body.2": 1, "0.head": 2}),
    (lambda: timm_vit(1), {"": 0, "blocks": 1, "norm": 2, "head": 2}),
    (lambda: net(body=plain(nn.Linear(W, 8), nn.ReLU()), head=nn.Linear(8, 2)), {"body.0": 0, "head": 1}),
    (lambda: net(conv1=nn.Conv2d(3, 6, 3), bn1=nn.BatchNorm2d(6), conv2=nn.Conv2d(6, 8, 3), bn2=nn.BatchNorm2d(8),
                 fc1=nn.Linear(99, 9), fc2=nn.Linear(9, 2)),
     {"conv1": 0, "bn1": 0, "conv2": 1, "bn2": 1, "fc1": 2, "fc2": 3}),
    (lambda: net(features=plain(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3)),
                 classifier=plain(nn.Linear(99, 9), nn.ReLU(), nn.Linear(9, 2))),
     {"features.0": 0, "features.2": 1, "classifier.0": 2, "classifier.2": 3}),
]  # fmt: skip


def expected(name: str, levels: dict[str, int]) -> int:
    return max((len(path), level) for path, level in levels.items() if not path or f"{name}.".startswith(f"{path}."))[1]


@pytest.mark.parametrize(("make", "levels"), LEVELS)
def test_levels(make: Callable[[], nn.Module], levels: dict[str, int]) -> None:
    module = make()
    found = find_layers(module)
    assert found.of == {name: expected(name, levels) for name, _ in module.named_parameters()}
    assert found.top == max(levels.values())


def test_the_bottom_of_torchvisions_vit_has_the_rate_of_beit() -> None:
    groups = {group.name: group for group in split_parameters(torchvision_vit(), {"layer_decay": 0.75})}
    assert len(groups) == 14
    assert groups["layer_00"].lr_scale == 0.75**13 == pytest.approx(0.0238, abs=1e-4)
    assert groups["layer_00"].names == ("class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding")
    both = {name.rpartition("encoder_layer_3.")[2] for name in groups["layer_04"].names}
    assert {"self_attention.in_proj_weight", "mlp.0.weight", "mlp.3.weight"} < both


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (torchvision_vit, "14 layers: encoder.layers.encoder_layer_0-11 are 1-12; below: class_token, conv_proj, "
                          "encoder.pos_embedding (4 parameters); above: encoder.ln, heads (4)"),
        (swin, "7 layers: layers.0.blocks.0-1, layers.1.blocks.0-1, layers.2.blocks.0 are 1-5; below: patch_embed "
               "(4 parameters); between: layers.1.downsample at 3, layers.2.downsample at 5 (8); "
               "above: norm, head (4)"),
        (open_clip, "6 layers: visual.transformer.resblocks.0-3 are 1-4, beside transformer.resblocks.0-1 are 3-4; "
                    "below: positional_embedding, visual.class_embedding, visual.positional_embedding, visual.conv1 "
                    "and 2 more (8 parameters); above: text_projection, logit_scale, visual.proj, visual.ln_post and 1 "
                    "more (7)"),
        (lambda: plain(nn.Linear(W, 3), nn.ReLU(), nn.Linear(3, 2)), "2 layers: 0, 2 are 0-1"),
        (lambda: net(tokens=nn.Embedding(9, W), layer=nn.ModuleList([Block()])),
         "2 layers: layer.0 is 1; below: tokens (1 parameter)"),
    ],
)  # fmt: skip
def test_the_levels_in_a_sentence(make: Callable[[], nn.Module], line: str) -> None:
    assert find_layers(make()).line == line


# --- frozen parameters -----------------------------------------------------------------------------------------------


def rates(module: nn.Module) -> dict[str, float]:
    return {name: group.lr_scale for group in split_parameters(module, {"layer_decay": 0.5}) for name in group.names}


@pytest.mark.parametrize("name", ["teacher", "decoder", "ema_2"])
def test_a_frozen_copy_beside_the_network_shifts_nothing(name: str) -> None:
    alone = rates(net(student=timm_vit()))
    assert rates(net(student=timm_vit(), **{name: timm_vit().requires_grad_(False)})) == alone
    assert rates(net(**{name: timm_vit().requires_grad_(False)}, student=timm_vit())) == alone
    assert alone["student.blocks.2.attn.qkv.weight"] == 0.5


def test_frozen_blocks_of_their_own_list_shift_nothing() -> None:
    """huggingface/pytorch-image-models#2691."""
    kept = nn.ModuleList([Block().requires_grad_(False) for _ in range(3)])
    found = rates(net(embed=nn.Linear(W, W), blocks=nn.ModuleList([Block() for _ in range(3)]), frozen_blocks=kept))
    assert [found[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [0.25, 0.5, 1.0]


def test_frozen_layers_below_count_and_those_above_do_not() -> None:
    module = timm_vit()
    module.blocks[0].requires_grad_(False)  # type: ignore[operator,index]
    assert rates(module)["blocks.1.mlp.fc1.weight"] == 0.25
    module.norm.requires_grad_(False)  # type: ignore[union-attr,operator]
    module.head.requires_grad_(False)  # type: ignore[union-attr,operator]
    module.blocks[2].requires_grad_(False)  # type: ignore[operator,index]
    assert rates(module)["blocks.1.mlp.fc1.weight"] == 1.0


@pytest.mark.parametrize("order", [("embed", "blocks", "head"), ("head", "embed", "blocks")])
def test_a_head_that_is_trained_alone_has_the_full_rate(order: tuple[str, ...]) -> None:
    """The blocks below it are all frozen, but they still count as layers."""
    parts = {"embed": nn.Linear(W, W), "blocks": nn.ModuleList([Block(), Block()]), "head": nn.Linear(W, 2)}
    module = net(**{name: parts[name] for name in order})
    module.requires_grad_(False)
    module.head.requires_grad_(True)  # type: ignore[union-attr,operator]
    assert rates(module) == {"head.weight": 1.0, "head.bias": 1.0}


def test_an_optimizer_counts_the_layers_that_it_has() -> None:
    """Of several optimizers: a generator beside its critic, and one for the matrices alone."""
    module = net(generator=timm_vit(), critic=swin())
    names = [name for name, _ in module.named_parameters() if name.startswith("generator.")]
    groups = split_parameters(module, {"layer_decay": 0.5}, names)
    alone = split_parameters(module.generator, {"layer_decay": 0.5})  # type: ignore[arg-type]
    assert [(group.name, group.lr_scale) for group in groups] == [(group.name, group.lr_scale) for group in alone]
    assert group_remarks(module, {"layer_decay": 0.5}, names) == [
        "5 layers: generator.blocks.0-2 are 1-3; below: generator.cls_token, generator.reg_token, generator.pos_embed, "
        "generator.patch_embed (5 parameters); above: generator.norm, generator.head (4)"
    ]
    matrices = [name for name, p in timm_vit().named_parameters() if p.ndim == 2 and name.startswith("blocks")]
    by_name = {group.name: group.lr_scale for group in split_parameters(timm_vit(), {"layer_decay": 0.5}, matrices)}
    assert by_name == {"layer_0": 0.25, "layer_1": 0.5, "layer_2": 1.0}


# --- unknown levels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: net(left=nn.ModuleList([Block(), Block()]), right=nn.ModuleList([Block(), Block(), Block()])),
         "left.0-1 and right.0-2 are blocks, and it is unclear whether they are one after the other or side by side"),
        (lambda: net(actor=plain(nn.Linear(W, 8), nn.Linear(8, 2)), critic=plain(nn.Linear(W, 8), nn.Linear(8, 1))),
         "actor.0-1 and critic.0-1 are blocks, and it is unclear whether they are one after"),
        (lambda: net(a=nn.Linear(2, 2), b=nn.LSTM(2, 2, 3)),
         "layers are counted by blocks .* in a, b"),
        (lambda: nn.ModuleList([Block()]), "0 is the only layer"),
        # two critics, whose names differ in a number: the output of one is not the input of the other
        (lambda: net(q1=plain(nn.Linear(W, 8), nn.Linear(8, 1)), q2=plain(nn.Linear(W, 8), nn.Linear(8, 1))),
         "layers are counted by blocks .* in q1, q2"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnclearLayers, match=f"^{message}"):
        find_layers(make())


# --- transformers ----------------------------------------------------------------------------------------------------


def test_bert_clip_and_t5_of_transformers() -> None:
    import transformers as hf

    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    bert = find_layers(hf.BertForSequenceClassification(hf.BertConfig(vocab_size=9, **tiny)))
    assert (bert.of["bert.embeddings.word_embeddings.weight"], bert.of["classifier.weight"]) == (0, 4)
    assert bert.line.startswith("5 layers: bert.encoder.layer.0-2 are 1-3; below: bert.embeddings (5 parameters)")

    vision = {**tiny, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4}
    text = {**tiny, "vocab_size": 9, "eos_token_id": 1, "bos_token_id": 0}
    clip = find_layers(hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)))
    assert (clip.top, clip.of["logit_scale"], clip.of["visual_projection.weight"]) == (4, 4, 4)
    assert "text_model.encoder.layers.0-2 are 1-3, beside vision_model.encoder.layers.0-1 are 2-3" in clip.line
    embeddings = ("text_model.embeddings.token_embedding", "vision_model.embeddings.patch_embedding")
    assert [clip.of[f"{name}.weight"] for name in embeddings] == [0, 1]

    sizes = {"vocab_size": 9, "d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 2, "num_heads": 2}
    t5 = find_layers(hf.T5ForConditionalGeneration(hf.T5Config(**sizes)))
    assert t5.line.startswith("6 layers: encoder.block.0-1, decoder.block.0-1 are 1-4; below: shared (1 parameter)")
    assert t5.of["decoder.block.0.layer.1.EncDecAttention.q.weight"] == 3


def test_a_stem_is_no_row() -> None:
    """wav2vec 2.0: seven plain convolutions before the transformer."""
    stem = nn.ModuleList([net(conv=nn.Conv1d(W, W, 3), norm=nn.LayerNorm(W)) for _ in range(3)])
    found = find_layers(net(feature_extractor=net(conv_layers=stem), encoder=nn.ModuleList([Block(), Block()])))
    assert {found.of[name] for name in found.of if "conv_layers" in name} == {0} and found.top == 2
    assert find_layers(net(stem=conv_norm(), encoder=nn.ModuleList([Block(), Block()]))).top == 2


# --- before training -------------------------------------------------------------------------------------------------


def test_the_levels_are_printed_before_training_and_kept(
    train: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from lrkit.planning.plan_page import print_plan

    run = train("param_groups=layerwise", "model.hidden=[8,8]", "trainer.limit_train_batches=2")
    line = "3 layers: body.0, 3 are 0-1; above: head (2 parameters)"
    assert run.plan.notes == (line,)
    saved = Plan.from_json(json.loads((run.folder / "plan.json").read_text()))
    assert saved.notes == (line,) and saved.groups == run.plan.groups
    print_plan(saved)
    assert line in capsys.readouterr().out.splitlines()


def test_configure_says_the_levels_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrkit.lightning import imports

    said: list[str] = []
    monkeypatch.setattr(imports, "rank_zero_info", said.append)
    module = plain_lightning.Net()
    module.body = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
    trainer = imports.Trainer(
        fast_dev_run=True, default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", logger=False,
    )  # fmt: skip
    trainer.fit(lrkit.configure(module, lr=0.1, param_groups={"layer_decay": 0.5}), plain_lightning.Data())
    assert said == ["3 layers: body.0-1 are 0-1; above: head (2 parameters)"]


def test_show_says_where_the_levels_are_to_be_seen() -> None:
    from lrkit.planning import render

    said = "layer_*: layers are counted when there is a model; lrkit train prints them before training"
    shapes = {"lr": 0.1, "steps": 10}
    assert said in render.render_text(lrkit.plan(param_groups={"layer_decay": 0.75}, **shapes)).splitlines()
    assert said not in render.render_text(lrkit.plan(param_groups={"no_decay": True}, **shapes)).splitlines()


def test_what_cannot_be_told_is_refused_before_data_is_read(train: Callable[..., Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"^param_groups\.layer_decay must be null, with rates by param_groups\.rules: "
    ):
        train("param_groups=layerwise", "model=linear")
