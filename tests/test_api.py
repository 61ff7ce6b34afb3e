"""The Python functions: a script of plain Lightning with lrkit; and lrkit's groups inside another Hydra application."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from omegaconf import OmegaConf
from plain_lightning import Data, Net, Points
from recorded_rates import Recorded
from torch.utils.data import DataLoader

import lrkit
from lrkit import ConfigError, Plateau
from lrkit.config.compose import compose
from lrkit.config.compose import plan as plan_of
from lrkit.lightning.imports import PACKAGE, Trainer
from lrkit.schedules.shapes import Cosine, Linear, Step

HEAD = [{"name": "head", "pattern": "^head", "lr_scale": 2}]


def test_the_function_and_the_command_give_the_same_plan() -> None:
    command = plan_of(compose(["optimizer=adamw", "schedule=wsd", "warmup=linear", "batch_scaling=auto",
                               "param_groups=no_decay", "trainer.max_epochs=10", "data.batch_size=64"]))  # fmt: skip
    function = lrkit.plan(
        lr=command.base_lr, options={"weight_decay": 0.01}, schedule="wsd", warmup="linear", steps=190,
        steps_per_epoch=19, batch_size=64, batch_scaling="auto", param_groups={"no_decay": True},
    )  # fmt: skip
    assert [function.lr(g, t) for g in function.groups for t in range(190)] == [
        command.lr(g, t) for g in command.groups for t in range(190)
    ]


@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", torch.optim.AdamW])
def test_configure_in_a_script_of_plain_lightning(optimizer: Any, tmp_path: Path, recorded: Recorded) -> None:
    module = lrkit.configure(
        Net(), lr=0.1, optimizer=optimizer, schedule=Cosine(), warmup=Linear(length=3), batch_scaling="linear",
        base_batch_size=10, plateau=Plateau(monitor="val_loss"), param_groups=HEAD,
    )  # fmt: skip
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=2, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data(batch_size=10))
    expected = lrkit.plan(
        lr=0.1, schedule="cosine", warmup=Linear(length=3), steps=6, steps_per_epoch=3, batch_size=20,
        batch_scaling="linear", base_batch_size=10, param_groups=HEAD,
    )  # fmt: skip
    assert [[step[g.name][0] for g in expected.groups] for step in recorded] == [
        [expected.lr(g, t) for g in expected.groups] for t in range(6)
    ]


def test_clipping_under_mixed_precision_gets_an_optimizer_that_lightning_clips(tmp_path: Path) -> None:
    module = lrkit.configure(Net(), lr=0.1)
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision="bf16-mixed", gradient_clip_val=1.0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data(batch_size=10))
    assert trainer.global_step == 2


def test_a_curve_by_names() -> None:
    curve = lrkit.curve("linear", steps=100, warmup="cosine", warmup_length=10, cooldown="sqrt", cooldown_length="10%")
    assert (curve(10), curve(50), curve(90)) == (1.0, 0.5, 0.0)
    with pytest.raises(ConfigError, match=r"^schedule has no option 'cosin'\. Did you mean 'cosine'"):
        lrkit.curve("cosin", steps=10)


#: What is wrong whatever the trainer is -> how the refusal begins; each by the key and the rule of the command.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"schedule": "cosin"}, "schedule has no option 'cosin'. Did you mean 'cosine'?"),
    ({"schedule": "one-cycle"}, "schedule has no option 'one-cycle'. Did you mean 'one_cycle'?"),
    ({"schedule": 3}, "schedule must be a Schedule, a name, or a mapping"),
    ({"schedule": {"name": "step", "evry": 3}}, "schedule.evry is not a key. Did you mean 'every'?"),
    ({"schedule": {"name": "step", "gamma": -2}}, "schedule.gamma must be"),
    ({"schedule": {"every": 3}}, "schedule.name must be set"),
    ({"warmup": "liner"}, "warmup has no option 'liner'. Did you mean 'linear'?"),
    ({"warmup": "linear", "warmup_length": "150%"}, "warmup.length must be"),
    ({"warmup_length": 10}, "warmup_length needs a warmup"),
    ({"warmup": Linear(length=5), "warmup_length": 10}, "warmup_length must be None"),
    (
        {"warmup": "linear", "warmup_length": "60%", "cooldown": "sqrt", "cooldown_length": "50%"},
        "warmup.length leaves",
    ),
    ({"plateau": "redcue"}, "plateau has no option 'redcue'. Did you mean 'reduce'?"),
    ({"plateau": {"name": "reduce", "patiance": 3}}, "plateau.patiance is not a key. Did you mean 'patience'?"),
    ({"plateau": {"name": "reduce", "factor": 2}}, "plateau.factor must be in (0, 1)"),
    ({"guard": "skipp"}, "guard has no option 'skipp'. Did you mean 'skip'?"),
    ({"guard": {"name": "skip", "gain": 0.5}}, "guard.gain is not a key."),
    ({"batch_scaling": "liner"}, "batch_scaling.rule is not a rule. Did you mean 'linear'?"),
    ({"batch_scaling": "linear", "base_batch_size": 0}, "batch_scaling.base_batch_size must be"),
    ({"optimizer": "adamww"}, "optimizer has no option 'adamww'. Did you mean 'adamw'?"),
    ({"options": {"beta": (0.9, 0.99)}}, "optimizer.beta is unknown to AdamW. Did you mean 'betas'?"),
    ({"optimizer": torch.optim.SGD, "options": {"momentum": 1}}, "optimizer.momentum must be a number in [0, 1)"),
    ({"coschedule": {"momentun": "cosine"}}, "coschedule.momentun is not a key. Did you mean 'momentum'?"),
    ({"coschedule": {"momentum": "cosin"}}, "coschedule.momentum has no option 'cosin'."),
    ({"param_groups": {"no_decays": True}}, "param_groups.no_decays is not a key. Did you mean 'no_decay'?"),
    ({"optimizers": {"a": {"evry": 2}}}, "optimizers.a.evry is not a key. Did you mean 'every'?"),
    ({"lr": -1.0}, "optimizer.lr must be a finite number > 0"),
    ({"lr": 20.0}, "optimizer.lr must be in [1e-08, 10]; to allow it: allow_extreme_lr=true"),
]


@pytest.mark.parametrize(("said", "begins"), WRONG)
def test_what_is_wrong_is_refused_at_the_call(said: dict[str, Any], begins: str) -> None:
    for call in (lambda **said: lrkit.configure(Net(), **said), lambda **said: lrkit.plan(steps=1000, **said)):
        with pytest.raises(ConfigError) as refused:
            call(**{"lr": 0.1, **said})
        assert str(refused.value).startswith(begins)


def test_an_optimizer_that_does_not_exist_is_refused_by_configure() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer._target_ .*AdamWW"):
        lrkit.configure(Net(), lr=0.1, optimizer="torch.optim.AdamWW")
    with pytest.raises(ConfigError, match=r"^module must be a LightningModule"):
        lrkit.configure(torch.nn.Linear(1, 1), lr=0.1)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="shcedule"):
        lrkit.configure(Net(), lr=0.1, shcedule="cosine")  # type: ignore[call-arg]


def test_a_part_by_its_name_a_mapping_and_an_object_is_the_same() -> None:
    def of(**said: Any) -> lrkit.Plan:
        return lrkit.plan(**{"lr": 0.1, "steps": 90, "steps_per_epoch": 3, **said})

    assert of(schedule={"name": "step", "every": "10ep"}) == of(schedule=Step(every="10ep"))
    assert of(plateau={"name": "reduce", "patience": 2}) == of(plateau=Plateau(patience=2))
    assert of(guard="reduce") == of(guard=lrkit.Guard(policy="reduce", patience=3))
    assert of(optimizer="adamw", options={"weight_decay": 0.1}).base_weight_decay == 0.1
    assert of(optimizer="momentum", schedule="one_cycle").momentum is not None
    assert of(optimizer=torch.optim.AdamW, coschedule={"weight_decay": "cosine"}).base_weight_decay == 0.01
    assert of(schedule="plateau").plateau == Plateau()
    two = [{"name": "constant", "length": "50%"}, {"name": "linear"}]
    assert of(schedule={"name": "piecewise", "phases": two}) == of(schedule="piecewise")
    assert of(lr=20.0, allow_extreme_lr=True).base() == 20.0


def test_configured_twice_is_configured_as_said_last() -> None:
    once = lrkit.configure(Net(), lr=0.1, guard="stop")
    twice = lrkit.configure(lrkit.configure(Net(), lr=0.2, guard="skip"), lr=0.1, guard="stop")
    assert [type(each) for each in once.configure_callbacks()] == [type(each) for each in twice.configure_callbacks()]


def test_a_notebook_shows_the_curve() -> None:
    plan = lrkit.plan(
        lr=0.1, steps=50, warmup="linear", param_groups=[{"name": "a.b", "pattern": "<x>", "lr_scale": 2}]
    )
    page = plan._repr_html_()
    assert "lr[group, t] = 0.1 x scale[group] (a.b 2) x curve(t) (warmup then schedule)" in page
    assert (page.count("<polyline"), page.count("<svg"), "<script" in page) == (2, 1, False)
    ElementTree.fromstring(page)
    ElementTree.fromstring(lrkit.curve(steps=10)._repr_html_())
    ElementTree.fromstring(lrkit.curve("constant", steps=None)._repr_html_())
    assert str(plan).splitlines()[0].startswith("lr 0.1")


def test_plot_needs_matplotlib_and_takes_an_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    plan, ax = lrkit.plan(lr=0.1, steps=50, schedule="linear"), Figure().subplots()
    assert plan.plot(ax) is ax
    assert ax.lines[0].get_ydata()[25] == plan.lr(plan.groups[0], 25)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"^plot needs the package matplotlib: pip install 'lrkit\[plot\]'"):
        lrkit.curve(steps=10).plot()


CPU: dict[str, Any] = {"max_epochs": 4, "accelerator": "cpu"}


def test_find_leaves_module_data_and_random_numbers_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    module, data = Net(), Points(40)
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=generator)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    order, random, seeds = generator.get_state(), torch.get_rng_state(), os.environ.get("PL_GLOBAL_SEED")
    found = lrkit.find(
        module, loader, DataLoader(Points(16), batch_size=8), trainer=CPU, optimizer="momentum", warmup="linear",
        search={"repeats": 1, "steps": 40},
    )  # fmt: skip
    assert found.lr is not None and found.low <= found.lr <= found.high  # type: ignore[operator]
    assert found.rounds and len(found.sweeps[0].losses) > 10
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(generator.get_state(), order) and torch.equal(torch.get_rng_state(), random)
    assert os.environ.get("PL_GLOBAL_SEED") == seeds and module.training
    assert not {"configure_optimizers", "configure_callbacks"} & {*vars(module)} and module._trainer is None
    assert "range test 1 of 1" in capsys.readouterr().out
    assert ElementTree.fromstring(found._repr_html_()).tag == "div"


def test_find_takes_a_data_module_a_configured_module_and_a_folder(tmp_path: Path) -> None:
    module, data = lrkit.configure(Net(), lr=0.1, schedule="step"), Data(batch_size=8, n=40)
    found = lrkit.find(
        module, datamodule=data, trainer={**CPU, "callbacks": []}, folder=tmp_path / "found", quiet=True,
        search={"repeats": 1, "steps": 30, "confirm": False},
    )  # fmt: skip
    assert found.sweeps and not hasattr(data, "train") and data.trainer is None
    assert {"find.json", "find.csv"} <= {file.name for file in (tmp_path / "found").iterdir()}
    assert lrkit.find(Net(), data, trainer=CPU, optimizer="prodigy").lr == 1.0


def test_find_on_a_module_of_lightnings_own_with_its_own_loaders() -> None:
    boring = importlib.import_module(f"{PACKAGE}.demos.boring_classes").BoringModel()
    search = {"repeats": 1, "steps": 30, "confirm": False}
    found = lrkit.find(boring, trainer={"max_steps": 300, "accelerator": "cpu"}, search=search, quiet=True)
    assert found.sweeps[0].losses and (found.lr is None) == bool(found.reason)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_find_on_a_module_that_was_configured_and_trained() -> None:
    module = lrkit.configure(Net(), lr=0.1, guard="stop")
    trainer = Trainer(**CPU, max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, DataLoader(Points(40), batch_size=8))
    own = module.configure_callbacks()
    search = {"repeats": 1, "steps": 30, "confirm": False}
    assert lrkit.find(module, DataLoader(Points(40), batch_size=8), trainer=CPU, search=search, quiet=True).sweeps
    assert module.trainer is trainer and module.configure_callbacks() == own
    with pytest.raises(ConfigError, match=r"^find.loss=val needs a validation, and there is no validation data"):
        lrkit.find(
            module, DataLoader(Points(40), batch_size=8), trainer=CPU, search={**search, "loss": "val"}, quiet=True
        )
    with pytest.raises(ConfigError, match=r"^train_dataloaders must be given: Net has no train_dataloader"):
        lrkit.find(Net(), trainer=CPU)


def test_a_plan_can_be_copied_and_pickled() -> None:
    plan = lrkit.plan(lr=0.1, steps=50, warmup="linear", schedule="one_cycle", optimizer="momentum", guard="reduce")
    assert copy.deepcopy(plan) == plan == pickle.loads(pickle.dumps(plan))


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ({"trainer": {}}, "trainer must set the length of the run"),
        ({"trainer": {"max_epoch": 3, "max_steps": 5}}, "trainer.max_epoch is not a known option"),
        ({"trainer": {**CPU, "accelerator": "cpux"}}, "trainer.accelerator must be"),
        ({"trainer": {**CPU, "devices": 2}}, "trainer.devices must be 1"),
        ({"search": {"start": 1, "end": 0.1}}, "find.start must be below end"),
        ({"search": {"sart": 1}}, "find.sart is not a key. Did you mean 'start'?"),
        ({"schedule": "cosin"}, "schedule has no option 'cosin'"),
        ({"schedule": "range_test"}, "schedule must be the schedule to train with"),
        ({"train_dataloaders": [1]}, "datamodule must be None"),
    ],
)
def test_find_refuses_what_cannot_be(said: dict[str, Any], begins: str) -> None:
    with pytest.raises(ConfigError) as refused:
        lrkit.find(Net(), **{"datamodule": Data(), "trainer": CPU, **said})
    assert str(refused.value).startswith(begins)
    with pytest.raises(ConfigError, match=r"^module must be a LightningModule, or a list of overrides"):
        lrkit.find(3)  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["accelerator", "strategy"])
def test_find_takes_the_names_that_the_caller_has_registered(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command takes those of the packages in ``trust``."""
    from lrkit.api.caller_task import read_trainer
    from lrkit.lightning import imports

    given = {"max_epochs": 1, option: "registered_by_the_caller"}
    with pytest.raises(ConfigError, match=rf"^trainer\.{option} must be one of"):
        read_trainer(given)
    registry: Any = getattr(imports, f"{option.capitalize()}Registry")
    monkeypatch.setitem(registry, "registered_by_the_caller", {})
    assert read_trainer(given)[0][option] == "registered_by_the_caller"


def test_a_strategy_that_divides_the_parameters_needs_no_optimizer_of_a_config() -> None:
    """The caller's module has its own. That a search takes one process is checked with its trainer."""
    from lrkit.api.caller_task import read_trainer

    for strategy in ("fsdp", "deepspeed", "ddp"):
        assert read_trainer({"max_epochs": 1, "strategy": strategy})[0]["strategy"] == strategy


SHORT = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none")


def test_train_and_compare_are_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = Net()
    mine = lrkit.train(*SHORT, "optimizer.lr=0.1", module=module, data=Data(), folder="mine/a", quiet=True)
    again = lrkit.train(*SHORT, "optimizer.lr=0.2", module=Net(), data=Data(), folder="mine/b", quiet=True)
    assert (mine.status, mine.folder, again.status) == ("done", Path("mine/a"), "done")
    assert json.loads(Path("mine/a/config.json").read_text())["model"] == {"_target_": "plain_lightning.Net"}
    comparison = lrkit.compare("mine", metric="val_loss")
    assert [*comparison.columns] == ["optimizer.lr"] and len(comparison.settings) == 2
    assert {file.name for file in Path("mine").iterdir()} == {"a", "b"}
    lrkit.compare("mine", metric="val_loss", out="told")
    assert Path("told/results.md").is_file()


def test_train_refuses_as_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, given, begins in (
        (["schedule=cosin"], {}, "schedule has no option 'cosin'. Did you mean 'cosine'?"),
        (["hydra.run.dir=x"], {}, "hydra.run.dir is not accepted by lrkit.train"),
        (["model=cnn1d"], {"module": Net()}, "model must not be set together with the argument model"),
        (
            ["trainer.devices=2"],
            {"module": Net(), "data": Data()},
            "trainer.devices must be 1 with the arguments module and data",
        ),
        (
            ["optimizer.lr=auto"],
            {"module": Net(), "data": Data()},
            "optimizer.lr must be a number together with the arguments",
        ),
        (["seed=1"], {"module": Net()}, "data=module needs a model with its own loaders"),
    ):
        with pytest.raises(ConfigError) as refused:
            lrkit.train(*words, **given)
        assert str(refused.value).startswith(begins)
    with pytest.raises(ConfigError, match=r"^folders must name at least one folder"):
        lrkit.compare()


def test_every_public_name_is_there() -> None:
    assert lrkit.__all__ == [
        "ConfigError", "Curve", "Guard", "Plan", "PlanScheduler", "Plateau", "compare", "configure", "curve", "find",
        "from_config", "plan", "predict", "schedules", "train", "translate",
    ]  # fmt: skip
    assert dir(lrkit) == sorted(lrkit.__all__)
    for name in lrkit.__all__:
        assert getattr(lrkit, name) is not None
    with pytest.raises(AttributeError, match="module 'lrkit' has no attribute 'confgure'"):
        lrkit.confgure  # type: ignore[attr-defined]  # noqa: B018


def test_no_function_hides_a_module() -> None:
    for name in lrkit.__all__:
        if importlib.util.find_spec(f"lrkit.{name}") is not None:
            assert isinstance(getattr(lrkit, name), ModuleType), name


def test_importing_lrkit_imports_nothing_heavy() -> None:
    code = "import sys; before = {*sys.modules}; import lrkit; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} <= {"__future__", "lrkit"}


def test_a_plan_imports_no_torch() -> None:
    code = "import lrkit, sys; lrkit.plan(lr=0.1, steps=10); sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def of_groups(*overrides: str) -> dict[str, Any]:
    names = ("optimizer", "schedule", "warmup", "cooldown", "plateau", "coschedule", "batch_scaling", "param_groups")
    config = compose(overrides)
    return {name: config[name] for name in names}


def test_groups_of_a_config_drive_a_plain_loop() -> None:
    cfg = of_groups("optimizer=adamw", "warmup=linear", "param_groups=no_decay", "plateau=reduce")
    model = torch.nn.Linear(2, 1)
    optimizer, scheduler = lrkit.from_config(OmegaConf.create({"app": 1, "rate": cfg}), model, steps=20, key="rate")
    plan, rates = lrkit.plan(lr=1e-3, steps=20, warmup="linear", param_groups={"no_decay": True}), []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates == [[plan.lr(group, t) for group in plan.groups] for t in range(20)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    optimizer, _ = lrkit.from_config(of_groups("optimizer=sgd"), model.parameters(), steps=20)
    assert len(optimizer.param_groups) == 1


GUARD = {"_target_": "lrkit.planning.guard.Guard", "policy": "skip"}


@pytest.mark.parametrize(
    ("change", "begins"),
    [
        ({"schedule": None}, "schedule must be set: mount one of"),
        ({"schedule": {"_target_": "lrkit.schedules.Cosine", "eta_min": 0}}, "schedule.eta_min"),
        ({"schedule": {"_target_": "os.system", "command": "true"}}, "schedule._target_"),
        ({"schedule": {"_target_": "torch.optim.SGD", "lr": 1}}, "schedule"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentun": 0.9}}, "optimizer.momentun is unknown"),
        ({"optimizer": {"_target_": "torch.optim.SGD"}}, "optimizer.lr must be set"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": "auto"}}, "optimizer.lr must be a number"),
        ({"warmup": {"_target_": "lrkit.schedules.Linear", "length": 5, "end": 0.5}}, "warmup.end must not be set"),
        ({"warmup": {"length": 5}}, "warmup.length is not a key of warmup=none"),
        ({"batch_scaling": {"rule": "linear", "base": 3}}, "batch_scaling.base is not a key."),
        (
            {"guard": {"_target_": "lrkit.planning.guard.Guard", "policy": "skip", "gain": 0.5}},
            "guard.gain has no effect",
        ),
        ({"param_groups": {"no_decay": True}}, "param_groups needs the argument model"),
        ({"optimizers": {"a": {}}}, "optimizers is not"),
    ],
)
def test_groups_of_a_config_are_checked_as_by_the_command(change: dict[str, Any], begins: str) -> None:
    groups = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "schedule": {"_target_": "lrkit.schedules.Cosine"},
        **change,
    }
    for key in ("", "rate"):
        with pytest.raises(ConfigError) as refused:
            lrkit.from_config({key: groups} if key else groups, torch.nn.Linear(1, 1).parameters(), steps=9, key=key)
        assert str(refused.value).startswith(f"{key}.{begins}" if key else begins)
    with pytest.raises(ConfigError, match=r"^rate.shcedule is not a group. Did you mean 'schedule'"):
        lrkit.from_config({"rate": {"shcedule": {}}}, module=Net(), key="rate")


EXAMPLES = Path(__file__).parents[1] / "examples"
of_pytorch_lightning = pytest.mark.skipif(PACKAGE != "pytorch_lightning", reason="the examples import the other one")


@of_pytorch_lightning
@pytest.mark.parametrize("words", [[], ["schedule=one_cycle", "optimizer=momentum", "warmup=none"]])
def test_another_hydra_application(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *words, f"hydra.run.dir={tmp_path}", "hydra/job_logging=none"])
    runpy.run_path(str(EXAMPLES / "hydra_app" / "app.py"), run_name="__main__")
    assert "loss 0." in capsys.readouterr().out


@of_pytorch_lightning
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(("name", "says"), [("torch_loop", "loss 0.1"), ("lightning_script", "confirmed by")])
def test_the_example(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    said = capsys.readouterr().out
    assert says in said and "lr[group, t] = " in said
