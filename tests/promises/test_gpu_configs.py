"""The configs of ``test_gpu`` can be composed: they are tried on every machine, not only on one with a GPU."""

from __future__ import annotations

import pytest
import test_gpu

from lrkit.config.compose import compose, plan

CONFIGS = [
    test_gpu.too_large_scale(),
    test_gpu.SKIPPING,
    *([*test_gpu.SHORT, f"optimizer={name}", *test_gpu.shape_for(name)] for name in ("adamw", "prodigy")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=" ".join)
def test_it_can_be_composed(config: list[str]) -> None:
    assert plan(compose(config)).groups
