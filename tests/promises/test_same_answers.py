"""`lrkit show` and `lrkit train` give the same answer to a value of a wrong type, for each key of each option.

The run is stopped before it reads data or begins to train; no file is written.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrkit import data, models
from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.config import compose as configs
from lrkit.config import node_options, trainer_options
from lrkit.config.instantiate import arguments
from lrkit.config.near_names import suggest_name
from lrkit.config.overrides import default_choices, leaf_paths
from lrkit.config.trusted_targets import TARGET
from lrkit.data import arrays, text
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.imports import PACKAGE, Trainer

WRONG: list[Any] = [
    float("nan"), float("inf"), -1, 0, 2.5, 10**400, True, "x", "1", "", [], [1, "x"], {"a": 1}, None,
]  # fmt: skip

#: Refusals that need the data, the machine, or a class that is not lrkit's.
KNOWN_LATER = ("trust", "horizon.", "logger.", "callbacks.", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
               "data.download", "trainer.accelerator", "trainer.precision")  # fmt: skip


#: Groups without a key in some option: their values are checked when the config is composed.
EMPTY = (*default_choices(), "coschedule", "optimizers")


class Reached(Exception):
    """Nothing was refused, and the training would begin."""


def base(group: str, option: str) -> dict[str, Any]:
    more = {
        "data=arrays": ["data.path=a.csv"],
        "data=idx": ["data.path=a"],
        "data=huggingface": ["data.path=a"],
        "model=char_transformer": ["data=text"],
    }
    words = [f"{group}={option}", *more.get(f"{group}={option}", [])]
    if group == "data":
        words += ["model=linear", "trainer.max_epochs=-1", "trainer.max_steps=9"]
    return configs.compose([*words, "logger=none", "trainer.accelerator=cpu"])


def choices() -> Iterator[tuple[str, str]]:
    for group in sorted(default_choices()):
        for path in sorted((configs.CONF_DIR / group).glob("*.yaml")):
            if path.stem not in ("custom", "datasets", "module") and group not in (
                "logger",
                "callbacks",
                "hydra/job_logging",
            ):
                yield group, path.stem


def changed(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with another value at a dotted key."""
    made = copy.deepcopy(dict(config))
    node: Any = made
    *above, name = key.split(".")
    for each in above:
        node = node[each]
    node[name] = value
    return made


def shown(config: dict[str, Any]) -> str:
    try:
        configs.plan(config)
    except ConfigError as error:
        return str(error)
    except Exception as error:
        return repr(error)
    return ""


def trained(config: dict[str, Any], folder: Path) -> str:
    from lrkit.training.run import run_training

    try:
        run_training(config, folder, quiet=True)
    except ConfigError as error:
        return str(error)
    except Reached:
        return ""
    except Exception as error:
        return f"train: {error!r}"
    raise AssertionError("it was to be stopped")


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def fit(*_: Any, **__: Any) -> None:
        raise Reached

    def setup(self: InMemoryData, stage: str | None = None) -> None:
        self.inputs = 64 if isinstance(self, text.Text) else (1, 64, 64)
        self.outputs, self.loss, self.train_count = 10, "cross_entropy", 1000

    monkeypatch.setattr(Trainer, "fit", fit)
    monkeypatch.setattr(InMemoryData, "setup", setup)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cases() -> list[tuple[str, str, str, Any]]:
    found, seen = [], set()
    for group, option in choices():
        base_of[group, option] = base(group, option)
        target = base_of[group, option][group].get(TARGET, "")
        for key in leaf_paths({group: base_of[group, option][group]}):
            if (
                (target, key) not in seen
                and key not in EMPTY
                and not key.startswith(KNOWN_LATER)
                and not key.endswith("_")
            ):
                seen.add((target, key))
                found += [(group, option, key, value) for value in WRONG]
    own = [key for key in leaf_paths(base_of["schedule", "cosine"]) if key.partition(".")[0] not in EMPTY]
    found += [("schedule", "cosine", key, value) for key in own for value in WRONG if not key.startswith(KNOWN_LATER)]
    return found


base_of: dict[tuple[str, str], dict[str, Any]] = {}


def _differ(some: list[tuple[str, str, str, Any]], folder: Path) -> list[str]:
    wrong = []
    for number, (group, option, key, value) in enumerate(some):
        config = changed(base_of[group, option], key, value)
        place = folder / str(number)
        place.mkdir()
        said = shown(copy.deepcopy(config)), trained(config, place)
        if said[0] != said[1]:
            wrong.append(f"{group}={option} {key}={value!r}: {said}"[:400])
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_value_of_any_key_is_answered_alike(stopped: Path) -> None:
    some = cases()
    assert len({key for _, _, key, _ in some}) > 150
    # A value or two of each key, another for each: the slow test takes all.
    assert _differ([case for i, case in enumerate(some) if i % (len(WRONG) - 1) == 0], stopped) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_wrong_value_of_every_key_is_answered_alike(stopped: Path) -> None:
    wrong = _differ(cases(), stopped)
    assert not wrong, "\n".join(wrong)


def test_the_options_of_own_classes_are_those_of_the_constructors() -> None:
    own = {f"lrkit.data.{name}": getattr(data, name) for name in data.__all__}
    own |= {f"lrkit.models.{name}": getattr(models, name) for name in models.__all__}
    for name in ("Datasets", "InMemoryData", "ModuleLoaders", "Splits"):  # for the user's, or without an option
        del own[f"lrkit.data.{name}"]
    assert own.keys() == node_options.OPTIONS.keys()
    for path, cls in own.items():
        assert set(inspect.signature(cls).parameters) == set(node_options.OPTIONS[path])
        with pytest.raises(ConfigError) as built:
            arguments(cls, {"nope": 1}, "data")
        with pytest.raises(ConfigError) as checked:
            node_options.check("data", {"_target_": path, "nope": 1}, suggest_name)
        assert str(built.value) == str(checked.value)


#: Good arguments of the classes that want some.
NEEDED: dict[str, dict[str, Any]] = {
    "data": {"batch_size": 8},
    "lrkit.data.Idx": {"path": "a"},
    "lrkit.data.Arrays": {"path": "a.csv"},
    "lrkit.data.Torchvision": {"name": "MNIST"},
    "lrkit.data.HuggingFace": {"path": "a"},
    "model": {"inputs": [1, 64, 64], "outputs": 10},
    "lrkit.models.CharTransformer": {"inputs": 64},
}


@pytest.mark.parametrize("path", node_options.OPTIONS)
def test_constructors_refuse_in_the_same_words(path: str) -> None:
    """If the constructor refuses a value, its message in Python is that of the command."""
    module, _, name = path.rpartition(".")
    kind = "data" if module == "lrkit.data" else "model"
    cls = getattr(data if kind == "data" else models, name)
    good = {**NEEDED[kind], **NEEDED.get(path, {})}
    cls(**good)
    node_options.check(kind, {"_target_": path, **good}, suggest_name)
    compared = 0
    for option, value in itertools.product(node_options.OPTIONS[path], WRONG):
        if option in ("inputs", "options", "x", "y", "target"):
            continue
        try:
            cls(**{**good, option: value})
            built = ""
        except ConfigError as error:
            built = str(error)
        try:
            node_options.check(kind, {"_target_": path, **good, option: value}, suggest_name)
            checked = ""
        except ConfigError as error:
            checked = str(error)
        assert built == checked, (option, value)
        compared += built != ""
    assert compared > 10


def test_the_names_of_lightning_are_its_own() -> None:
    def found(module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)

    strategies = found("strategies", "StrategyRegistry").available_strategies()
    accelerators = found("accelerators", "AcceleratorRegistry").available_accelerators()
    anew = [name for name in strategies if trainer_options._starts_new_processes(name)]
    assert {"auto", *anew} == set(trainer_options.STRATEGIES)
    assert {"auto", "gpu", *accelerators} == set(trainer_options.ACCELERATORS)
    with pytest.raises(found("utilities.exceptions", "MisconfigurationException")) as refused:
        Trainer(profiler="nope", logger=False, accelerator="cpu")
    assert str([*trainer_options.PROFILERS]) in str(refused.value)
    assert set(inspect.signature(Trainer).parameters) - {
        "callbacks",
        "logger",
        "default_root_dir",
        "model_registry",
    } | {"matmul_precision"} == {*configs.compose([])["trainer"]}  # which is torch's


X, Y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2
FILES: list[tuple[dict[str, Any] | str, str]] = [
    (
        {"x_train": X, "y_train": Y, "x_val": X[:6], "y_val": np.arange(6) % 3},
        "data.path must have every class among the training samples; these are in val only. Received: [2]",
    ),
    (
        {"x_train": X, "y_train": np.array(["a", "b"] * 10), "x_test": X[:3], "y_test": np.array(["a", "c", "d"])},
        "data.path must have every class among the training samples; these are in test only. Received: ['c', 'd']",
    ),
    ({"x": X[:0], "y": Y[:0]}, "data.path must have samples: the array x is empty. Received: (0, 3)"),
    (
        {"x_train": X, "y_train": Y, "x_val": X[:0], "y_val": Y[:0]},
        "data.path must have samples: the array x_val is empty. Received: (0, 3)",
    ),
    ({"x": X[:, :0], "y": Y}, "data.path must have samples: the array x is empty. Received: (20, 0)"),
    ("a,a,y\n1,2,0\n3,4,1\n", "data.path must not have two columns with the same name. Received: 'a'"),
    ("a,b,y\n", "data.path must have at least two lines. Received: 1"),
    ("", "data.path must have at least two lines. Received: 0"),
]


@pytest.mark.parametrize(("content", "expected"), FILES)
def test_data_that_cannot_be_trained_on_is_refused(
    content: dict[str, Any] | str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = "a.csv" if isinstance(content, str) else "a.npz"
    if isinstance(content, str):
        Path(file).write_text(content)
    else:
        np.savez(file, **content)
    with pytest.raises(ConfigError) as caught:
        arrays.Arrays(batch_size=4, path=file).setup()
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("data=arrays data.path=a.npz data.target=b", "data.target must be null for an .npz file, …"),
        ("data=arrays data.path=a.txt", "data.path must end in .npz or .csv. Received: 'a.txt'"),
        ("data=arrays", "data.path must be an .npz or .csv file. Received: None"),
        ("data.seed=-1", "data.seed must be a whole number >= 0. Received: -1"),
        ("+data.foo=1", "data.foo is not a key. …"),
        ("model.hidden=[a]", "model.hidden must be a list of whole numbers >= 1. Received: ['a']"),
        ("model.dropout=nan", "model.dropout must be in [0, 1). Received: nan"),
        ("data=text model=char_transformer model.heads=5", "model.width must be a multiple of model.heads (5). …"),
        ("guard=skip +guard.far=5", "guard.far has no effect under guard.policy=skip: choose guard=skip. Received: 5"),
        ("trainer.limit_val_batches=0 monitor=val/loss", "monitor needs a validation, and trainer.limit_val_batches …"),
        ("schedule=one_cycle schedule.momentum_peak=1", "schedule.momentum_peak must be below 1: …"),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused_by_both(
    words: str, expected: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for command in ("show", "train"):
        assert main([command, *words.split()]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and said[0].startswith("lrkit: " + expected.partition("…")[0])


def test_the_report_of_a_profiler_is_shown(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    train("trainer.profiler=simple", "trainer.limit_train_batches=2")
    assert "Profiler Report" in caplog.text  # without pytest's handlers, Lightning's own prints it
