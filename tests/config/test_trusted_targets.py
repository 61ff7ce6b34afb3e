"""No code named in an untrusted file is executed: which names are refused, before an import, and which are accepted.

``trap`` is a folder with modules that write a marker file when they are imported; no test here may find one.
"""

from __future__ import annotations

import builtins
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.hub
import torch.utils.cpp_extension
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from run_folders import write_events
from torch import nn

from lrkit import models
from lrkit.base.errors import ConfigError
from lrkit.cli import arguments, main
from lrkit.cli.board import tensorboard_command
from lrkit.comparison.ranking import compare
from lrkit.config import trusted_targets
from lrkit.config.compose import CONF_DIR, check, compose, plan
from lrkit.config.instantiate import build
from lrkit.config.overrides import chosen_loggers, parse_overrides
from lrkit.config.trusted_targets import resolve_class
from lrkit.data.hugging_face import HuggingFace
from lrkit.data.torchvision_datasets import Torchvision
from lrkit.lightning.imports import Callback
from lrkit.optim import factory
from lrkit.training_objects.data import data_of
from lrkit.training_objects.module import module_of

EVIL = {
    "os.system": os.system, "os.popen": os.popen, "builtins.eval": builtins.eval, "builtins.open": builtins.open,
    "builtins.exec": builtins.exec, "torch.load": torch.load, "torch.hub.load": torch.hub.load, "numpy.load": np.load,
    "torch.utils.cpp_extension.load": torch.utils.cpp_extension.load, "pickle.loads": pickle.loads,
    "pickle.Unpickler": pickle.Unpickler, "subprocess.Popen": subprocess.Popen, "subprocess.run": subprocess.run,
}  # fmt: skip

ALIASES = [
    "posix.system", "logging.os.system", "torch.os.system", "torch.nn.os.system", "lrkit.base.process_pool.os.system",
    "lrkit.training.run.torch.load", "lrkit.checkpoint.untrusted_file.torch.load",
    "lrkit.data.option_checks.importlib.import_module",
    "torch.serialization.load", "torch.nn.modules.module.torch.load", "pytorch_lightning.callbacks.os.system",
    "lrkit.base.process_pool.subprocess.Popen", "torch.package.PackageImporter", "torch.jit.load",
    "torch.hub.load_state_dict_from_url", "torch.utils.cpp_extension.CppExtension", "torch.fx.GraphModule",
    "torch.distributed.nn.RemoteModule", "pytorch_lightning.Trainer", "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.loggers.WandbLogger", "pytorch_lightning.loggers.MLFlowLogger",
    "pytorch_lightning.LightningModule.load_from_checkpoint", "pytorch_lightning.demos.boring_classes.BoringModel",
    "hydra.utils.get_method", "hydra.utils.instantiate", "functools.partial", "operator.methodcaller",
    "importlib.import_module", "runpy.run_path", "code.interact", "ctypes.CDLL", "torch.nn._reduction.warnings",
    "lrkit._evil.X", "evil.Net", "evil.sub.Net", "nn.Linear", "torch.nnx.Linear", "lrkitx.Net", "torch.nn", "lrkit",
]  # fmt: skip

#: Names in accepted packages that are not classes that lrkit builds.
INSIDE = [
    "torch.nn.functional.relu", "torch.nn.init.normal_", "torch.nn.utils.clip_grad_norm_", "torch.nn.Parameter",
    "torch.nn.parallel", "torch.optim.lr_scheduler.StepLR", "lrkit.cli.main", "lrkit.base.process_pool.Path",
    "lrkit.sweep.sweep.Sweep", "lrkit.training.run", "pytorch_optimizer.load_optimizer",
    "pytorch_lightning.callbacks.callback.Any", "lrkit.config.compose", "lrkit.base.errors.ConfigError",
]  # fmt: skip

#: Where a node may stand, and deeper.
PLACES = {
    "model": "model: {{_target_: {0}}}",
    "optimizer": "optimizer: {{_target_: {0}}}",
    "data": "data: {{_target_: {0}}}",
    "schedule": "schedule: {{_target_: {0}}}",
    "plateau": "plateau: {{_target_: {0}, monitor: a}}",
    "callbacks.x": "callbacks: {{x: {{_target_: {0}}}}}",
    "logger.x": "logger: {{x: {{_target_: {0}}}}}",
    "coschedule.momentum": "coschedule: {{momentum: {{_target_: {0}}}}}",
    "model._args_[0]": "model: {{_target_: torch.nn.Sequential, _args_: [{{_target_: {0}}}]}}",
    "callbacks.x.a.b": "callbacks: {{x: {{_target_: lrkit.callbacks.lr_logger.LearningRateLogger,"
    " a: {{b: {{_target_: {0}}}}}}}}}",
    "data.options": "data: {{options: {{_target_: {0}, _partial_: true}}}}",
    "trainer.strategy": "trainer: {{strategy: {{_target_: {0}}}}}",
}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An untrusted working folder: each of its modules and pickles writes a marker file when it is loaded."""
    mark = tmp_path / "executed"
    folder = tmp_path / "trap"
    (folder / "hydra_plugins").mkdir(parents=True)
    (folder / "tensorboard_plugin_evil").mkdir()
    for name in ("evil", "torch", "numpy", "yaml", "hydra", "matplotlib", "pytorch_lightning", "tensorboard",
                 "sitecustomize", "hydra_plugins/evil", "tensorboard_plugin_evil/__init__"):  # fmt: skip
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    (folder / "own" / "experiment").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield folder
    assert not mark.exists(), mark.read_text()
    assert "evil" not in sys.modules


def outside(target: str, key: str = "model._target_") -> str:
    with pytest.raises(ConfigError) as caught:
        trusted_targets.resolve_class(target, key)
    return str(caught.value)


# --- by its name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [*EVIL, *ALIASES])
def test_a_name_outside_of_the_list_is_refused_before_its_module_is_imported(target: str, trap: Path) -> None:
    before = set(sys.modules)
    message = outside(target)
    if (
        not trusted_targets.is_covered(target, trusted_targets.NAMES) and "." in target
    ):  # else it is refused because of its target
        assert message.startswith(f"model._target_ names {target}, which config files may not name")
        assert set(sys.modules) == before


@pytest.mark.parametrize(
    "target", [None, 5, "", ".", "a", "..a", "a..b", "a.b ", " a.b", "a.b\n", "a/b.c", "a.b()", ["a.b"]]
)
def test_what_is_no_dotted_path(target: Any) -> None:
    assert outside(target).startswith("model._target_ must be the dotted path of a class. Received: ")


@pytest.mark.parametrize("where", PLACES)
def test_in_a_file_wherever_it_stands(where: str, trap: Path) -> None:
    for target in ("evil.Net", "os.system", "torch.hub.load"):
        (trap / "own" / "experiment" / "x.yaml").write_text("# @package _global_\n" + PLACES[where].format(target))
        with pytest.raises(ConfigError, match="which config files may not name") as caught:
            compose(["+experiment=x"], str(trap / "own"))
        assert str(caught.value).startswith(f"{where}._target_ names {target}, which config files may not name")


@given(
    path=st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["a", "_args_", "options", "b"])), max_size=12),
    target=st.sampled_from([*EVIL, "evil.Net"]),
)
def test_at_any_depth(path: list[int | str], target: str) -> None:
    node: Any = {"_target_": target}
    for step in reversed(path):
        node = [None] * step + [node] if isinstance(step, int) else {step: node}
    config = {"model": {"_target_": "torch.nn.Identity", "part": node}}
    with pytest.raises(ConfigError, match=r"_target_ names "):
        trusted_targets.check(config)
    with pytest.raises(ConfigError, match=r"_target_ names "):
        build(config["model"], "model")


def test_too_deep_is_refused_too() -> None:
    node: Any = {"_target_": "os.system"}
    for _ in range(500):
        node = {"a": node}
    with pytest.raises(ConfigError, match="model must not be nested deeper"):
        trusted_targets.check({"model": node})


def test_the_refusal_teaches() -> None:
    assert outside("mycode.nets.Net") == (
        "model._target_ names mycode.nets.Net, which config files may not name;"
        " if it is yours, add --trust mycode. Received: 'mycode.nets.Net'"
    )
    for target in ("os.system", "torch.load", "pytorch_lightning.Trainer"):  # cannot be trusted by --trust
        assert "--trust" not in outside(target) and "torch.nn, torch.optim" in outside(target)


# --- by its kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", INSIDE)
@pytest.mark.parametrize("key", ["model._target_", "model.part._target_"])
def test_inside_of_the_list_only_classes_that_lrkit_builds(key: str, target: str) -> None:
    assert " must be " in outside(target, key)


@pytest.mark.parametrize("name", EVIL)
def test_an_alias_inside_of_the_list_is_seen_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "alias", EVIL[name], raising=False)
    for key in ("model", "model.part", "optimizer", "callbacks.a", "schedule", "logger.a", "data", "plateau"):
        assert " must be " in outside("lrkit.models.alias", f"{key}._target_")
    with pytest.raises(ConfigError, match=r"must be a subclass of torch\.optim\.Optimizer"):
        factory.resolve_optimizer("lrkit.models.alias")


class Theirs(nn.Module):
    """A class of the right kind, but of a package that is not trusted."""


class Opt(torch.optim.SGD):
    pass


def test_a_foreign_class_behind_an_alias_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "alias", Theirs, raising=False)
    assert "is an alias of test_trusted_targets.Theirs, which config files may not name" in outside(
        "lrkit.models.alias"
    )
    monkeypatch.setattr(models, "alias", Opt, raising=False)
    with pytest.raises(ConfigError, match=r"is an alias of test_trusted_targets\.Opt"):
        factory.resolve_optimizer("lrkit.models.alias")


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_all_that_our_own_files_name_is_accepted(path: Path) -> None:
    raw = OmegaConf.to_container(OmegaConf.load(path))
    group = "" if path.read_text().startswith("# @package _global_") else path.parent.name
    for key, target in trusted_targets.find_targets(raw, group):
        if target != "???":
            typed = [f"logger={path.stem}"] if group == "logger" else []
            trusted_targets.resolve_class(target, key, chosen_loggers(parse_overrides(typed)))


def test_only_the_command_line_can_name_what_a_key_does_not_take() -> None:
    for key, kind in (("schedule", "lrkit.schedules.Schedule"), ("optimizer", "torch.optim.Optimizer")):
        with pytest.raises(ConfigError, match=rf"^{key}\._target_ must be .* subclass of {kind}"):
            config = compose([f"{key}._target_=os.system"])
            plan(config)
            factory.resolve_optimizer(config["optimizer"]["_target_"])


# --- the user's own -------------------------------------------------------------------------------


class Mine(nn.Module):
    def __init__(self, part: Any = None) -> None:
        super().__init__()
        self.part = part


class Helper:
    """No class that lrkit builds: a part of one."""


class Watch(Callback):
    pass


Borrowed = subprocess.Popen
HERE = __name__


def test_what_the_user_types_is_trusted_by_exactly_that_path() -> None:
    config = compose(["model=custom", f"model._target_={HERE}.Mine", f"+callbacks.w={{_target_: {HERE}.Watch}}"])
    assert config["trust"] == [f"{HERE}.Mine", f"{HERE}.Watch"]
    assert isinstance(build(config["callbacks"]["w"], "callbacks.w", config["trust"]), Watch)
    node = {"_target_": f"{HERE}.Mine", "part": {"_target_": f"{HERE}.Helper"}}
    with pytest.raises(ConfigError, match=r"model\.part\._target_ names .*Helper, which config files may not name"):
        build(node, "model", config["trust"])


def says_so(width: int) -> nn.Module:
    return nn.Linear(width, width)


def says_nothing(width):  # type: ignore[no-untyped-def]
    raise AssertionError("was called")


def test_a_function_of_the_users_that_says_it_returns_a_network_makes_one() -> None:
    config = compose(["model=custom", f"model._target_={HERE}.says_so", "+model.width=3"])
    assert isinstance(build(config["model"], "model", config["trust"]), nn.Linear)
    for name, trust in ((f"{HERE}.says_nothing", [HERE]), ("torch.hub.load", ["torch.hub"]), ("torch.load", ["torch"])):
        with pytest.raises(ConfigError, match="or a function of yours whose return type is one"):
            trusted_targets.resolve_class(name, "model._target_", trust)
    with pytest.raises(ConfigError, match=r"must be a subclass of torch\.optim\.Optimizer"):
        trusted_targets.resolve_class(f"{HERE}.says_so", "optimizer._target_", [HERE])


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "mine.yaml").write_text(f"w: {{_target_: {HERE}.Watch}}\n")
    return str(tmp_path)


class Auto:
    """Builds networks, as the classes ``Auto...`` of transformers do."""

    @classmethod
    def from_width(cls, width: int, count: int = 1) -> Any:
        return nn.Sequential(nn.Linear(64, width), nn.Linear(width, 10)) if count else None

    def bound(self, width: int) -> Any:
        return nn.Linear(64, width)


def test_a_class_method_builds_the_network_if_the_user_says_so() -> None:
    path = f"{__name__}.Auto.from_width"
    config = compose(["model=custom", f"model._target_={path}", "+model.width=7"])
    model = module_of(config, data_of(config)).model
    assert isinstance(model, nn.Sequential) and model[0].out_features == 7
    with pytest.raises(ConfigError, match=rf"class method, which no file may call: .* add --trust {re.escape(path)}"):
        resolve_class(path, "model._target_", [__name__])  # a trusted package is not enough
    for key in ("optimizer._target_", "callbacks.a._target_", "model.parts[0]._target_"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            resolve_class(path, key, [path])
    with pytest.raises(ConfigError, match="cannot be imported"):
        resolve_class(f"{__name__}.Auto.bound", "model._target_", [f"{__name__}.Auto.bound"])
    with pytest.raises(ConfigError, match="no file may call"):
        resolve_class("torch.nn.Embedding.from_pretrained", "model._target_", ["torch"])
    nothing = compose(["model=custom", f"model._target_={path}", "+model.width=7", "+model.count=0"])
    with pytest.raises(ConfigError, match=r"must build a torch\.nn\.Module, and it built a NoneType"):
        module_of(nothing, data_of(nothing))
    with pytest.raises(ConfigError, match=r"model\.widht is not a key\. Did you mean 'width'"):
        wrong = compose(["model=custom", f"model._target_={path}", "+model.widht=7"])
        module_of(wrong, data_of(wrong))


def test_what_their_files_name_needs_their_word(own: str) -> None:
    with pytest.raises(ConfigError, match=rf"if it is yours, add --trust {HERE}"):
        compose(["callbacks=mine"], own)
    for config in (compose(["callbacks=mine", f"trust=[{HERE}]"], own), compose(["callbacks=mine"], own, [HERE])):
        assert isinstance(build(config["callbacks"]["w"], "callbacks.w", config["trust"]), Watch)


def test_the_flag_is_an_override_that_goes_along(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["callbacks=mine", "--config-dir", own, "--trust", HERE, "--trust=other.pkg", "horizon.steps=2"]
    assert arguments.split_arguments(words)[1][-1] == f"trust=[{HERE},other.pkg]"
    assert main.main(["show", "format=csv", *words]) == 0
    assert main.main(["show", "format=csv", *words, "trust=[a]"]) == 2
    assert "trust is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "os", "subprocess", "my code", "-m", "a,b", "[a]", "a.", "../a", "os.path"])
def test_what_cannot_be_trusted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["show", "--trust", name]) == 2
    assert capsys.readouterr().err.startswith("lrkit: --trust must be ")


@pytest.mark.parametrize("word", ["trust=mycode", "trust=null", "trust.0=a", "+trust.a=b", "trust=[1]", "trust=[os]"])
def test_trust_is_a_list_of_packages(word: str) -> None:
    with pytest.raises(ConfigError, match="trust"):
        compose([word])


@pytest.mark.parametrize(
    "text",
    ["# @package _global_\nmonitor: a\ntrust: [evil]", "# @package trust\nx: 1", "# @package _global_.trust\nx: 1",
     "# @package _global_\ndefaults: [{/data@trust: digits}]",
     "# @package _global_\ndefaults: [{/experiment@_global_: y}]"],
)  # fmt: skip
def test_no_file_says_whom_to_trust(text: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "x.yaml").write_text(text)
    (tmp_path / "experiment" / "y.yaml").write_text("trust: [evil]\n")
    with pytest.raises(ConfigError, match=r"trust|package|composed"):
        compose(["+experiment=x"], str(tmp_path))


def test_no_environment_says_it(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LRKIT_TRUST", "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "TRUST"):
        monkeypatch.setitem(os.environ, name, "evil:evil.Net:os.system")
    (trap / "own" / "experiment" / "x.yaml").write_text("# @package _global_\nmodel: {_target_: evil.Net}")
    with pytest.raises(ConfigError, match="which config files may not name"):
        compose(["+experiment=x"], str(trap / "own"))


def test_a_trusted_package_does_not_lend_what_it_imports() -> None:
    trust = [HERE]
    node = {"_target_": f"{HERE}.Mine", "part": {"_target_": f"{HERE}.Helper"}}
    assert isinstance(build(node, "model", trust).part, Helper)
    node["part"] = {"_target_": f"{HERE}.Borrowed", "args": ["true"]}
    with pytest.raises(ConfigError, match="must be a class that lrkit builds"):
        build(node, "model", trust)


# --- checkpoints, and folders of runs -------------------------------------------------------------


class Payload:
    """An object that executes code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("policy", ["null", "restore", "restart"])
def test_a_checkpoint_is_data(
    policy: str, trap: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = trap.parent / "executed"
    torch.save({"lrkit": Payload(mark), "state_dict": {}}, trap / "evil.ckpt")
    words = [f"resume.policy={policy}", "cooldown=sqrt", "cooldown.length=5"]
    assert main.main(["train", f"resume.path={trap / 'evil.ckpt'}", *words, "logger=none"]) == 2
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x.ckpt", "https://x.invalid/x.ckpt", "s3://x/y.ckpt"])
def test_a_checkpoint_is_a_file_of_this_machine(place: str, trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", f"resume.path='{place}'"]) == 2
    assert "resume.path must be an existing checkpoint" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained() -> Iterator[dict[str, Any]]:
    """A checkpoint of two steps."""
    from lrkit.training.run import run_training

    with tempfile.TemporaryDirectory() as folder:
        words = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "logger=none"]
        run_training(compose(words), Path(folder), quiet=True)
        yield torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("policy", "section"),
    [("restore", "optimizer"), ("restore", "schedule"), ("restore", "warmup"), ("restore", "plateau"),
     ("restore", "cooldown"), ("restore", "coschedule"), ("cooldown", "optimizer")],
)  # fmt: skip
def test_what_the_config_in_a_checkpoint_names_is_refused(
    policy: str, section: str, trained: dict[str, Any], trap: Path, train: Callable[..., Any]
) -> None:
    content = {**trained, "lrkit": dict(trained["lrkit"])}
    stored = json.loads(content["lrkit"]["plan"])
    node = {"_target_": "evil.Net", "lr": 0.1, "monitor": "val/loss"}
    stored["config"][section] = {"momentum": node} if section == "coschedule" else node
    stored["config"]["trust"] = ["evil"]
    content["lrkit"]["plan"] = json.dumps(stored)
    torch.save(content, trap / "x.ckpt")
    words = [f"resume.path={trap / 'x.ckpt'}", f"resume.policy={policy}", "cooldown=sqrt", "cooldown.length=1"]
    with pytest.raises(ConfigError, match="which config files may not name"):
        train(*words, "trainer.max_epochs=2")


def test_join_and_search_refuse_an_untrusted_config(trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**compose([]), "trust": ["evil"], "model": {"_target_": "evil.Net"}}
    (trap / "config.json").write_text(json.dumps(config))
    for words in (["join", ".", "config.json"], ["search", ".", "config.json"], ["join"], ["search"]):
        assert main.main(words) == 2
        assert "runs only in processes that lrkit starts itself" in capsys.readouterr().err


def test_a_folder_of_runs_is_only_read(trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trap / "run"
    write_events(run, {"val/loss": {1: 0.5}})
    node = {"_target_": "evil.Net", "x": "${oc.env:HOME}"}
    texts = {
        "config.json": json.dumps({"model": node, "trust": ["evil"]}), "plan.json": json.dumps({"config": node}),
        "metrics.json": json.dumps({"status": "done", "monitor": "val/loss", "best": {"val/loss": 0.5}}),
        "hparams.yaml": "!!python/object/apply:os.system ['touch executed']",
        ".hydra/config.yaml": "_target_: evil.Net",
        ".hydra/hydra.yaml": "hydra: {callbacks: {x: {_target_: evil.Net}}}",
        ".hydra/overrides.yaml": "- model._target_=evil.Net", "events.json": "[" * 10_000, "evil.py": "1/0",
    }  # fmt: skip
    for name, text in texts.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(text)
    (run / "checkpoints").mkdir()
    torch.save(Payload(trap.parent / "executed"), run / "checkpoints" / "last.ckpt")
    (trap / "sweep.json").write_text(json.dumps({"overrides": ["model._target_=evil.Net"], "config_dir": "evil"}))
    comparison = compare([trap])
    assert comparison.settings[0].runs[0].facts["model.x"] == "${oc.env:HOME}"  # not its value
    assert "trust" not in str(comparison.settings[0].runs[0].facts)
    assert tensorboard_command([str(trap)])[1:3] == ["-P", "-m"]


@pytest.mark.parametrize("jobs", [[], 5, {"a": 1}, {"a": {"status": "done"}}, None])
def test_the_sweep_file_of_an_untrusted_folder_starts_no_command(jobs: Any, trap: Path) -> None:
    from lrkit.sweep.sweep import Sweep
    from lrkit.sweep.sweep_file import find_unfinished

    folder = trap / "outputs" / "sweeps" / "2026"
    folder.mkdir(parents=True)
    words = ["seed=1,2"]
    content = {"overrides": words, "config_dir": str(trap / "own"), "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(content))
    assert find_unfinished(words, folder.parent) == folder
    sweep = Sweep(words, folder)
    assert sweep.config_dir is None and all(not sweep._is_finished(job) for job in sweep.jobs)


@pytest.mark.parametrize("safe", [["-P"], []], ids=["lrkit", "python -m lrkit"])
@pytest.mark.parametrize(
    "words", [["show", "horizon.steps=2", "format=csv"], ["compare", "runs"], ["train", "--cfg=job"]]
)
def test_the_folder_that_we_are_in_is_not_looked_into(safe: list[str], words: list[str], trap: Path) -> None:
    """Neither for the plugins that Hydra imports, nor for a library: the command is often given there."""
    write_events(trap / "runs" / "a", {"val/loss": {1: 0.5}})
    root = str(CONF_DIR.parent if CONF_DIR.parent.name != "lrkit" else CONF_DIR.parents[1])
    done = subprocess.run(
        [sys.executable, *safe, "-m", "lrkit", *words], env={**os.environ, "PYTHONPATH": root}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_config_from_elsewhere_is_checked_by_whoever_uses_it() -> None:
    """``check`` and ``plan`` run again at the start of a run, with the config at that time."""
    config = {**compose([]), "model": {"_target_": "evil.Net"}}
    for use in (check, plan):
        with pytest.raises(ConfigError, match=r"model\._target_ names evil\.Net"):
            use(config)


# --- data -----------------------------------------------------------------------------------------


def test_a_data_set_is_data_not_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data\.options\.trust_remote_code must not be set"):
        HuggingFace(batch_size=1, path="x", options={"trust_remote_code": True})
    library = SimpleNamespace(datasets=SimpleNamespace(__all__=["wrap", "MNIST"], wrap=os.system, load=os.system))
    monkeypatch.setitem(sys.modules, "torchvision", library)
    for name in ("wrap", "load", "os.system", "__all__"):
        with pytest.raises(ConfigError, match=r"data\.name must be a class of torchvision\.datasets"):
            Torchvision(batch_size=1, name=name).setup()


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["webhdfs://host/x", "s3://bucket", "memory://a", " ftp://a", "simplecache::s3://b"]
)
def test_no_file_sends_a_run_to_a_host(address: str, tmp_path: Path) -> None:
    (tmp_path / "callbacks").mkdir()
    node = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": address}
    (tmp_path / "callbacks" / "theirs.yaml").write_text(json.dumps({"keep": node}))
    with pytest.raises(ConfigError, match=r"^callbacks\.keep\.dirpath is an address, which no file may name"):
        compose(["callbacks=theirs"], str(tmp_path))
    typed = ["callbacks=theirs", f"callbacks.keep.dirpath='{address}'"]
    assert compose(typed, str(tmp_path))["callbacks"]["keep"]["dirpath"] == address
