"""The choice between ``lightning`` and ``pytorch_lightning``: by the user's classes; a mixture is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from commands_in_one_process import commands

from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError
from lrkit.base.lightning_package import chosen_package, in_chosen_package, package_of, use_package
from lrkit.config.compose import compose
from lrkit.planning.plan import Plan

MODEL = "model=custom model._target_=uses_lightning.Net data=custom data._target_=uses_lightning.Data"
RUN = f"{MODEL} data.batch_size=8 optimizer=adamw optimizer.lr=0.01 warmup=linear warmup.length=3 trainer.max_epochs=2"


class Ours(pytorch_lightning.LightningModule):
    pass


class Theirs(lightning.pytorch.LightningModule):
    pass


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lightning_package, "_used", None)
    monkeypatch.delenv(lightning_package.VARIABLE, raising=False)
    yield


class TestChoice:
    def test_a_class_is_of_the_package_that_it_inherits_from(self) -> None:
        found = [package_of(cls) for cls in (Ours, Theirs, lightning.pytorch.Trainer, dict, None)]
        assert found == ["pytorch_lightning", "lightning.pytorch", "lightning.pytorch", None, None]

    def test_the_users_classes_decide(self, undecided: None) -> None:
        assert use_package({"model": dict, "data": Theirs}) == chosen_package() == "lightning.pytorch"
        assert use_package({}) == "lightning.pytorch"

    def test_without_any_it_is_pytorch_lightning(self, undecided: None) -> None:
        assert chosen_package() == use_package({"model": dict}) == "pytorch_lightning"

    def test_the_environment_decides_where_no_class_does(
        self, undecided: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(lightning_package.VARIABLE, "lightning")
        assert chosen_package() == "lightning.pytorch"
        assert use_package({"model": Ours}) == "pytorch_lightning"

    def test_what_it_names_must_be_one(self, undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(lightning_package.VARIABLE, "torch_lightning")
        with pytest.raises(ConfigError, match=r"^LRKIT_LIGHTNING must be a Lightning package\. .*pytorch_lightning"):
            chosen_package()

    def test_both_at_once_are_refused_by_their_names(self, undecided: None) -> None:
        with pytest.raises(
            ConfigError,
            match=r"^callbacks\.x\._target_ must come from lightning\.pytorch, as model\._target_ does "
            r"\(test_lightning_package\.Theirs\): .*Received: 'test_lightning_package\.Ours, from pytorch_lightning'",
        ):
            use_package({"model._target_": Theirs, "callbacks.x._target_": Ours})

    def test_a_process_keeps_to_one(self, undecided: None) -> None:
        use_package({"model": Ours})
        with pytest.raises(ConfigError, match=r"^model must come from pytorch_lightning, which this process already"):
            use_package({"model": Theirs})

    def test_what_is_lightnings_own_is_read_as_the_chosen_ones(self, undecided: None) -> None:
        spelt = ("pytorch_lightning.callbacks.Timer", "lightning.pytorch.callbacks.Timer", "lightning_x.Timer")
        assert [in_chosen_package(path) for path in spelt] == ["pytorch_lightning.callbacks.Timer"] * 2 + [spelt[2]]
        use_package({"model": Theirs})
        assert [in_chosen_package(path) for path in spelt] == ["lightning.pytorch.callbacks.Timer"] * 2 + [spelt[2]]

    def test_the_two_packages_may_be_named_alike(self) -> None:
        for package in lightning_package.LIGHTNING:
            compose(
                [f"+callbacks.x._target_={package}.callbacks.Timer", f"+logger.x._target_={package}.loggers.CSVLogger"]
            )


class TestByTheCommand:
    """In a process of its own: this one uses ``pytorch_lightning``."""

    def test_a_project_spelled_lightning_runs_whole(self, tmp_path: Path) -> None:
        theirs = (
            "+callbacks.own._target_=uses_lightning.SaysTrainer"
            " +callbacks.a._target_=lightning.pytorch.callbacks.LearningRateMonitor"
            " +callbacks.b={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss}"
            " +logger.own={_target_:uses_lightning.Table,save_dir:auto}"
        )
        whole, half, rest, mixed, twin, found = commands(
            tmp_path,
            f"train {RUN} {theirs} hydra.run.dir=whole",
            f"train {RUN} +callbacks.stop._target_=uses_lightning.Stop +callbacks.stop.step=6 hydra.run.dir=half",
            f"train {RUN} resume.path=half ~callbacks.stop",
            f"train {RUN} +callbacks.x._target_=uses_pytorch_lightning.Spoken",
            "train model=custom model._target_=uses_lightning.Twin",
            f"find {RUN} find.confirm=false",
        )
        assert whole[0] == 0, whole[1]
        assert "trained by lightning.pytorch.trainer.trainer" in whole[1]
        assert "train/own_loss" in whole[1] and "train/loss" not in whole[1]
        assert "configure_optimizers is replaced by this plan" in whole[1]
        rates = rows(next((tmp_path / "whole").rglob("metrics.csv")), "lr/default")
        plan = Plan.from_json(json.loads((tmp_path / "whole" / "plan.json").read_text()))
        assert rates == [plan.lr(plan.groups[0], t) for t in range(12)]
        assert any(tmp_path.glob("whole/**/events.out.tfevents*"))

        assert half[0] == 143 and rest[0] == 0, half[1] + rest[1]
        assert torch.equal(weights(tmp_path / "half"), weights(tmp_path / "whole"))

        assert mixed[0] == 2 and "callbacks.x._target_ must come from lightning.pytorch" in mixed[1]
        assert "uses_pytorch_lightning.Spoken, from pytorch_lightning" in mixed[1]
        assert twin[0] == 2 and "model._target_ has a training_step, but is not a LightningModule of" in twin[1]
        assert found[0] == 0 and "optimizer.lr=" in found[1].splitlines()[-1], found[1]


def weights(run: Path) -> torch.Tensor:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return torch.cat([value.flatten() for value in content["state_dict"].values()])


def rows(table: Path, column: str) -> list[float]:
    with table.open() as lines:
        return [float(row[column]) for row in csv.DictReader(lines) if row.get(column)]
