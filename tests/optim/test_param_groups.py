"""Parameter groups: every trainable parameter in exactly one, by the first rule that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.optim.param_groups import ParamGroup, group_remarks, split_parameters
from lrkit.planning.group_rules import Rule, group_rates, parse_rules

CONF = Path(__file__).parents[2] / "conf" / "param_groups"


class Vit(nn.Module):
    """The parts that matter of a vision transformer."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        parts = [{"norm": nn.LayerNorm(4), "mlp": nn.Linear(4, 4)} for _ in range(depth)]
        self.blocks = nn.ModuleList(map(nn.ModuleDict, parts))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def preset(name: str, **changes: Any) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()} | changes


def by_name(groups: list[ParamGroup]) -> dict[str, ParamGroup]:
    return {group.name: group for group in groups}


HEAD = {"name": "head", "pattern": r"^head\.", "lr_scale": 10}


def test_default_is_one_group_of_everything() -> None:
    model = Vit()
    (group,) = split_parameters(model, preset("default"))
    assert (group.name, group.lr_scale, group.weight_decay) == ("default", 1.0, None)
    assert group.names == tuple(name for name, _ in model.named_parameters())
    assert all(a is b for a, b in zip(group.params, model.parameters(), strict=True))
    assert [g.names for g in split_parameters(model)] == [group.names]


def test_no_decay_spares_biases_and_norms() -> None:
    groups = by_name(split_parameters(Vit(depth=1), preset("no_decay")))
    assert {name: group.weight_decay for name, group in groups.items()} == {"default": None, "no_decay": 0.0}
    assert groups["default"].names == ("embed.weight", "blocks.0.mlp.weight", "head.weight")
    assert "norm.weight" in groups["no_decay"].names and "head.bias" in groups["no_decay"].names


def test_layerwise_decays_from_the_top() -> None:
    groups = split_parameters(Vit(), preset("layerwise"))
    assert [(group.name, group.lr_scale) for group in groups] == [
        ("layer_0", 0.75**4),  # embed
        ("layer_1", 0.75**3),
        ("layer_2", 0.75**2),
        ("layer_3", 0.75),
        ("layer_4", 1.0),  # norm and head
    ]
    assert by_name(groups)["layer_4"].names == ("norm.weight", "norm.bias", "head.weight", "head.bias")


def test_layerwise_goes_with_no_decay() -> None:
    groups = by_name(split_parameters(Vit(), preset("layerwise", no_decay=True)))
    assert groups["layer_1_no_decay"].names == ("blocks.0.norm.weight", "blocks.0.norm.bias", "blocks.0.mlp.bias")
    assert groups["layer_1_no_decay"].lr_scale == groups["layer_1"].lr_scale == 0.75**3
    assert (groups["layer_1_no_decay"].weight_decay, groups["layer_1"].weight_decay) == (0.0, None)


def test_layers_of_ten_or_more_sort_by_name() -> None:
    names = [group.name for group in split_parameters(Vit(depth=12), preset("layerwise"))]
    assert names == sorted(names) and names[0] == "layer_00" and names[-1] == "layer_13"


def test_frozen_layers_count_for_the_depth() -> None:
    model = Vit()
    model.embed.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    assert by_name(split_parameters(model, preset("layerwise")))["layer_2"].lr_scale == 0.75**2


@pytest.mark.parametrize("name", ["default", "no_decay", "layerwise"])
def test_rules_come_first_in_every_preset(name: str) -> None:
    groups = split_parameters(Vit(), preset(name, rules=[HEAD | {"weight_decay": 0.1}]))
    assert groups[0].name == "head"
    assert (groups[0].lr_scale, groups[0].weight_decay) == (10.0, 0.1)
    assert groups[0].names == ("head.weight", "head.bias")
    assert not any("head" in parameter for group in groups[1:] for parameter in group.names)


def test_a_rule_for_the_rate_leaves_no_decay_as_it_is() -> None:
    groups = by_name(split_parameters(Vit(), preset("no_decay", rules=[HEAD])))
    assert groups["head"].names == ("head.weight",) and groups["head_no_decay"].names == ("head.bias",)
    assert (groups["head"].lr_scale, groups["head_no_decay"].lr_scale) == (10.0, 10.0)
    assert (groups["head"].weight_decay, groups["head_no_decay"].weight_decay) == (None, 0.0)
    assert list(groups) == ["head", "head_no_decay", "default", "no_decay"]


def test_a_rule_for_the_weight_decay_leaves_the_layers_rate_as_it_is() -> None:
    """The recipe of BEiT and MAE: position embeddings without decay, at the rate of the bottom layer."""
    rules = [{"name": "pos_embed", "pattern": "^embed.weight", "weight_decay": 0.0}]
    groups = split_parameters(Vit(), preset("layerwise", rules=rules))
    assert [(group.name, group.lr_scale, group.weight_decay) for group in groups[:2]] == [
        ("pos_embed", 0.75**4, 0.0),
        ("layer_0", 0.75**4, None),
    ]
    assert groups[0].names == ("embed.weight",) and groups[1].names == ("embed.bias",)


def test_a_rule_that_spans_layers_has_a_group_for_each() -> None:
    groups = split_parameters(
        Vit(), preset("layerwise", rules=[{"name": "mlp", "pattern": r"mlp\.weight", "weight_decay": 0.2}])
    )
    assert [(group.name, group.lr_scale, group.weight_decay) for group in groups[:3]] == [
        ("mlp_layer_1", 0.75**3, 0.2),
        ("mlp_layer_2", 0.75**2, 0.2),
        ("mlp_layer_3", 0.75, 0.2),
    ]
    assert len(groups) == 3 + 5
    assert group_rates(preset("layerwise", rules=[{"name": "mlp", "pattern": "mlp"}], no_decay=True))[:2] == [
        ("mlp_layer_*", 1.0, None),
        ("mlp_layer_*_no_decay", 1.0, 0.0),
    ]


def test_a_rules_own_scale_replaces_the_layers() -> None:
    groups = by_name(
        split_parameters(Vit(), preset("layerwise", rules=[{"name": "low", "pattern": "^embed", "lr_scale": 0.5}]))
    )
    assert groups["low"].lr_scale == 0.5 and "layer_0" not in groups


@pytest.mark.parametrize("name", ["default", "no_decay"])
def test_rates_are_known_without_a_model(name: str) -> None:
    node = preset(name, rules=[HEAD | {"weight_decay": 0.1}])
    model = split_parameters(Vit(), node)
    assert group_rates(node) == [(group.name, group.lr_scale, group.weight_decay) for group in model]


def test_layers_are_one_entry_without_a_model() -> None:
    rates = group_rates(preset("layerwise", rules=[HEAD], no_decay=True))
    assert rates == [
        ("head", 10.0, None), ("head_no_decay", 10.0, 0.0), ("layer_*", 1.0, None), ("layer_*_no_decay", 1.0, 0.0),
    ]  # fmt: skip


def test_pattern_and_max_ndim_both_have_to_hold() -> None:
    groups = by_name(split_parameters(Vit(depth=1), [{"name": "x", "pattern": "blocks", "max_ndim": 1}]))
    assert groups["x"].names == ("blocks.0.norm.weight", "blocks.0.norm.bias", "blocks.0.mlp.bias")


def test_tied_parameters_count_once() -> None:
    model = Vit(depth=1)
    model.head.weight = model.embed.weight
    groups = by_name(split_parameters(model, [{"name": "embed", "pattern": "^embed"}]))
    assert groups["embed"].names == ("embed.weight", "embed.bias")
    assert "head.weight" not in groups["default"].names


def test_options_are_what_torch_wants() -> None:
    head, rest = split_parameters(Vit(), [HEAD | {"weight_decay": 0}])
    assert head.options(0.5) == {"params": list(head.params), "name": "head", "lr": 0.5, "weight_decay": 0.0}
    assert "weight_decay" not in rest.options(0.5)


def test_a_rate_of_zero_is_accepted() -> None:
    assert split_parameters(Vit(), [HEAD | {"lr_scale": 0}])[0].lr_scale == 0.0


# --- the model's no_weight_decay -----------------------------------------------------------------------------------


class Tokens(Vit):
    """A vision transformer that names its parameters without weight decay, as timm's do."""

    def __init__(self) -> None:
        super().__init__(depth=2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed", "dist_token"}


def test_no_decay_spares_what_the_model_asks_for() -> None:
    groups = by_name(split_parameters(Tokens(), preset("no_decay")))
    assert groups["no_decay"].names[:2] == ("cls_token", "pos_embed")
    assert groups["default"].names[0] == "mask_token"
    assert group_remarks(Tokens(), preset("no_decay")) == [
        "without weight decay, as the model requests: cls_token, pos_embed"
    ]
    assert group_remarks(Tokens(), preset("default")) == []


def test_a_part_of_the_model_asks_by_names_of_its_own() -> None:
    model = nn.ModuleDict({"net": Tokens(), "beside": nn.Linear(4, 4)})
    model["beside"].register_parameter("pos_embed", nn.Parameter(torch.zeros(1, 5, 4)))
    groups = by_name(split_parameters(model, preset("layerwise", no_decay=True)))
    assert groups["layer_0_no_decay"].names == ("net.cls_token", "net.pos_embed", "net.embed.bias")
    assert groups["layer_0"].names == ("net.mask_token", "net.embed.weight")
    assert "beside.pos_embed" in groups["layer_3"].names


def test_a_model_asks_by_keywords_and_by_marks() -> None:
    """Swin's method beside timm's, and Mamba's mark on a parameter."""
    model = Vit(depth=2)
    model.no_weight_decay_keywords = lambda: {"blocks.1.m"}  # type: ignore[assignment]
    model.head.weight._no_weight_decay = True  # type: ignore[attr-defined]
    assert by_name(split_parameters(model, preset("no_decay")))["default"].names == (
        "embed.weight",
        "blocks.0.mlp.weight",
    )


def test_a_rule_comes_before_what_the_model_asks_for() -> None:
    groups = by_name(
        split_parameters(Tokens(), preset("no_decay", rules=[{"name": "p", "pattern": "pos", "weight_decay": 0.3}]))
    )
    assert groups["p"].weight_decay == 0.3 and groups["p"].names == ("pos_embed",)


# --- every parameter once ----------------------------------------------------------------------------------------

words = st.sampled_from(["weight", "bias", "blocks", "head", "0", "1", "2", "norm"])
rule_nodes = st.lists(
    st.builds(
        lambda pattern, ndim, scale: {"pattern": pattern, "max_ndim": ndim, "lr_scale": scale},
        st.one_of(st.none(), words.map(lambda word: rf"\b{word}\b"), words),
        st.one_of(st.none(), st.integers(0, 3)),
        st.floats(0, 10),
    ).filter(lambda rule: rule["pattern"] is not None or rule["max_ndim"] is not None),
    max_size=4,
).map(lambda rules: [{"name": f"rule{i}", **rule} for i, rule in enumerate(rules)])


@settings(max_examples=150, deadline=None)
@given(
    rules=rule_nodes,
    no_decay=st.booleans(),
    layer_decay=st.one_of(st.none(), st.floats(0.1, 1)),
    frozen=st.sets(st.integers(0, 15)),
    tied=st.booleans(),
)
def test_every_trainable_parameter_is_in_exactly_one_group(
    rules: list[dict[str, Any]], no_decay: bool, layer_decay: float | None, frozen: set[int], tied: bool
) -> None:
    model = Vit(depth=2)
    if tied:
        model.get_submodule("blocks.1.mlp").weight = model.get_submodule("blocks.0.mlp").weight
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad = i not in frozen
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    node = {"rules": rules, "no_decay": no_decay, "layer_decay": layer_decay}
    checked = [Rule(**rule) for rule in rules]
    first = {
        name: next((rule.name for rule in checked if rule.takes(name, parameter.ndim)), None)
        for name, parameter in trainable.items()
    }
    try:
        groups = split_parameters(model, node)
    except ConfigError as error:
        # The only reasons that these inputs leave.
        if not trainable:
            assert "no trainable parameters" in str(error)
        else:
            assert set(first.values()) - {None} != {rule.name for rule in checked}
            assert "must match a " in str(error)
        return
    assert sorted(name for group in groups for name in group.names) == sorted(trainable)
    assert len({id(p) for group in groups for p in group.params}) == sum(len(group.params) for group in groups)
    assert all(trainable[n] is p for group in groups for n, p in zip(group.names, group.params, strict=True))
    assert len({group.name for group in groups}) == len(groups)
    assert all(group.names for group in groups)
    for group in groups:
        for name in group.names:
            assert first[name] is None or group.name.removesuffix("_no_decay") == first[name]
            spared = no_decay and trainable[name].ndim <= 1
            assert group.weight_decay == (0.0 if spared else None)
    if layer_decay is None:
        assert {(g.name, g.lr_scale, g.weight_decay) for g in groups} <= set(group_rates(node))


# --- refused values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"rule": []}, "param_groups.rule is not a key. Did you mean 'rules'?"),
        ({"rules": HEAD}, "param_groups.rules must be a list of rules, such as"),
        ({"rules": "head"}, "param_groups.rules must be a list of rules, such as"),
        ({"no_decay": "yes"}, "param_groups.no_decay must be true or false. Received: 'yes'"),
        ({"layer_decay": 0}, "param_groups.layer_decay must be a number in (0, 1], or null. Received: 0"),
        ({"layer_decay": 1.5}, "param_groups.layer_decay must be a number in (0, 1], or null. Received: 1.5"),
        (["head"], "param_groups.rules[0] must be a rule: a mapping with name, pattern"),
        ([{**HEAD, "lr": 1}], "param_groups.rules[0].lr is not a key. "),
        ([{**HEAD, "lr_scal": 1}], "param_groups.rules[0].lr_scal is not a key. Did you mean 'lr_scale'?"),
        ([{"pattern": "x"}], "param_groups.rules[0].name must be made of letters"),
        ([HEAD | {"name": "a/b"}], "param_groups.rules[0].name must be made of letters"),
        ([HEAD | {"name": "default"}], "param_groups.rules[0].name must be another name"),
        ([HEAD | {"name": "no_decay"}], "param_groups.rules[0].name must be another name"),
        ([HEAD | {"name": "layer_3"}], "param_groups.rules[0].name must be another name"),
        ([HEAD, HEAD], "param_groups.rules[1].name must not be given twice. Received: 'head'"),
        (
            [HEAD, HEAD | {"name": "head_no_decay"}],
            "param_groups.rules[1].name must be another name: the rule head may",
        ),
        (
            [HEAD | {"name": "head_layer_01"}, HEAD],
            "param_groups.rules[0].name must be another name: the rule head may",
        ),
        ([{"name": "x"}], "param_groups.rules[0] must have a pattern or a max_ndim"),
        ([HEAD | {"pattern": "("}], "param_groups.rules[0].pattern must be a regular expression (missing )"),
        ([HEAD | {"pattern": 3}], "param_groups.rules[0].pattern must be a regular expression"),
        ([HEAD | {"max_ndim": -1}], "param_groups.rules[0].max_ndim must be a whole number >= 0. Received: -1"),
        ([HEAD | {"max_ndim": True}], "param_groups.rules[0].max_ndim must be a whole number >= 0. Received: True"),
        ([HEAD | {"lr_scale": -1}], "param_groups.rules[0].lr_scale must be a number >= 0. Received: -1"),
        ([HEAD | {"lr_scale": None}], "param_groups.rules[0].lr_scale must be a number >= 0. Received: None"),
        ([HEAD | {"lr_scale": float("inf")}], "param_groups.rules[0].lr_scale must be a number >= 0."),
        ([HEAD | {"weight_decay": -1}], "param_groups.rules[0].weight_decay must be a number >= 0, or null"),
    ],
)
def test_a_wrong_rule_is_named(node: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(node)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"name": "x", "pattern": "hed"}],
         "param_groups.rules[0].pattern must match a parameter: x matches none of embed.weight, embed.bias, "
         "blocks.0.norm.weight, blocks.0.norm.bias and 14 more. Received: 'hed'"),
        ([HEAD, {"name": "x", "pattern": "head.bias"}],
         "param_groups.rules[1].pattern must match a parameter: earlier rules match all parameters of x, head.bias."),
        ([HEAD, {"name": "x", "max_ndim": 0}], "param_groups.rules[1] must match a parameter: x matches none of"),
        ([{"name": "x", "pattern": "embed"}],
         "param_groups.rules[0].pattern must match a trainable parameter: embed.weight, embed.bias is frozen."),
    ],
)  # fmt: skip
def test_a_rule_that_takes_nothing_is_refused(rules: Any, message: str) -> None:
    model = Vit()
    model.embed.requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        split_parameters(model, rules)
    assert str(caught.value).startswith(message)


def test_the_other_name_of_a_tied_weight_says_so() -> None:
    model = Vit(depth=1)
    model.head.weight = model.embed.weight
    with pytest.raises(ConfigError) as caught:
        split_parameters(model, [{"name": "x", "pattern": r"^head\.weight"}])
    assert str(caught.value) == (
        "param_groups.rules[0].pattern must match a parameter: head.weight is tied to embed.weight, "
        r"and tied weights count once, under their first name. Received: '^head\\.weight'"
    )


def test_layers_need_blocks() -> None:
    with pytest.raises(ConfigError) as caught:
        split_parameters(nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}), preset("layerwise"))
    assert str(caught.value) == (
        "param_groups.layer_decay must be null, with rates by param_groups.rules: layers are counted by blocks "
        "(modules of one class in an nn.ModuleList, in an nn.Sequential or with numbered names), "
        "and there are none in a, b. Received: 0.75"
    )


def test_a_model_without_anything_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="model has no trainable parameters: it has no parameters"):
        split_parameters(nn.ReLU())
    with pytest.raises(ConfigError, match="model has no trainable parameters: every one of them is frozen"):
        split_parameters(Vit().requires_grad_(False))


def test_a_lazy_model_is_to_be_run_first() -> None:
    with pytest.raises(ConfigError, match=r"model must be run on one batch first: 0\.weight, 0\.bias has no shape yet"):
        split_parameters(nn.Sequential(nn.LazyLinear(3)))
