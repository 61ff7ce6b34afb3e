"""The options of lrkit's own data and networks, by class path, checked without an import of torch or other packages.

``tests/promises/test_same_answers.py`` compares these rules with the constructors: the names, and the answers to wrong
values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import (
    FLAG,
    Rule,
    either,
    is_list,
    is_number,
    is_whole,
    listed,
    one_of,
    optional,
    text,
    whole,
)
from lrkit.config.missing_value_spellings import POLICIES
from lrkit.config.named_datasets import check_torchvision

__all__ = ["OPTIONS", "check", "tokens_per_sample"]


def _is_size(value: Any) -> bool:
    return is_whole(value, 1) or (is_list(value) and len(value) > 0 and all(is_whole(each, 1) for each in value))


_COUNT, _LEAST = whole(1), whole(0)
_SHARE = Rule("must be a number between 0 and 1", lambda x: is_number(x) and 0 < x < 1)
_TARGETS = Rule("must be auto, classes or numbers", one_of("auto", "classes", "numbers").holds)
_SPLIT = {"val_fraction": _SHARE, "test_fraction": _SHARE}
_ANY = Rule("", lambda value: True)
_ARGUMENTS = Rule("must be a group of arguments", lambda x: x is None or isinstance(x, Mapping))
_COLUMNS = Rule(
    "must be a column, or a list of columns",
    lambda x: all(isinstance(each, str) and each != "" for each in (x if is_list(x) and len(x) else [x])),
)
_DATA = {
    "batch_size": _COUNT,
    "seed": _LEAST,
    "drop_last": FLAG,
    "train_samples": optional(_COUNT),
    "placement": one_of("auto", "device", "pinned", "host"),
}
_MODEL = {
    "inputs": Rule(_COUNT.must, lambda x: x == "auto" or _is_size(x)),
    "outputs": either(one_of("auto"), _COUNT),
}
_DROPOUT = Rule("must be in [0, 1)", lambda x: is_number(x) and 0 <= x < 1)
_WIDTHS = listed(_COUNT, meaning="a list of whole numbers >= 1")

_RULES: dict[str, dict[str, Any]] = {
    "lrkit.data.Digits": _DATA,
    "lrkit.data.Mnist1d": {**_DATA, "train_samples": _COUNT, "val_samples": _COUNT, "test_samples": _COUNT},
    "lrkit.data.Text": {
        **_DATA, "path": optional(text(meaning="a text file")), "context": _COUNT, "train_samples": _COUNT,
        "val_samples": _COUNT,
    },
    "lrkit.data.Idx": {
        **_DATA, "path": text(meaning="the folder with the IDX files"), "val_samples": _COUNT,
        "limit": optional(_COUNT), "flatten": FLAG,
    },
    "lrkit.data.Arrays": {
        **_DATA,
        "path": [
            text(meaning="an .npz or .csv file"),
            Rule("must end in .npz or .csv", lambda x: x.endswith((".npz", ".csv"))),
        ],
        "target": _ANY, "targets": _TARGETS, "missing": one_of(*POLICIES), "standardise": FLAG, **_SPLIT,
    },
    "lrkit.data.Torchvision": {
        **_DATA, "name": text(meaning="a class of torchvision.datasets, such as FashionMNIST"),
        "root": optional(text(meaning="a folder")), "download": FLAG, "options": _ARGUMENTS, **_SPLIT,
    },
    "lrkit.data.HuggingFace": {
        **_DATA, "path": text(meaning="a name for load_dataset, or a folder that save_to_disk wrote"), "x": _COLUMNS,
        "y": text(meaning="a column"), "targets": _TARGETS, "options": _ARGUMENTS, **_SPLIT,
    },
    "lrkit.models.Linear": _MODEL,
    "lrkit.models.Mlp": {**_MODEL, "hidden": _WIDTHS, "dropout": _DROPOUT},
    "lrkit.models.Cnn1d": {**_MODEL, "channels": _COUNT},
    "lrkit.models.Cnn2d": {**_MODEL, "widths": _WIDTHS},
    "lrkit.models.CharTransformer": {
        **_MODEL, "layers": _COUNT, "width": _COUNT, "heads": _COUNT, "norm": one_of("pre", "post"),
        "dropout": _DROPOUT,
    },
}  # fmt: skip

#: Class path -> option -> its rules, in the order of the checks.
OPTIONS: dict[str, dict[str, tuple[Rule, ...]]] = {
    path: {name: (rule,) if isinstance(rule, Rule) else tuple(rule) for name, rule in rules.items()}
    for path, rules in _RULES.items()
}


#: Class path -> the option that is the number of tokens in a sample.
_TOKENS = {"lrkit.data.Text": "context"}


def tokens_per_sample(data: Mapping[str, Any]) -> tuple[int, str] | None:
    """Return the number of tokens in a sample of the node ``data``, and its key; None if no key has it.

    >>> tokens_per_sample({"_target_": "lrkit.data.Text", "context": 64})
    (64, 'data.context')
    """
    option = _TOKENS.get(str(data.get("_target_")))
    return None if option is None else (int(data[option]), f"data.{option}")


def check(key: str, node: Mapping[str, Any], hint: Callable[[str, list[str]], str]) -> None:
    """Check the options of one of lrkit's own classes. Other classes are not checked here.

    Args:
        key: the key of the node, ``data`` or ``model``.
        hint: returns a hint at the similar names for an unknown name.

    Raises:
        ConfigError: with the key of the option.
    """
    rules = OPTIONS.get(str(node.get("_target_")))
    if rules is None:
        return
    for name, value in node.items():
        if str(name).startswith("_") and str(name).endswith("_"):
            continue
        if name not in rules:
            raise ConfigError(f"{key}.{name}", f"is not a key. {hint(str(name), [*rules])}")
        for rule in rules[name]:
            rule.check(f"{key}.{name}", value)
    _check_together(key, node)


def _check_together(key: str, node: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other, or that have no effect together."""
    target, given = node["_target_"], node.get
    if target == "lrkit.data.Torchvision" and isinstance(name := given("name"), str):
        check_torchvision(name)
    if target == "lrkit.data.Arrays" and str(given("path")).endswith(".npz") and given("target") is not None:
        must = "must be null for an .npz file, whose array y has the targets: it names a column of a .csv file"
        raise ConfigError(f"{key}.target", must, given("target"))
    val, test = given("val_fraction"), given("test_fraction")
    if val and test and val + test >= 1:
        raise ConfigError(f"{key}.val_fraction", f"must be below 1 - data.test_fraction ({test})", val)
    width, heads = given("width"), given("heads")
    if target == "lrkit.models.CharTransformer" and width and heads and width % heads:
        raise ConfigError(f"{key}.width", f"must be a multiple of model.heads ({heads})", width)
