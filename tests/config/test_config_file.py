"""The whole config in a file, by ``--config``: the same plan anew, with overrides on top, and nothing unsafe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.config import yaml_screening
from lrkit.config.compose import check, compose, plan
from lrkit.config.config_file import read_config_file, write_config_file
from lrkit.config.documented_options import DocumentedOptions
from lrkit.config.overrides import default_choices
from lrkit.config.shipped_options import option_names

DECLARED = ["horizon.steps=60", "horizon.steps_per_epoch=6", "data.batch_size=8"]
CONFIGS = [
    [],
    ["schedule=step", "schedule.gamma=1e-3", "warmup=linear", "warmup.length=5%", "seed=3"],
    ["optimizer=adamw", "optimizer.lr=3e-4", "param_groups=no_decay", "schedule@coschedule.weight_decay=linear"],
    ["schedule=piecewise", "cooldown=sqrt", "batch_scaling=linear", "batch.effective=64"],
    ["schedule=formula", "schedule.formula=0.5*(1+cos(pi*u))", "guard=reduce", "logger=[csv,tensorboard]"],
    ["schedule=plateau", "guard=off", "plateau.patience=2", "callbacks=[ema,early_stopping]"],
    ["schedule=table", "schedule.table=[[0,1],[1,0.1]]", "horizon.stop_after=20"],
    ["optimizers={actor: {every: 2}, critic: {}}", "optimizer@optimizers.actor.optimizer=adam"],
]


def saved(folder: Path, words: Sequence[str], name: str = "config.yaml") -> str:
    file = folder / name
    write_config_file(file, compose(words))
    return f"config_file={file}"


@pytest.mark.parametrize("words", CONFIGS, ids=lambda words: " ".join(words)[:40])
def test_a_saved_config_is_the_same_config(tmp_path: Path, words: list[str]) -> None:
    config = {**compose([*DECLARED, *words]), "trust": []}  # the words may name loggers, and the file trusts nobody
    assert compose([saved(tmp_path, [*DECLARED, *words])]) == config
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = compose([f"config_file={tmp_path / 'config.json'}"])
    assert again == config and plan(again) == plan(config)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(default_choices()))
def test_each_option_of_a_group_is_the_same_from_a_file(tmp_path: Path, group: str) -> None:
    needs = {"data=arrays": ["data.path=a.csv"], "data=idx": ["data.path=a"], "data=huggingface": ["data.path=a"]}
    needs |= {"model=char_transformer": ["data=text"]}
    for option in option_names(group):
        word = f"{group}={option}"
        try:
            config = compose([word, *needs.get(word, [])])
        except ConfigError:
            continue  # it needs more words, such as a class of the user's
        write_config_file(tmp_path / "config.yaml", config)
        trusted = f"trust=[{','.join(config['trust'])}]"
        assert compose([f"config_file={tmp_path / 'config.yaml'}", trusted]) == config, word


def test_overrides_come_on_top(tmp_path: Path) -> None:
    file = saved(tmp_path, ["schedule=step", "schedule.gamma=0.3", "optimizer=adamw", "seed=3", "warmup=linear"])
    made = compose([file, "schedule.gamma=0.4", "seed=5", "optimizer.lr=0.5"])
    assert (made["schedule"]["gamma"], made["seed"], made["data"]["seed"], made["optimizer"]["lr"]) == (0.4, 5, 5, 0.5)
    other = compose([file, "schedule=cosine", "~warmup.start"])
    assert other["schedule"] == compose([])["schedule"] and "start" not in other["warmup"]
    assert other["optimizer"] == compose(["optimizer=adamw"])["optimizer"]
    with pytest.raises(ConfigError, match=r"^schedule\.gama is not a key. Did you mean 'gamma'"):
        compose([file, "schedule.gama=1"])


def test_what_the_file_lacks_has_its_default(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer: {lr: 3e-2}\nseed: 4\ndata: {seed: '${seed}'}\nguard: {}\n")
    made = compose([f"config_file={tmp_path / 'a.yaml'}"])
    assert made == compose(["optimizer.lr=0.03", "seed=4", "guard=off"])


def test_a_config_of_the_first_version_is_read() -> None:
    """It lacks keys that came later, and names classes by their earlier paths."""
    old = compose([f"config_file={Path(__file__).with_name('config_of_0.1.json')}"])
    now = compose(["schedule=plateau", "warmup=linear", "optimizer=adamw", "guard=reduce", "trainer.max_epochs=2"])
    assert old["plateau"]["_target_"] == now["plateau"]["_target_"] and old.keys() == now.keys()
    assert plan(old).curve == plan(now).curve
    check(old)


def test_it_is_one_of_two_saved_configs(tmp_path: Path) -> None:
    file = saved(tmp_path, [])
    with pytest.raises(ConfigError, match=r"^--config and resume\.path exclude each other"):
        compose([file, f"resume.path={tmp_path}"])
    config = compose([])
    config["resume"] = {"path": "outputs/runs/a", "policy": "cooldown"}
    write_config_file(tmp_path / "b.yaml", config)
    branched = f"config_file={tmp_path / 'b.yaml'}"
    with pytest.raises(ConfigError, match=r"^--config is the config of a run that began from .*outputs/runs/a"):
        compose([branched])
    assert compose([branched, "resume.policy=null"])["resume"] == {"path": None, "policy": None}


BAD: list[tuple[str, str]] = [
    ("a: !!python/object/apply:os.system [ls]", "it has the tag tag:yaml.org"),
    ("a: [1", "is not YAML"),
    ("3", "must be the whole config of a run"),
    ("defaults: [a]", "its defaults choose options"),
    ("optimizer: {lr: '${oc.env:HOME}'}", "must not read the environment"),
    ("optimizer: {lr: '${lr}'}", "cannot be resolved"),
    ("nope: 3", "nope is not a key"),
    ("optimizer: 3", "must be the config of a run, and config.optimizer"),
    ("seed: 1\nseed: 2", "has the key seed twice"),
    ("hydra: {run: {dir: x}}", "hydra is not a key"),
    ("logger: {a: {_target_: pytorch_lightning.loggers.CSVLogger, save_dir: 's3://b'}}", "is an address"),
    ("model: {_target_: mycode.Net}", "--trust mycode"),
    ("model: {_target_: mycode.Net}\ntrust: [mycode]", "--trust mycode"),
    ("model: {_target_: os.system}", "which config files may not name"),
]


@pytest.mark.parametrize(("text", "must"), BAD)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, must: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert main(["show", "--config", str(tmp_path / "a.yaml")]) == 2
    said = capsys.readouterr().err
    assert must in said and said.count("\n") == 1


def test_a_class_of_the_file_is_trusted_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {_target_: mycode.Net}\ntrust: [mycode]\n")
    file = f"config_file={tmp_path / 'a.yaml'}"
    assert compose([file, "trust=[mycode]"])["model"]["_target_"] == "mycode.Net"
    assert compose([file, "model._target_=mycode.Net"])["trust"] == ["mycode.Net"]


@pytest.mark.parametrize(
    ("words", "must"),
    [
        (["show", "--config"], "--config must be a file with the config of a run: outputs/runs/RUN/config.yaml"),
        (["show", "--config", "missing.yaml"], "Received: 'missing.yaml'"),
        (["show", "--config=."], "config.yaml is one. Received: '.'"),
        (["train", "--config", "config.yaml", "--config", "config.yaml"], "--config is given twice"),
        (["train", "--config", "config.yaml", "--info", "config"], "--config does not go with these flags"),
        (["train", "--config", "config.yaml", "hydra.job.name=x"], "hydra.job.name does not apply to a saved config"),
        (["train", "-m", "--config", "config.yaml", "seed=1,2", "+launcher=joblib"], "--config does not go with a"),
        (["compare", "--config", "config.yaml"], "--config is not a flag of lrkit compare"),
    ],
)  # fmt: skip
def test_the_flag_is_refused_where_it_means_nothing(
    elsewhere: None, capsys: pytest.CaptureFixture[str], words: list[str], must: str
) -> None:
    saved(Path(), [])
    assert main(words) == 2
    assert must in capsys.readouterr().err


def test_commands_take_the_file(tmp_path: Path, elsewhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "it's, a=1"
    folder.mkdir()
    saved(folder, ["schedule=step", "optimizer.lr=0.3"])
    assert main(["show", "--config", str(folder / "config.yaml"), "schedule.gamma=0.4", "format=json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (shown["base_lr"], shown["config"]["schedule"]["gamma"]) == (0.3, 0.4)
    assert main(["train", f"--config={folder / 'config.yaml'}", "--cfg", "job", "seed=9"]) == 0
    assert "seed: 9\n" in capsys.readouterr().out
    assert main(["show", "-m", "--config", str(folder / "config.yaml"), "seed=1,2", "format=csv"]) == 0
    assert capsys.readouterr().out.count("# seed=") == 0  # the values alone: one key is swept


@pytest.mark.slow
def test_a_run_is_trained_anew_to_the_bit(elsewhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["trainer.max_epochs=1", "logger=none"]
    assert main(["train", "schedule=step", "warmup=linear", "seed=5", *short, "hydra.run.dir=a"]) == 0
    assert main(["train", "--config", "a/config.yaml", "hydra.run.dir=b"]) == 0
    one, two = (json.loads(Path(run, "metrics.json").read_text()) for run in "ab")
    assert one["final"] == two["final"] and one["best"] == two["best"]
    assert Path("a/plan.json").read_text() == Path("b/plan.json").read_text()
    assert Path("a/config.json").read_text() == Path("b/config.json").read_text()
    (start,) = json.loads(Path("b/environment.json").read_text())["starts"]
    assert start["command"] == "lrkit train --config a/config.yaml hydra.run.dir=b"
    words = ["train", "--config", "a/config.yaml", "-m", "seed=5,6", "hydra.sweep.dir=c"]
    assert main(words) == 0
    jobs = sorted(Path("c").glob("*/metrics.json"))
    assert json.loads(jobs[0].read_text())["final"] == one["final"] and len(jobs) == 2
    capsys.readouterr()
    assert main(words) == 0
    assert "2 of 2 jobs are done" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["config_file", "config_dir", "help"])
def test_a_file_that_is_replaced_after_its_check_has_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    file = tmp_path / "optimizer" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("lr: 0.25  # checked\n" if way != "config_file" else "optimizer: {lr: 0.25}\n")
    parse = yaml_screening.parse_plain

    def parse_and_replace(name: str, text: bytes) -> Any:
        content = parse(name, text)
        if Path(name) == file:
            file.write_text("lr: ${oc.env:HOME}  # replaced\n")
        return content

    monkeypatch.setattr(yaml_screening, "parse_plain", parse_and_replace)
    if way == "config_file":
        lr = read_config_file(str(file))["optimizer"]["lr"]
    elif way == "config_dir":
        words = ["optimizer=mine", "+optimizer._target_=torch.optim.SGD"]
        lr = compose(words, str(tmp_path))["optimizer"]["lr"]
    else:
        (key,) = DocumentedOptions(str(tmp_path)).read("optimizer", "mine").keys
        lr = float(key.default)
    assert lr == 0.25 and "replaced" in file.read_text()
