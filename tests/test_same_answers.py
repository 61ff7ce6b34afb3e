"""`lrkit show` and `lrkit train` answer alike: for each key of each option of each group, a value of a wrong type.

Training is stopped where it would read data, or begin; nothing is written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lrkit import config as configs
from lrkit.data import InMemoryData
from lrkit.errors import ConfigError
from lrkit.lightning import Trainer
from lrkit.overrides import defaults, leaves
from lrkit.trusted import TARGET

WRONG: list[Any] = [
    float("nan"), float("inf"), -1, 0, 2.5, 10**400, True, "x", "1", "", [], [1, "x"], {"a": 1}, None,
]  # fmt: skip

#: What nobody can know without the data, the machine, or a class that is not lrkit's.
KNOWN_LATER = ("horizon.", "logger.", "callbacks.", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
               "trainer.accelerator", "trainer.barebones", "trainer.precision")  # fmt: skip


#: Groups without a key in some option: what stands there is looked at when it is composed.
EMPTY = (*defaults(), "coschedule", "optimizers")


class Reached(Exception):
    """Nothing was refused, and the training would begin."""


def base(group: str, option: str) -> dict[str, Any]:
    more = {"data=arrays": ["data.path=a.csv"], "data=idx": ["data.path=a"], "data=huggingface": ["data.path=a"]}
    words = [f"{group}={option}", *more.get(f"{group}={option}", [])]
    if group == "data":
        words += ["model=linear", "trainer.max_epochs=-1", "trainer.max_steps=9"]
    return configs.compose([*words, "logger=none", "trainer.accelerator=cpu"])


def choices() -> Iterator[tuple[str, str]]:
    for group in sorted(defaults()):
        for path in sorted((configs.CONF_DIR / group).glob("*.yaml")):
            if path.stem not in ("custom", "module") and group not in ("logger", "callbacks", "hydra/job_logging"):
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
    from lrkit.train import run

    try:
        run(config, folder, quiet=True)
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
        self.inputs, self.outputs, self.loss, self.train_count = (1, 64, 64), 10, "cross_entropy", 1000

    monkeypatch.setattr(Trainer, "fit", fit)
    monkeypatch.setattr(InMemoryData, "setup", setup)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cases() -> list[tuple[str, str, str, Any]]:
    found, seen = [], set()
    for group, option in choices():
        base_of[group, option] = base(group, option)
        target = base_of[group, option][group].get(TARGET, "")
        for key in leaves({group: base_of[group, option][group]}):
            if (
                (target, key) not in seen
                and key not in EMPTY
                and not key.startswith(KNOWN_LATER)
                and not key.endswith("_")
            ):
                seen.add((target, key))
                found += [(group, option, key, value) for value in WRONG]
    own = [key for key in leaves(base_of["schedule", "cosine"]) if key.partition(".")[0] not in EMPTY]
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
    assert _differ(cases(), stopped) == []
