"""LightningModules and LightningDataModules written for plain Lightning run unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plain_lightning import UnitGradient
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError

LIMITS = ("trainer.limit_train_batches=null", "trainer.limit_val_batches=null", "trainer.max_epochs=2")


def custom(model: str, data: str = "Data", *more: str) -> list[str]:
    return ["model=custom", f"model._target_=plain_lightning.{model}", "data=custom",
            f"data._target_=plain_lightning.{data}", *LIMITS, *more]  # fmt: skip


class TestForeign:
    @pytest.mark.parametrize(
        ("model", "data"), [("Net", "Data"), ("DictLoss", "Data"), ("Manual", "Data"), ("Silent", "OnlyTraining")]
    )
    def test_rates_are_the_plans(self, model: str, data: str, train: Callable[..., Any], recorded: Recorded) -> None:
        run = train(*custom(model, data), "data.batch_size=10", "optimizer=adamw", "warmup=linear", "warmup.length=3")
        assert run.plan.horizon.steps == len(recorded) == 12  # 60 samples in batches of 10, twice
        assert [s["default"][0] for s in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(12)]

    def test_its_configure_optimizers_is_replaced_and_the_plan_says_so(self, train: Callable[..., Any]) -> None:
        run = train(*custom("Net"), "data.batch_size=10")
        assert "Net.configure_optimizers is replaced by this plan" in run.plan.warnings
        assert not train(*custom("Silent", "OnlyTraining"), "data.batch_size=10").plan.warnings

    def test_arguments_reach_it_and_rules_see_its_parameters(self, train: Callable[..., Any]) -> None:
        run = train(*custom("Net"), "data.batch_size=10", "+model.width=3", "+data.n=30",
                    "param_groups.rules=[{name: head, pattern: '^head', lr_scale: 10}]")  # fmt: skip
        assert [(g.name, g.lr_scale) for g in run.plan.groups] == [("head", 10.0), ("default", 1.0)]
        assert run.plan.horizon.steps == 6

    def test_the_batch_size_comes_from_its_loader(self, train: Callable[..., Any]) -> None:
        run = train(*custom("Net", "FixedData"), "batch_scaling=linear", "batch_scaling.base_batch_size=6",
                    "trainer.accumulate_grad_batches=2")  # fmt: skip
        assert (run.plan.scale.batch, run.plan.scale.factor, run.plan.horizon.steps) == (24, 4.0, 6)

    def test_its_size_can_be_declared_and_must_then_be_true(self, train: Callable[..., Any]) -> None:
        run = train(*custom("Net"), "data.batch_size=10", "data.train_samples=60", "warmup=linear")
        assert run.plan.horizon.steps == 12
        with pytest.raises(
            ConfigError, match=r"^data\.train_samples does not match the data: the plan has 10 steps .* 12 "
        ):
            train(*custom("Net"), "data.batch_size=10", "data.train_samples=50")

    def test_the_last_window_of_accumulation_has_its_full_weight(self, train: Callable[..., Any]) -> None:
        UnitGradient.seen.clear()
        train(*custom("UnitGradient", "OnlyTraining"), "data.batch_size=6", "trainer.accumulate_grad_batches=4")
        assert UnitGradient.seen == [1.0] * 6  # 10 batches in windows of 4, 4 and 2, twice

    def test_its_validation_loss_is_found(self, train: Callable[..., Any]) -> None:
        run = train(*custom("Net"), "data.batch_size=10")
        assert run.monitor == "val_loss" and "val_loss" in run.best

    def test_plateau_names_what_it_logs(self, train: Callable[..., Any], recorded: Recorded) -> None:
        with pytest.raises(ConfigError, match=r"^plateau\.monitor names .* Did you mean 'val_loss'"):
            train(*custom("Net"), "data.batch_size=10", "plateau=reduce")
        assert not recorded
        train(*custom("Net"), "data.batch_size=10", "plateau=reduce", "plateau.monitor=val_loss")

    def test_a_misspelt_argument_is_named(self, train: Callable[..., Any]) -> None:
        with pytest.raises(ConfigError, match=r"^model\.widht is not a key\. Did you mean 'width'"):
            train(*custom("Net"), "data.batch_size=10", "+model.widht=3")

    def test_its_own_network_in_lrkits_module(self, train: Callable[..., Any]) -> None:
        run = train("model=custom", "model._target_=torch.nn.Linear", "+model.in_features=64", "+model.out_features=10")
        assert run.monitor == "val/loss"
