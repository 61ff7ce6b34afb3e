"""Untrusted config files: refusals before Hydra or OmegaConf reads them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.cli import main
from lrkit.config.compose import CONF_DIR, compose
from lrkit.config.overrides import hydra_initialised
from lrkit.config.swept_config import sweep_of_files
from lrkit.config.yaml_screening import DEEPEST, LARGEST, MOST, WIDEST, count_expanded, load_plain, read_screened

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_it(text: str, name: str = "experiment/x.yaml") -> Path:
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write_it


def refusal(file: Path, *overrides: str) -> str:
    """Return the message of composing with the file, which comes at once and names the file."""
    own = next(folder for folder in file.parents if folder.name == "own")
    words = overrides or (f"+{file.parent.relative_to(own)}={file.stem}",)
    since = time.process_time()
    with pytest.raises(ConfigError) as caught:
        compose(words, str(own))
    assert time.process_time() - since < 1
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message, message
    return message.removeprefix(f"{file} ")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"must have at most {MOST} nodes, each alias counted with the nodes of its anchor."),
        ("a: &a [*a]", "has an alias before the end of its anchor: *a."),
        ("x: " + "[" * 100_000, f"must not be nested deeper than {DEEPEST}."),
        ("x: " + "{a: " * 100_000, f"must not be nested deeper than {DEEPEST}."),
        ("x: " + "y" * LARGEST, f"must not be larger than {LARGEST} bytes. Received: {LARGEST + 3}"),
        ("\n".join(f"k{i}: 1" for i in range(MOST)), f"must have at most {MOST} nodes"),
        ("seed: 1\ntest: true\nseed: 2", "has the key seed twice (line 3)."),
        (
            "!!python/object/apply:os.system ['touch owned']",
            "must be plain data without tags: it has the tag tag:yaml.org,2002:py",
        ),
        ("a: !!python/name:os.system ''", "must be plain data without tags: it has the tag"),
        ("a: !!binary aGk=", "must be plain data without tags: it has the tag"),
        ("a: [1, 2", "is not YAML: did not find expected"),
        ("a: \x00", "is not YAML: control characters are not allowed"),
        ("a: 1\n---\nb: 2", "is not YAML: but found another document (line 2)."),
    ],
    ids=lambda part: part[:24],
)
def test_a_file_that_is_not_a_small_plain_one(text: str, message: str, write: Write) -> None:
    assert refusal(write(text)).startswith(message)


HYDRA = [
    (
        'hydra: {job_logging: {formatters: {a: {"()": torch.load}}}}',
        "must not set hydra.job_logging, only hydra.sweep",
    ),
    ("hydra: {callbacks: {x: {_target_: builtins.open, file: owned}}}", "must not set hydra.callbacks"),
    ("hydra: {job: {env_set: {LD_PRELOAD: evil.so}}}", "must not set hydra.job"),
    ("hydra: {run: {dir: /}}", "must not set hydra.run"),
    ("hydra: {searchpath: [file:///elsewhere]}", "must not set hydra.searchpath"),
    ("hydra: {sweeper: {params: {seed: '1,2'}, _target_: evil.Sweeper}}", "must not set hydra.sweeper"),
    ("hydra: {launcher: {_target_: evil.Launcher}, sweeper: {params: {seed: '1,2'}}}", "must not set hydra.launcher"),
    ("hydra: evil", "must not set hydra"),
    ("a: &a {hydra: {run: {dir: /}}}\n<<: *a", "must not set hydra.run"),
    (
        "defaults:\n  - override /hydra/job_logging: evil",
        "must not choose override /hydra/job_logging: evil",
    ),
    ("defaults:\n  - override hydra/launcher: joblib", "must not choose override hydra/launcher: joblib"),
    ("defaults:\n  - /hydra/callbacks: evil", "must not choose /hydra/callbacks: evil"),
    ("defaults:\n  - /data@hydra.callbacks: digits", "must not choose /data@hydra.callbacks: digits"),
    ("defaults:\n  - /data@_global_.hydra: digits", "must not choose /data@_global_.hydra: digits"),
    ("defaults:\n  - /hydra/config", "must not include /hydra/config"),
    ("defaults:\n  - /data@${a}: digits", "must have plain names of groups and options in its defaults."),
    ("defaults:\n  - /data: ../../elsewhere", "must have plain names of groups and options in its defaults."),
    ("trust: [evil]", "must not set trust: only the command line may, by --trust."),
]


@pytest.mark.parametrize(("text", "message"), HYDRA, ids=lambda part: part[:40])
def test_hydra_is_configured_by_the_command_line_alone(text: str, message: str, write: Write) -> None:
    assert refusal(write("# @package _global_\n" + text)).startswith(message)


@pytest.mark.parametrize("header", ["hydra.callbacks", "_global_.hydra", "hydra", "trust", "_global_.trust"])
def test_no_package_leads_there(header: str, write: Write) -> None:
    assert refusal(write(f"# @package {header}\nx: 1")).startswith("must not have this @package. Received: ")


def test_no_file_stands_in_for_one_of_hydras(write: Write) -> None:
    """Hydra finds its own first; one of a new name is found, but not taken, if the user asks for it too."""
    for name in ("hydra/job_logging/none", "hydra/hydra_logging/none", "hydra/job_logging/evil"):
        file = write("handlers: {x: {class: logging.FileHandler, filename: owned}}", f"{name}.yaml")
    with hydra_initialised(str(file.parents[2])):
        composed = hydra.compose("train", return_hydra_config=True)
    assert "handlers" not in composed.hydra.job_logging and composed.hydra.job_logging.root is None
    assert refusal(file, "hydra/job_logging=evil").startswith("must not configure Hydra: only the command line may")
    assert refusal(write("x: 1", "hydra/config.yaml"), "seed=1").startswith("must not configure Hydra")


def test_a_file_named_by_its_package_leads_there_neither(write: Write) -> None:
    assert refusal(write("# @package _name_\nx: 1", "experiment/hydra.yaml")).startswith("must not configure Hydra")


def test_another_group_that_is_moved_to_the_top_is_looked_through_too(write: Write) -> None:
    evil = write("hydra: {run: {dir: /}}", "model/evil.yaml")
    write("# @package _global_\ndefaults:\n  - /model@_global_: evil\n  - override /model: evil")
    assert refusal(evil, "+experiment=x").startswith("must not set hydra.run")


def test_what_lies_beside_the_folder_is_not_reached(write: Write, tmp_path: Path) -> None:
    (tmp_path / "beside.yaml").write_text("# @package _global_\nhydra: {run: {dir: /}}")
    own = str(write("x: 1").parents[1])
    for words in (["+experiment=../../beside"], [f"+experiment={tmp_path}/beside"], ["+../beside=x"]):
        with pytest.raises(ConfigError):
            compose(words, own)
    with pytest.raises(ConfigError, match=r"hydra\.searchpath is not accepted: use --config-dir"):
        compose([f"hydra.searchpath=[file://{tmp_path}]"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${oc.env:HOME}", "must not read the environment in data.note"),
        ("x-${oc.env:HOME,none}-y", "must not read the environment"),
        ("${ oc.env:HOME}", "must not read the environment"),
        ("${oc.${a}:HOME}", "must refer only to keys"),
        ("${oc.decode:'$\\{oc\\.env:HOME\\}'}", "must refer only to keys"),
        ("${oc.create:'{a: 1}'}", "must refer only to keys"),
        ("${python_version:}", "must refer only to keys"),
        ("${hydra:runtime.cwd}", "must refer only to keys"),
        ("${data.${model}}", "must refer only to keys"),
        ("${seed", "must refer only to keys"),
    ],
)
def test_interpolations_that_do_more_than_refer(value: str, message: str, write: Write) -> None:
    file = write(f"# @package _global_\ndata:\n  note: {json.dumps(value)}")
    assert refusal(file).startswith(message)


def test_what_the_user_types_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MY_METRIC", "val/mine")
    assert compose(["monitor=${oc.env:MY_METRIC}"])["monitor"] == "val/mine"


def test_interpolations_of_interpolations_are_counted_before_they_are_resolved(write: Write) -> None:
    many = "\n".join(f"  x{i}: ${{callbacks.x{i - 1}}}${{callbacks.x{i - 1}}}" for i in range(1, 40))
    own = str(write(f"# @package _global_\ncallbacks:\n  x0: a\n{many}").parents[1])
    since = time.process_time()
    with pytest.raises(ConfigError, match="config must have interpolations of fewer than"):
        compose(["+experiment=x"], own)
    assert time.process_time() - since < 1
    groups = "\n".join(f"  x{i}: {{a: '${{..x{i - 1}}}', b: '${{callbacks.x{i - 1}}}'}}" for i in range(1, 40))
    write(f"# @package _global_\ncallbacks:\n  x0: a\n{groups}")
    with pytest.raises(ConfigError, match="config must have interpolations of fewer than"):
        compose(["+experiment=x"], own)
    assert time.process_time() - since < 2


def test_a_circle_of_references_is_one_line(write: Write) -> None:
    own = str(write("# @package _global_\nseed: ${monitor}\nmonitor: ${seed}").parents[1])
    with pytest.raises(ConfigError, match="cannot be resolved"):
        compose(["+experiment=x"], own)


def test_a_description_of_a_run_is_let_through(write: Write) -> None:
    file = write(
        "# @package _global_\ndefaults:\n  - /warmup@coschedule.weight_decay: linear\n  - override /schedule: mine\n"
        "seed: 3\nmonitor: &m val/loss\nplateau: {_target_: lrkit.planning.plateau.Plateau, monitor: *m}\n"
        "optimizer: {weight_decay: 0.1}\ndata: {seed: '${seed}', batch_size: '${oc.select:seed}'}\n"
        "hydra: {sweeper: {params: {optimizer.lr: '0.1,0.2', schedule: 'mine,cosine'}}}\n"
    )
    write("_target_: lrkit.schedules.Linear\nend: 0.25\n", "schedule/mine.yaml")
    own = str(file.parents[1])
    config = compose(["+experiment=x"], own)
    assert config["data"]["batch_size"] == 3 and config["schedule"]["end"] == 0.25
    assert sweep_of_files(["+experiment=x"], own).words[1:] == ["optimizer.lr=0.1,0.2", "schedule=mine,cosine"]


@pytest.mark.parametrize(
    "params",
    ["{trust: '[evil]'}", "{hydra.run.dir: /}", "{hydra/launcher: evil}", "{model._target_: evil.Net}",
     "{+callbacks.x: '{_target_: evil.Net}'}", "{model: 'choice(mlp,{_target_: evil.Net})'}",
     "{+callbacks.x: 'choice({a: 1},{_target_: evil.Net})'}", "{data@hydra.callbacks: digits}"],
)  # fmt: skip
def test_what_a_file_sweeps_is_not_the_users_word(params: str, write: Write) -> None:
    own = str(write(f"# @package _global_\nhydra: {{sweeper: {{params: {params}}}}}").parents[1])
    with pytest.raises(ConfigError):
        sweep_of_files(["+experiment=x"], own)


@pytest.mark.parametrize("flags", [["--cfg", "hydra"], ["--cfg", "job"], ["--info", "config"], ["--help"], ["-m"], []])
def test_the_command_refuses_before_hydra_acts(
    flags: list[str], write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write("# @package _global_\nhydra: {callbacks: {x: {_target_: builtins.open, file: owned, mode: w}}}")
    assert main.main(["train", *flags, "--config-dir", "own", "+experiment=x", "seed=1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "must not set hydra.callbacks" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_our_own_files_are_small_and_plain(path: Path) -> None:
    assert load_plain(path) == OmegaConf.to_container(OmegaConf.load(path))
    if path.parent.name not in ("launcher", "conf"):  # those configure Hydra
        assert read_screened(path) == path.read_text()


NODES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.text("ab1", max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(config=st.dictionaries(st.sampled_from("abc"), NODES, max_size=3))
def test_without_interpolations_there_is_nothing_to_count(config: dict[str, object]) -> None:
    assert count_expanded(config) == 0


@given(depth=st.integers(1, 12), wide=st.integers(1, 3))
def test_the_count_grows_as_what_is_resolved(depth: int, wide: int) -> None:
    config = {"x0": "a", **{f"x{i}": f"${{x{i - 1}}}" * wide for i in range(1, depth + 1)}}
    at_least = sum(wide**i for i in range(1, depth + 1))
    assert count_expanded(config) >= min(at_least, WIDEST)
    assert count_expanded(config) <= depth * wide * (WIDEST + 2)
