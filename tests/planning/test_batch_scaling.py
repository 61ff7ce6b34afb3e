"""Batch-size scaling: the factor of each rule for an effective batch size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.planning.batch_scaling import RULES, BatchScale, batch_scale
from lrkit.planning.optimizer_traits import FAMILIES

CONF = Path(__file__).parents[2] / "conf" / "batch_scaling"
SGD, ADAMW, PRODIGY = "torch.optim.SGD", "torch.optim.AdamW", "pytorch_optimizer.Prodigy"

TABLE = [
    # rule      base  batch  optimizer  factor  printed
    ("none",    256,  1024,  SGD,       1,      "1 (no batch-size scaling)"),
    ("none",    None, None,  "",        1,      "1 (no batch-size scaling)"),
    ("linear",  256,  1024,  SGD,       4,      "4 (linear: batch 1024 / base 256)"),
    ("linear",  256,  64,    SGD,       0.25,   "0.25 (linear: batch 64 / base 256)"),
    ("linear",  256,  256,   SGD,       1,      "1 (linear: batch 256 / base 256)"),
    ("sqrt",    256,  1024,  ADAMW,     2,      "2 (sqrt: batch 1024 / base 256)"),
    ("sqrt",    256,  64,    ADAMW,     0.5,    "0.5 (sqrt: batch 64 / base 256)"),
    ("auto",    256,  1024,  SGD,       4,      "4 (linear: batch 1024 / base 256)"),
    ("auto",    256,  1024,  ADAMW,     2,      "2 (sqrt: batch 1024 / base 256)"),
    ("auto",    256,  1024,  PRODIGY,   1,      "1 (no batch-size scaling)"),  # finds its rate itself
]  # fmt: skip

REFUSED = [
    # rule     base   batch  optimizer  the sentence
    ("linaer", 256,   1024,  SGD,       "batch_scaling.rule is not a rule. Did you mean 'linear'? Accepted: auto, "),
    (None,     256,   1024,  SGD,       "batch_scaling.rule is not a rule. Did you mean 'none'?"),
    ("linear", None,  1024,  SGD,       "batch_scaling.base_batch_size must be a whole number >= 1. Received: None"),
    ("linear", 0,     1024,  SGD,       "batch_scaling.base_batch_size must be a whole number >= 1. Received: 0"),
    ("linear", 256.0, 1024,  SGD,       "batch_scaling.base_batch_size must be a whole number >= 1. Received: 256.0"),
    ("linear", True,  1024,  SGD,       "batch_scaling.base_batch_size must be a whole number >= 1. Received: True"),
    ("sqrt",   256,   None,  ADAMW,     "batch_scaling needs the batch size, which is not known: set data.batch_size"),
    ("auto",   256,   1024,  "my.Adam", "batch_scaling must not be auto: no rule is known for my.Adam; choose batch_s"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "base", "batch", "optimizer", "factor", "printed"), TABLE)
def test_the_factor(rule: str, base: Any, batch: Any, optimizer: str, factor: float, printed: str) -> None:
    scale = batch_scale(rule, base, batch, optimizer)
    assert scale.factor == factor
    assert str(scale) == printed
    assert scale == BatchScale() or (scale.batch, scale.base) == (batch, base)


@pytest.mark.parametrize(("rule", "base", "batch", "optimizer", "sentence"), REFUSED)
def test_what_cannot_be_meant(rule: Any, base: Any, batch: Any, optimizer: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_scale(rule, base, batch, optimizer)
    assert str(caught.value).startswith(sentence)


def test_every_rule_has_an_option_and_a_row() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {*RULES, "auto"} == {rule for rule, *_ in TABLE}
    for path in CONF.glob("*.yaml"):
        assert OmegaConf.load(path).rule == path.stem


@pytest.mark.parametrize("optimizer", FAMILIES)
def test_auto_has_a_rule_for_every_known_optimizer(optimizer: str) -> None:
    rule = {"sgd": "linear", "adaptive": "sqrt", "lr_free": "none"}[FAMILIES[optimizer].kind]
    assert batch_scale("auto", 64, 512, optimizer) == batch_scale(rule, 64, 512)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 1000))
def test_rules_are_relative_to_the_base_batch(base: int, batch: int, k: int) -> None:
    for rule in RULES:
        assert batch_scale(rule, base, base).factor == 1.0  # exactly: the base rate is left as it is
        assert batch_scale(rule, k * base, k * batch).factor == batch_scale(rule, base, batch).factor
        assert batch_scale(rule, base, batch + 1).factor >= batch_scale(rule, base, batch).factor
    linear, root = batch_scale("linear", base, batch).factor, batch_scale("sqrt", base, batch).factor
    assert linear == batch / base
    assert root == math.sqrt(linear)
