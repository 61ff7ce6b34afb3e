"""The groups of ``conf``, and their composition into a config and a plan."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.config.compose import CONF_DIR, accumulation, check, compose, plan, world_of
from lrkit.config.overrides import default_choices
from lrkit.config.shipped_options import SHARED, option_names, read_option, read_shipped_file
from lrkit.lightning.imports import Trainer
from lrkit.schedules.shapes import Linear, Schedule

FILES = sorted(CONF_DIR.rglob("*.yaml"))
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent.name not in (CONF_DIR.name, SHARED)]
SHAPES = ("schedule", "warmup", "cooldown")
PLANNED = (*SHAPES, "plateau", "batch_scaling", "param_groups")

#: Keys of the trainer that lrkit sets itself (from the groups logger and callbacks, and the run's folder) or omits.
LRKITS_OWN = {"logger", "callbacks", "default_root_dir", "model_registry"}


def said(overrides: list[str], **options: Any) -> str:
    """The error that composing and planning raises."""
    with pytest.raises(ConfigError) as caught:
        plan(compose(overrides, **options))
    return str(caught.value)


# --- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_every_file_begins_with_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    if lines[0] == "# @package _global_":  # Hydra's own line must come first
        lines = lines[1:]
    assert re.match(r"# \S", lines[0])
    assert len(lines[0]) <= 120
    assert "eta_min" not in path.read_text() and "T_max" not in path.read_text()


def test_every_folder_of_options_can_be_chosen_from() -> None:
    on_demand = {"experiment", "sweep", "launcher"}
    assert {group for group, _ in OPTIONS} - on_demand == set(default_choices())
    for group, option in default_choices().items():
        assert (group, option) in OPTIONS


SCHEDULES = [path for path in FILES if path.parent.name == "schedule" and path.stem != "custom"]  # of the user's class


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_schedule_is_called_as_its_class(path: Path) -> None:
    node: Any = OmegaConf.load(path)
    target = node.get("_target_") or node.schedule._target_
    module, _, name = target.rpartition(".")
    assert module == "lrkit.schedules"
    assert path.stem == re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("group", ["warmup", "cooldown"])
def test_the_other_shapes_are_called_as_their_class_too(group: str) -> None:
    for path in (CONF_DIR / group).glob("*.yaml"):
        node: Any = OmegaConf.load(path)
        assert path.stem == (node["_target_"].rpartition(".")[2].lower() if node else "none")


def test_every_public_schedule_has_a_file() -> None:
    module = importlib.import_module("lrkit.schedules")
    classes = [name for name in module.__all__ if issubclass(getattr(module, name), Schedule)]
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in classes}
    assert names - {"schedule", "endless"} == {path.stem for path in SCHEDULES}


def test_a_schedules_file_lists_its_arguments() -> None:
    """Each option lists all keys of its class; the options of every schedule come by its defaults list."""
    for path in SCHEDULES:
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        own = node.get("schedule", node)
        kind = getattr(importlib.import_module("lrkit.schedules"), own["_target_"].rpartition(".")[2])
        shared = read_shipped_file(f"{SHARED}/schedule.yaml")
        assert set(shared) == {field.name for field in dataclasses.fields(kind) if field.metadata.get("shared")}
        composed = compose([f"schedule={path.stem}"])["schedule"]
        assert composed == read_option("schedule", path.stem, "schedule")
        assert composed == {**shared, **{key: value for key, value in own.items() if key != "defaults"}}
        assert set(composed) - {"_target_"} == set(inspect.signature(kind).parameters) - {"overlap"}, path.stem
        assert not shared.keys() & own.keys(), path.stem


@pytest.mark.parametrize("group", ["warmup", "cooldown"])
def test_the_options_of_a_slot_come_by_its_defaults(group: str) -> None:
    shared = read_shipped_file(f"{SHARED}/{group}.yaml")
    for name in set(option_names(group)) - {"none"}:
        composed = compose([f"{group}={name}"])[group]
        assert composed == read_option(group, name, group)
        assert {key: composed[key] for key in shared} == shared
        for key, value in shared.items():
            assert getattr(Linear, key) == value


def test_the_trainer_file_is_lightnings_trainer() -> None:
    signature = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert signature >= LRKITS_OWN
    torchs = {"matmul_precision"}  # which Lightning advises to set, and has no argument for
    assert not torchs & signature
    assert set(OmegaConf.load(CONF_DIR / "trainer" / "default.yaml")) == signature - LRKITS_OWN | torchs


# --- composing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_every_option_composes(group: str, option: str) -> None:
    added = "+" if group not in default_choices() else ""
    chosen = [f"{added}{group}={option}"]
    if option == "custom":  # its class is the user's
        chosen.append(f"{group}._target_={'lrkit.schedules.Rex' if group == 'schedule' else 'my.Own'}")
    if option == "datasets":
        chosen.append("data.train._target_=my.Own")
    try:
        config = compose(chosen)
    except ConfigError as error:
        if group == "launcher" and "needs the package" in str(error):
            pytest.skip(str(error))
        raise
    assert set(default_choices()) <= set(config)
    if group in PLANNED:
        resolved = plan(config)
        assert resolved.horizon.steps == 570
        assert all(resolved.lr(rate, step) >= 0.0 for rate in resolved.groups for step in (0, 1, 285, 569, 570, 10**6))
        assert check(config) is not None


def test_what_is_composed_is_plain() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(inner) for key, inner in value.items())
        return (
            all(map(plain, value)) if type(value) is list else value is None or type(value) in (str, int, float, bool)
        )

    config = compose(["warmup=linear", "param_groups.rules=[{name:head,pattern:head}]"])
    assert type(config) is dict and plain(config)
    assert "hydra" not in config and "defaults" not in config


def test_hydra_is_left_as_it_was() -> None:
    before = GlobalHydra.instance().hydra
    marker: Any = object()
    GlobalHydra.instance().hydra = marker
    try:
        compose(["schedule=step"])
        assert GlobalHydra.instance().hydra is marker
        with pytest.raises(ConfigError):
            compose(["schedule=nope"])
        with pytest.raises(ConfigError):
            compose(["schedule.nope=1"])
        assert GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().hydra = before


def test_schedule_plateau_turns_the_group_on() -> None:
    config = compose(["schedule=plateau", "plateau.factor=0.5"])
    assert config["plateau"]["factor"] == 0.5
    resolved = plan(config)
    assert resolved.plateau is not None and resolved.plateau.factor == 0.5
    assert said(["schedule=plateau", "plateau=none"]).startswith("plateau must be set with schedule=plateau")


def test_one_key_may_refer_to_another() -> None:
    config = compose(
        ["schedule=inverse_sqrt", "warmup=linear", "warmup.length=57", "schedule.timescale=${warmup.length}"]
    )
    assert config["schedule"]["timescale"] == 57
    noam = plan(config).curve
    assert noam(57) == 1.0 and noam(57 + 3 * 57) == 0.5
    assert compose(["seed=3"])["data"]["seed"] == 3


def test_an_experiment_sets_several_keys_and_the_command_line_wins() -> None:
    config = compose(["+experiment=demo", "optimizer.lr=0.002", "schedule=step"])
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW" and config["optimizer"]["lr"] == 0.002
    assert config["schedule"]["_target_"] == "lrkit.schedules.Step"


# --- a folder of the user's own -------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> str:
    files = {
        "schedule/mine.yaml": "_target_: lrkit.schedules.Linear\nend: 0.25\n",
        "optimizer/momentum.yaml": "_target_: torch.optim.SGD\nlr: 0.0625\nmomentum: 0.5\n",
        "experiment/night.yaml": "# @package _global_\ndefaults:\n  - override /schedule: mine\nseed: 9\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return str(tmp_path)


def test_an_option_of_the_users_own_is_found(own: str) -> None:
    assert plan(compose(["schedule=mine"], own)).curve(570) == 0.25
    assert compose(["schedule=step"], own)["schedule"]["gamma"] == 0.1  # lrkit's are still there
    config = compose(["+experiment=night"], own)
    assert (config["seed"], config["schedule"]["end"]) == (9, 0.25)


def test_the_users_option_wins_over_lrkits_of_the_same_name(own: str) -> None:
    assert compose([], own)["optimizer"]["lr"] == 0.0625
    assert compose()["optimizer"]["lr"] == 0.1


def test_a_wrong_name_knows_the_users_options_too(own: str) -> None:
    assert said(["schedule=mien"], config_dir=own).startswith("schedule has no option 'mien'. Did you mean 'mine'?")
    assert said(["optimizer.momentun=1"], config_dir=own).startswith("optimizer.momentun is not a key. Did you mean")


def test_keys_in_the_users_files_are_checked(own: str) -> None:
    (Path(own) / "schedule" / "mine.yaml").write_text("_target_: lrkit.schedules.Linear\neta_min: 0.25\n")
    assert said(["schedule=mine"], config_dir=own).startswith("schedule.eta_min is not a key. Did you mean 'end'?")
    (Path(own) / "experiment" / "night.yaml").write_text("# @package _global_\nlearning_rate: 1\n")
    assert said(["+experiment=night"], config_dir=own).startswith(
        "learning_rate is not a key. Did you mean 'optimizer.lr'"
    )


# --- the batch of an optimizer step ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "accumulate", "steps"),
    [
        (["batch.effective=32"], 1, 38),
        (["batch.effective=128"], 4, 10),
        (["batch.effective=128", "trainer.devices=2"], 2, 10),
        (["batch.effective=128", "trainer.devices=2", "trainer.num_nodes=2"], 1, 10),
        (["batch.effective=128", "data.batch_size=64"], 2, 10),
        (["trainer.accumulate_grad_batches=4"], 4, 10),
    ],
)
def test_accumulation_follows_from_the_effective_batch(overrides: list[str], accumulate: int, steps: int) -> None:
    config = compose([*overrides, "batch_scaling=linear", "trainer.max_epochs=1"])
    assert accumulation(config, world_of(config["trainer"])[0]) == accumulate
    resolved = plan(config)
    assert resolved.horizon.steps == steps
    if "batch.effective=32" not in overrides:
        assert resolved.horizon.batch_size == 128 and resolved.scale.factor == 0.5


@pytest.mark.parametrize(
    ("devices", "world"),
    [(1, (1, False)), ("4", (4, False)), ([0, 2], (2, False)), ("0,1,2", (3, False)), ("auto", (1, True)),
     (-1, (1, True)), (None, (1, True))],
)  # fmt: skip
def test_how_many_devices_the_config_says(devices: object, world: tuple[int, bool]) -> None:
    assert world_of({"devices": devices}) == world
    assert world_of({"devices": devices, "num_nodes": 2}) == (2 * world[0], world[1])


def test_devices_that_are_not_known_are_remarked_upon() -> None:
    assert any("trainer.devices=auto" in line for line in plan(compose(["trainer.devices=auto"])).warnings)


# --- runs of unknown length -----------------------------------------------------------------------


def test_a_run_of_unknown_length_is_checked_as_far_as_possible() -> None:
    unknown = ["data=arrays", "data.path=x.csv"]
    assert check(compose(unknown)) is None
    assert "horizon.steps" in said(unknown)
    with pytest.raises(ConfigError, match=r"^schedule\.end must be >= 0"):
        check(compose([*unknown, "schedule.end=-1"]))
    resolved = check(compose([*unknown, "horizon.steps=100"]))
    assert resolved is not None and resolved.horizon.steps == 100
    assert check(compose([*unknown, "horizon.steps=2ep"])) is None  # an epoch is counted when there is data
    resolved = check(compose([*unknown, "horizon.steps=2ep", "horizon.steps_per_epoch=10"]))
    assert resolved is not None and resolved.horizon.steps == 20
