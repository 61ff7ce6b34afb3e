"""``trainer.matmul_precision`` holds during a training, and the process has its own setting again afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from short_runs import SHORT

from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.config.compose import compose, plan
from lrkit.lightning import matmul_precision
from lrkit.lightning.imports import Callback


class Look(Callback):
    """Notes the precision at each step; may fail."""

    seen: ClassVar[set[str]] = set()
    fails: ClassVar[bool] = False

    def on_train_batch_start(self, *_: Any) -> None:
        Look.seen.add(torch.get_float32_matmul_precision())
        if Look.fails:
            raise RuntimeError("as told")


@pytest.mark.parametrize("fails", [False, True])
def test_it_holds_during_the_training_only(
    fails: bool, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Look, "fails", fails)
    Look.seen.clear()
    config = ["trainer.matmul_precision=high", "+callbacks.look={_target_: test_matmul_precision.Look}", "logger=none"]
    if fails:
        with pytest.raises(RuntimeError, match="as told"):
            train(*config)
    else:
        train(*config)
    assert Look.seen == {"high"} and torch.get_float32_matmul_precision() == "highest"


def test_another_value_is_refused() -> None:
    must = r"trainer\.matmul_precision must be one of highest, high, medium"
    with pytest.raises(ConfigError, match=must):
        plan(compose(["trainer.matmul_precision=low"]))


NOTE = "note: trainer.matmul_precision=high computes float32 matrix products in TF32 on this GPU"


@pytest.mark.parametrize(
    ("words", "capability", "said"),
    [
        ([], (9, 0), 1),
        ([], (7, 5), 0),
        (["trainer.matmul_precision=highest"], (9, 0), 0),
        (["trainer.precision=bf16-mixed"], (9, 0), 0),
    ],
)
def test_a_gpu_that_could_be_faster_is_told_of_once(
    words: list[str], capability: tuple[int, int], said: int, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    real = matmul_precision.has_tf32
    monkeypatch.setattr(matmul_precision, "has_tf32", lambda _: real(torch.device("cuda")))
    assert main(["train", *SHORT, *words]) == 0
    out, err = capsys.readouterr()
    assert (out + err).count(NOTE) == said
