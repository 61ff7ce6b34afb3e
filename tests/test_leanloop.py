"""The lean loop against Lightning's own: equal hooks in equal order, equal logs, equal checkpoints to the bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Data, DictLoss, Manual, Net, Silent
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import DummyLogger
from test_lean import HOOKS
from torch import Tensor

import lrkit
from lrkit import assembly, leanloop
from lrkit.assembly import trainer_of
from lrkit.lean import AsOne, Unprofiled
from lrkit.leanloop import LeanEpoch
from lrkit.lightning import PACKAGE

pytestmark = [
    pytest.mark.skipif(PACKAGE != "pytorch_lightning", reason="it is made of what is private to pytorch_lightning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`"),
]

IN_A_STEP = [
    "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_validation_model_zero_grad", "on_train_epoch_start", "on_train_epoch_end",
]  # fmt: skip


class Says(Net):
    """Takes down each of its hooks, the rate and the name by which ``log`` goes; 8 batches of 8, the last of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Any] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        self.said.append(("training_step", self._current_fx_name, batch_idx, self.global_step))
        return super().training_step(batch, batch_idx)


def _saying(name: str) -> Callable[..., Any]:
    def hook(self: Says, *given: Any) -> Any:
        plain = [each for each in given if isinstance(each, int)]
        self.said.append(
            (name, self._current_fx_name, plain, self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        )
        return getattr(LightningModule, name)(self, *given)

    return hook


for each in IN_A_STEP:
    setattr(Says, each, _saying(each))


class Hears(Callback):
    """Takes down each of its hooks, in the same list."""


def _hearing(name: str) -> Callable[..., None]:
    def hook(self: Hears, trainer: Trainer, module: Any, *given: Any, **named: Any) -> None:
        loss = given[0] if name == "on_train_batch_end" else None
        said = {key: float(value) for key, value in loss.items()} if isinstance(loss, dict) else loss
        module.__dict__.setdefault("said", []).append(
            (f"callback {name}", module._current_fx_name, trainer.global_step, said)
        )

    return hook


for each in HOOKS:
    if each not in ("setup", "teardown", "on_save_checkpoint", "on_load_checkpoint"):
        setattr(Hears, each, _hearing(each))


class Took(DummyLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[Any] = []

    def log_metrics(self, metrics: Any, step: int) -> None:  # type: ignore[override]
        self.logged.append((step, dict(metrics)))


class Stops(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        if trainer.global_step == 3:
            trainer.should_stop = True


class Joins(Callback):
    """Brings another callback in the middle of an epoch."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 3:
            trainer.callbacks.append(Hears())  # type: ignore[attr-defined]


class Breaks(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        if trainer.global_step == 11:
            raise KeyboardInterrupt


class Ends(Says):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:  # type: ignore[override]
        return -1 if batch_idx == 3 else None


class Leaves(Says):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return None if batch_idx == 2 else super().training_step(batch, batch_idx)


class Bare(Says):
    def training_step(self, batch: dict[str, Tensor]) -> Any:  # type: ignore[override]
        return {"loss": super().training_step(batch, 0), "more": torch.ones(())}


class Moves(Says):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "features": batch["features"] * 2}


class OwnClip(Says):
    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **named: Any) -> None:
        self.said.append("clipped")


def fitted(
    folder: Path, lean: bool, module: LightningModule, again: str | None = None, data: Any = None, **options: Any
) -> tuple[dict[str, Any], Trainer]:
    """All that is to be seen of a fit, and its trainer."""
    logger = Took()
    defaults = {
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 3,
        "profiler": Unprofiled,
        "callbacks": [Hears()],
    }
    options = {name: value() if callable(value) else value for name, value in {**defaults, **options}.items()}
    trainer = Trainer(
        accelerator="cpu", logger=logger, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in options["callbacks"]), **options,
    )  # fmt: skip
    if lean:
        leanloop.install(trainer)
    torch.manual_seed(1)
    lrkit.configure(module, lr=0.1)
    # Lightning turns Ctrl-C into an exit.
    try:
        trainer.fit(module, data or Data(), ckpt_path=again)
    except (SystemExit, KeyboardInterrupt):
        assert trainer.interrupted
    trainer.save_checkpoint(folder / "saved.ckpt")
    saved = torch.load(folder / "saved.ckpt", weights_only=False)
    for state in saved["callbacks"].values():
        state.pop("time_elapsed", None)
        for name in [name for name in state if "path" in name or name in ("dirpath", "best_k_models")]:
            del state[name]
    return {"said": getattr(module, "said", []), "logged": logger.logged, "saved": saved, "rng": torch.rand(2)}, trainer


def same(a: Any, b: Any, at: str = "") -> None:
    """Equal to the bit, whatever it is made of."""
    assert type(a) is type(b), at
    if isinstance(a, dict):
        assert list(a) == list(b), at
        for key in a:
            same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        for i, (one, other) in enumerate(zip(a, b, strict=False)):
            same(one, other, f"{at}[{i}]")
        assert len(a) == len(b), at
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), at
    else:
        assert a == b or (a != a and b != b), at


def alike(make: Callable[[], LightningModule]) -> Callable[[], LightningModule]:
    """Makes modules that begin with the same weights."""

    def seeded() -> LightningModule:
        torch.manual_seed(0)
        return make()

    return seeded


def compare(tmp_path: Path, make: Callable[[], LightningModule], plain: bool = True, **options: Any) -> dict[str, Any]:
    ours, trainer = fitted(tmp_path / "ours", True, make(), **options)
    theirs, _ = fitted(tmp_path / "theirs", False, make(), **options)
    same(ours, theirs)
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, LeanEpoch) and (loop.plain is not None) is plain
    return ours


def stops_and_hears() -> list[Callback]:
    return [Stops(), Hears()]


def hears_as_one() -> list[Callback]:
    return [AsOne([Hears(), Callback()]), Stops()]


def hears_and_joins() -> list[Callback]:
    return [Hears(), Joins()]


def hears_and_saves() -> list[Callback]:
    return [Hears(), ModelCheckpoint(every_n_train_steps=3, save_last=True)]


def told(options: dict[str, Any]) -> str:
    """The same name in every process that collects the tests."""
    return ",".join(f"{key}={getattr(value, '__name__', value)}" for key, value in options.items()) or "nothing"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"limit_train_batches": 5, "log_every_n_steps": 1},
        {"val_check_interval": 3},
        {"val_check_interval": 0.5, "accumulate_grad_batches": 2},
        {"val_check_interval": 11, "check_val_every_n_epoch": None, "max_epochs": 3},
        {"val_check_interval": timedelta(seconds=0), "limit_train_batches": 3},
        {"check_val_every_n_epoch": 2},
        {"limit_val_batches": 0},
        {"max_epochs": -1, "max_steps": 11},
        {"min_steps": 6, "callbacks": stops_and_hears},
        {"gradient_clip_val": 0.01},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"fast_dev_run": 3},
        {"max_time": timedelta(hours=1)},
        {"callbacks": hears_as_one},
        {"callbacks": hears_and_joins, "val_check_interval": 3},
        {"callbacks": hears_and_saves},
        {"num_sanity_val_steps": 1, "inference_mode": False, "log_every_n_steps": 0},
    ],
    ids=told,
)
def test_a_run_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    ours = compare(tmp_path, alike(Says), **options)
    assert len(ours["said"]) > 30


@pytest.mark.filterwarnings("ignore:.* steps were planned")
@pytest.mark.parametrize("make", [Ends, Leaves, Bare, Moves, Silent, Net])
def test_a_module_may_do_what_it_may(tmp_path: Path, make: Callable[[], LightningModule]) -> None:
    compare(tmp_path, alike(make), accumulate_grad_batches=2, log_every_n_steps=1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (OwnClip, {}),
        (DictLoss, {"callbacks": list}),
        (Manual, {"callbacks": list}),
        (Says, {"precision": "64-true"}),
        (Says, {"profiler": "simple"}),
    ],
)
def test_what_is_not_plain_goes_by_lightnings_loop(
    tmp_path: Path, make: Callable[[], LightningModule], options: dict[str, Any]
) -> None:
    compare(tmp_path, alike(make), plain=False, max_epochs=1, **options)


@pytest.mark.parametrize(
    ("release", "options", "lean"),
    [
        ("2.6.6", {}, True),
        ("2.6.7", {}, False),
        ("2.7.0", {}, False),
        ("2.6.6", {"profiler": "simple"}, False),
    ],
)
def test_it_is_used_under_the_releases_that_it_is_known_to_equal(
    monkeypatch: pytest.MonkeyPatch, release: str, options: dict[str, Any], lean: bool
) -> None:
    monkeypatch.setattr(assembly, "__version__", release)
    plain = {"logger": False, "accelerator": "cpu", "enable_checkpointing": False}
    loop = trainer_of({**plain, **options, "min_steps": 3, "max_steps": 7}).fit_loop.epoch_loop
    assert isinstance(loop, LeanEpoch) is lean
    assert (loop.min_steps, loop.max_steps) == (3, 7)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 2}], ids=str)
def test_it_breaks_off_and_goes_on_as_lightning_does(tmp_path: Path, options: dict[str, Any]) -> None:
    broken, whole = {}, {}
    for lean in (True, False):
        folder = tmp_path / str(lean)
        callbacks = {"callbacks": lambda: [Hears(), Breaks()]}
        broken[lean], _ = fitted(folder, lean, alike(Says)(), **{**options, **callbacks, "max_epochs": 3})
        whole[lean], _ = fitted(
            folder, lean, alike(Says)(), again=str(folder / "saved.ckpt"), **{**options, "max_epochs": 3}
        )
    same(broken[True], broken[False])
    same(whole[True], whole[False])
    assert whole[True]["saved"]["global_step"] > broken[True]["saved"]["global_step"] == 11
