"""A run can be resumed with any content of its checkpoints; or it is refused before training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pickled_content
import pytest
import torch
from interrupted_runs import Interrupted, Stop
from pickled_content import KINDS, Given, Mode, Net

from lrkit.checkpoint.durable_io import read_checkpoint
from lrkit.cli.main import main
from lrkit.config.compose import compose
from lrkit.lightning.imports import PACKAGE, Trainer
from lrkit.training.run import run_training

pytestmark = pytest.mark.filterwarnings("ignore:the checkpoint is from the middle", "ignore:Attribute .* instance of")
READABLE = [kind for kind in KINDS if kind != "unreadable"]


@pytest.fixture(autouse=True)
def never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    Stop.at, Net.back = None, {}


def words(*more: str, model: str = "pickled_content.Net", data: str = "pickled_content.Data") -> list[str]:
    return ["model=custom", f"model._target_={model}", "data=custom", f"data._target_={data}",
            "data.batch_size=10", "trainer.max_epochs=3", "logger=none", *more]  # fmt: skip


def kinds(*names: str) -> str:
    return f"+model.kinds=[{','.join(names)}]"


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | torch.Tensor):
        return type(one) is type(other) and bool((one == other).all())
    if isinstance(one, dict):
        return all(equal(one[name], other[name]) for name in one)
    if isinstance(one, pickled_content.Scores):
        return type(one) is type(other) and equal(vars(one), vars(other))
    return type(one) is type(other) and one == other


def stopped(folder: Path, given: list[str], at: int) -> None:
    folder.mkdir(exist_ok=True)
    Stop.at = at
    with pytest.raises(Interrupted):
        run_training(compose([*given, "+callbacks.stop={_target_: interrupted_runs.Stop}"]), folder)
    Stop.at = None


def test_every_kind_is_gone_on_with_and_is_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(kinds(*READABLE), "+model.hook=array", "+callbacks.keeps={_target_: pickled_content.Keeps}")
    folder = tmp_path / "run"
    stopped(folder, given, 12)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "store as a text" in line]
    told = [f"hyper_parameters.my_{kind} (" for kind, (_, says) in KINDS.items() if says and kind != "unreadable"]
    assert line.startswith("lrkit: checkpoints store as a text: hyper_parameters.my_module (torch.")
    assert all(each in line for each in told) and line.count("hyper_parameters.my_") == len(told)
    assert "datamodule_hyper_parameters.transform" in line
    (entry,) = [e for e in json.loads((folder / "events.json").read_text()) if e["event"] == "checkpoint"]
    assert entry["step"] == 0 and f"lrkit: {entry['why']}" == line
    run_training(compose([*given, "~callbacks.stop", f"resume.path='{folder}'"]), folder, quiet=True)
    assert json.loads((folder / "metrics.json").read_text())["status"] == "done"
    assert [e["why"] for e in json.loads((folder / "events.json").read_text())].count(entry["why"]) == 1
    for kind in READABLE:
        make, says = KINDS[kind]
        found = Net.back[f"my_{kind}"]
        assert equal(found, make()) if says is None else type(found) is type(make())
    assert equal(
        Net.back["mine"], {"value": np.arange(3.0), "scores": pickled_content.Scores(0.5, np.arange(4.0), Mode.FAST)}
    )
    assert Net.back["data"] == 3 and equal(Net.back["callback"], np.full(2, 12.0))


@pytest.mark.parametrize("kind", ["module", "class", "enum"])
def test_what_a_hook_adds_is_told_once_at_the_first_checkpoint(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(compose(words(f"+model.hook={kind}", data="plain_lightning.Data")), tmp_path)
    said = capsys.readouterr().err
    assert said.count("store as a text") == said.count("mine.value (") == (0 if kind == "enum" else 1)


def test_an_object_is_the_one_that_the_program_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Objects in hyperparameters, hooks, data and callbacks are restored if type and place are the same."""
    given = words(
        "+callbacks.counts={_target_: pickled_content.Counts}",
        model="pickled_content.Wants",
        data="pickled_content.Scaled",
    )
    stopped(tmp_path / "run", given, 12)
    assert "a resumed run gets special.made as that text" in capsys.readouterr().err
    run_training(
        compose([*given, "~callbacks.stop", f"resume.path='{tmp_path / 'run'}'"]), tmp_path / "run", quiet=True
    )
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "done"
    back = Net.back
    assert back["scaler"] is back["own"] and back["copied"] == 7
    # What is read first stays for the module's hook alone, so it is asked for by itself.
    given = words(model="pickled_content.Wants", data="plain_lightning.Data")
    stopped(tmp_path / "two", given, 12)
    run_training(
        compose([*given, "~callbacks.stop", f"resume.path='{tmp_path / 'two'}'"]), tmp_path / "two", quiet=True
    )
    back = Net.back
    module = back["module"]
    assert back["hyper_parameters"]["criterion"] is back["special"]["criterion"] is module.criterion
    assert back["sum"] == 3 and back["scalers"]["a"]["b"] is module.scalers["a"]["b"]
    assert back["special"]["made"] == "<not plain data: pickled_content.Odd: Odd(2)>"  # `made` is no attribute


def test_a_hook_that_cannot_use_a_checkpoint_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    given = words(model="pickled_content.Wants", data="plain_lightning.Data")
    stopped(Path("run"), given, 12)
    capsys.readouterr()
    before = Path("run/checkpoints/last.ckpt").read_bytes()
    given += ["~callbacks.stop", "+model.loss=MultiMarginLoss"]
    assert main(["train", *given, "resume.path=run", "resume.policy=override"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "lrkit: resume.path cannot be resumed: Wants.on_load_checkpoint raised TypeError (cannot assign 'str' as"
        " child module 'criterion' (torch.nn.Module or None expected)); it got texts in place of"
        " hyper_parameters.criterion, special.criterion, special.made; resume.policy=restart restores only the weights."
    )
    assert Path("run/checkpoints/last.ckpt").read_bytes() == before


def test_one_checkpoint_by_whoever_writes_it(tmp_path: Path) -> None:
    """The user's own callback, by hand, and through a plugin of Lightning's."""
    (tmp_path / "run").mkdir()
    mine = "+callbacks.mine={_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: own, filename: mine}"
    hand = "+callbacks.hand={_target_: test_plain_data_callback.ByHand}"
    given = words(kinds("partial", "array"), "+model.hook=path", mine, hand, "trainer.enable_checkpointing=true")
    run_training(compose(given), tmp_path / "run", quiet=True)
    for file in (Path("own/mine.ckpt"), Path("by_hand.ckpt"), tmp_path / "run" / "checkpoints" / "best.ckpt"):
        content = torch.load(file, weights_only=True)
        assert content["hyper_parameters"]["my_partial"].startswith("<not plain data: functools.partial: functools")
        assert torch.equal(content["hyper_parameters"]["my_array"], torch.arange(3.0, dtype=torch.float64))
        assert content["mine"]["value"] == "a/b"
        assert isinstance(read_checkpoint(file)[0]["mine"]["value"], Path)


class ByHand(Stop):
    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint("by_hand.ckpt")


def test_without_checkpoints_of_its_own_and_with_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Trainer.__init__
    plugin = import_module(f"{PACKAGE}.plugins").AsyncCheckpointIO()
    monkeypatch.setattr(Trainer, "__init__", lambda self, **given: before(self, **{**given, "plugins": [plugin]}))
    given = words(kinds("partial"), "+callbacks.hand={_target_: test_plain_data_callback.ByHand}")
    run_training(compose([*given, "trainer.enable_checkpointing=false"]), tmp_path, quiet=True)
    plugin.teardown()
    assert not read_checkpoint(Path("by_hand.ckpt"))[1]


def test_what_the_reader_refuses_ends_the_run_before_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words(kinds("unreadable"))]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "lrkit: model has a hyper-parameter that torch.load(weights_only=True) cannot read,"
        " hyper_parameters.my_unreadable: use save_hyperparameters(ignore=['my_unreadable'])."
    )
    assert main(["train", *words("+model.hook=unreadable")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        "lrkit: the first checkpoint contains mine.value, which torch.load(weights_only=True) cannot read"
    )
    folder = max(Path("outputs/runs").iterdir())
    assert not [*folder.glob("checkpoints/*")]


@pytest.mark.parametrize("width", [3, 8])
def test_lightning_loads_what_it_can_and_says_what_it_must_be_given(width: int, tmp_path: Path) -> None:
    """load_from_checkpoint without lrkit: plain values are in their places, and it asks for the other values."""
    run_training(compose(words(f"+model.width={width}", model="pickled_content.given")), tmp_path, quiet=True)
    file = tmp_path / "checkpoints" / "best.ckpt"
    with pytest.raises(TypeError, match=r"missing 2 required positional arguments: 'net' and 'mode'"):
        Given.load_from_checkpoint(file)
    made = Given.load_from_checkpoint(file, net=torch.nn.Linear(3, 3), mode=Mode.FAST)
    assert made.body[0].out_features == width and made.hparams["where"] == "a"
    assert made.act == "<not plain data: function builtins.tanh>" or "tanh" in made.act


def test_plain_hyper_parameters_load_as_ever(tmp_path: Path) -> None:
    run_training(compose(words("+model.width=5", model="plain_lightning.Net")), tmp_path, quiet=True)
    import plain_lightning

    made = plain_lightning.Net.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert made.body[0].out_features == 5
