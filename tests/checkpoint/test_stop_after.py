"""``horizon.stop_after``: the first steps of a longer schedule; resumed, it is the uninterrupted run, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import same_weights
from plain_lightning import Data, Net, Points
from recorded_rates import Recorded
from torch.utils.data import DataLoader

import lrkit
from lrkit.base.errors import ConfigError, RunError
from lrkit.cli.main import main
from lrkit.config import compose as configs
from lrkit.lightning.imports import Callback, Trainer
from lrkit.planning import render
from lrkit.planning.picture import draw_picture
from lrkit.planning.plan import Plan

#: 24 steps, 6 an epoch.
BASE = ("trainer.max_epochs=4", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "model.hidden=[8]",
        "model.dropout=0.3", "logger=none")  # fmt: skip
#: Each validation reduces the rate, also one that only the stop brings.
TOUCHY = ("plateau=reduce", "plateau.patience=0", "plateau.threshold=0.9", "plateau.factor=0.5")
GAN = ("model=custom", "data=custom", "data._target_=several_optimizers.Data", "data.batch_size=10",
       "model._target_=several_optimizers.GAN", "optimizer=adam", "trainer.limit_train_batches=null",
       "optimizers={generator: {}, discriminator: {optimizer: {lr: 4e-4}}}")  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
]


def metrics(folder: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(Path(folder, "metrics.json").read_text())
    return said


def train(*words: str, code: int = 0) -> None:
    assert main(["train", *words]) == code


def over(*words: str) -> list[str]:
    """The base without what the words say, and without the options of lrkit's own network where they name another."""
    said = {word.partition("=")[0] for word in words}
    own = ("model." if "model" in said else "-",)
    return [word for word in BASE if word.partition("=")[0] not in said and not word.startswith(own)]


def stopped_and_resumed(recorded: Recorded, stops: tuple[str, ...], *words: str, trust: str = "") -> list[Any]:
    """A whole run, and one that stops some times; the rates of both are equal, the weights too. The rates."""
    flags = ["--trust", trust] if trust else []
    base = over(*words)
    train(*flags, *base, *words, "hydra.run.dir=whole")
    one = [*recorded]
    recorded.clear()
    first, *later = stops
    train(*flags, *base, *words, f"horizon.stop_after={first}", "hydra.run.dir=part")
    assert metrics("part")["status"] == "stopped"
    for stop in (*later, "null"):
        torch.rand(7)  # the process goes on, and its random numbers with it
        train(*flags, "resume.path=part", f"horizon.stop_after={stop}")
    assert recorded == one
    assert same_weights(Path("whole"), Path("part"))
    assert metrics("part")["final"] == metrics("whole")["final"]
    assert metrics("part")["status"] == metrics("whole")["status"] == "done"
    return one


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    stopped_and_resumed(recorded, ("9",), "warmup=linear", "warmup.length=5", "optimizer=adamw", *TOUCHY)
    said = capsys.readouterr().out
    assert "stops after 9 of 24 steps (schedule goes on)" in said
    assert "stopped at step 9 of 24 by horizon.stop_after=9; the schedule goes on with: lrkit train " in said
    assert " resume.path=part horizon.stop_after=null\n" in said
    assert json.loads(Path("part/plan.json").read_text())["horizon"]["stop_after"] is None


@pytest.mark.slow
def test_the_best_checkpoint_of_the_stop_is_known_after_it(tmp_path: Path) -> None:
    # The rate is 0 after the stop: its validation stays the best, and no later one replaces its file.
    words = ("schedule=multistep", "schedule.milestones=[9]", "schedule.gamma=1e-30", "model.dropout=0")
    lrkit.train(*over(*words), *words, "horizon.stop_after=9", folder=tmp_path, quiet=True)
    assert metrics(str(tmp_path))["best"]["step"] == 9
    lrkit.train(f"resume.path={tmp_path}", "horizon.stop_after=null", quiet=True)
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["lrkit"]["step"] == metrics(str(tmp_path))["best"]["step"] == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("schedule=one_cycle", "optimizer=adamw", *TOUCHY),
        ("optimizer=schedule_free_adamw", "optimizer.lr=0.01", "schedule=constant"),
        ("guard=reduce", "trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=12"),
        ("trainer.val_check_interval=3", *TOUCHY),  # a stop right before a validation that is there anyway
        ("trainer.check_val_every_n_epoch=2", "trainer.max_steps=21"),
        ("trainer.max_epochs=-1", "trainer.max_steps=24"),
        ("horizon.steps=24", "cooldown=linear", "cooldown.length=6"),
        ("+callbacks.early={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss, patience: 3}",),
        ("param_groups=no_decay", "schedule@coschedule.weight_decay=linear", "optimizer=adamw", "test=true"),
        ("trainer.limit_val_batches=0",),
        ("callbacks=ema",),
        GAN,
        (*GAN, "trainer.check_val_every_n_epoch=2"),
    ],
    ids=str,
)
def test_with_every_other_option(words: tuple[str, ...], recorded: Recorded) -> None:
    trust = "several_optimizers" if words[: len(GAN)] == GAN else ""
    stopped_and_resumed(recorded, ("3", "6", "1.5ep"), *words, trust=trust)


class Hooks(Callback):
    """Changes the random numbers and its own state in the hooks that a stop within an epoch calls."""

    def __init__(self) -> None:
        self.ends = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.ends += 1
        torch.rand(3)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            with torch.no_grad():
                next(iter(pl_module.parameters())).mul_(0.9)

    def state_dict(self) -> dict[str, Any]:
        return {"ends": self.ends}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.ends = state_dict["ends"]


@pytest.mark.slow
def test_hooks_that_the_stop_calls_are_not_in_its_checkpoint(recorded: Recorded) -> None:
    words = ("+callbacks.own={_target_: test_stop_after.Hooks}",)
    stopped_and_resumed(recorded, ("9", "13"), *words, trust="test_stop_after")
    kept = torch.load("part/checkpoints/last.ckpt", weights_only=True)["callbacks"]
    assert next(state for name, state in kept.items() if "Hooks" in name) == {"ends": 4}


class TestResume:
    """What is said, and what the policies do, from one run that stopped at step 9 of 24."""

    @pytest.fixture
    def stopped(self) -> str:
        train(*BASE, "horizon.stop_after=9", "hydra.run.dir=part")
        return "resume.path=part"

    def test_without_another_word_it_names_the_key(self, stopped: str, capsys: pytest.CaptureFixture[str]) -> None:
        train(stopped, code=2)
        assert capsys.readouterr().err == (
            "lrkit: horizon.stop_after must be later than step 9 of 24, where the run has stopped, or null for the rest"
            " of its schedule. Received: 9\n"
        )

    @pytest.mark.slow
    def test_so_it_does_under_each_policy(self, stopped: str) -> None:
        train(stopped, "horizon.stop_after=5", code=2)
        train(stopped, "resume.policy=extend", "trainer.max_epochs=6", code=2)
        train(stopped, "resume.policy=restore", code=2)

    @pytest.mark.slow
    def test_the_policies(self, stopped: str, recorded: Recorded) -> None:
        recorded.clear()
        train(stopped, "resume.policy=restore", "horizon.stop_after=null", "hydra.run.dir=restored")
        assert len(recorded) == 15 and metrics("restored")["status"] == "done"
        recorded.clear()
        cooldown = ("resume.policy=cooldown", "cooldown=linear", "cooldown.length=4")
        train(stopped, *cooldown, "hydra.run.dir=cooled")
        assert len(recorded) == 4 and metrics("cooled")["status"] == "done"
        recorded.clear()
        train(stopped, *cooldown, "hydra.run.dir=half", "horizon.stop_after=11")
        train("resume.path=half", "horizon.stop_after=null")
        assert len(recorded) == 4 and same_weights(Path("half"), Path("cooled"))
        recorded.clear()
        more = ("resume.policy=extend", "trainer.max_epochs=6", "horizon.stop_after=20")
        train(stopped, *more, "hydra.run.dir=extended")
        train("resume.path=extended", "horizon.stop_after=null")
        assert len(recorded) == 36 - 9 and metrics("extended")["status"] == "done"

    @pytest.mark.slow
    def test_a_checkpoint_of_an_earlier_lrkit(self, recorded: Recorded) -> None:
        train(*BASE, "hydra.run.dir=whole")
        train(*BASE, "horizon.stop_after=9", "hydra.run.dir=part")
        file = Path("part/checkpoints/last.ckpt")
        content = torch.load(file, weights_only=True)
        plan = json.loads(content["lrkit"]["plan"])
        for name in ("stop_after", "tokens_per_sample"):
            del plan["horizon"][name], plan["config"]["horizon"][name]
        content["lrkit"]["plan"] = json.dumps(plan)
        torch.save(content, file)
        Path("part/plan.json").write_text(json.dumps(plan))
        train("resume.path=part")
        assert same_weights(Path("whole"), Path("part"))


REFUSED = [
    # words
    #     the sentence
    ("horizon.stop_after=0",
        "horizon.stop_after must be longer than 0, or null. Received: 0"),
    ("horizon.stop_after=[5]",
        "horizon.stop_after must be a length: 500 (optimizer steps), "),
    ("horizon.stop_after=571",
        "horizon.stop_after must be at most the length of the run, 570 optimizer steps (15 epochs x 38): it stops a run"
        " early. Received: 571"),
    ("horizon.stop_after=5e6tok",
        "horizon.stop_after needs the number of tokens in a sample, which is not known: set horizon.tokens_per_"),
    ("horizon.steps=1000 trainer.max_steps=200",
        "horizon.steps must be trainer.max_steps, 200, or null; the first 200 steps of a run of 1000 are"
        " horizon.stop_after=200. Received: 1000"),
    ("horizon.steps=1000 trainer.max_steps=200 horizon.stop_after=300",
        "horizon.stop_after must be at most trainer.max_steps, 200. Received: 300"),
    ("horizon.stop_after=20 trainer.min_epochs=2",
        "horizon.stop_after must be at least trainer.min_epochs, 76 optimizer steps. Received: 20"),
    ("horizon.stop_after=20 trainer.min_steps=30",
        "horizon.stop_after must be at least trainer.min_steps, 30 optimizer steps. Received: 20"),
    ("horizon.stop_after=1 trainer.fast_dev_run=true",
        "horizon.stop_after and trainer.fast_dev_run cannot be used together: both set the length of the run."),
    ("horizon.tokens_per_sample=0",
        "horizon.tokens_per_sample must be a whole number >= 1, or null. Received: 0"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_what_cannot_be_meant(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.plan(configs.compose(words.split()))
    assert str(caught.value).startswith(sentence)


def test_the_trainer_must_come_as_far(capsys: pytest.CaptureFixture[str]) -> None:
    train(*BASE, "horizon.steps=1000", "horizon.stop_after=25", code=2)
    must = "horizon.stop_after must be at most 24, the number of optimizer steps that the trainer takes. Received: 25"
    assert must in capsys.readouterr().err


class TestShow:
    def test_every_form_has_a_mark(self, tmp_path: Path) -> None:
        config = configs.compose([*BASE, "horizon.stop_after=25%", "param_groups=no_decay"])
        plan = configs.plan(config)
        assert (plan.horizon.steps, plan.horizon.stop_after, plan.horizon.end) == (24, 6, 6)
        assert "stops after 6 of 24 steps (schedule goes on)" in render.render_text(plan)
        rows = [row.split(",") for row in render.render_csv(plan).splitlines()]
        assert rows[0][-1] == "stopped" and [row[-1] for row in rows[1:]] == ["0"] * 6 + ["1"] * 18
        assert Plan.from_json(json.loads(render.render_json(plan))) == plan
        longer = configs.plan(configs.compose([*BASE, "horizon.stop_after=24"]))
        assert longer.horizon.stop_after is None and "stop" not in render.render_csv(longer)
        pytest.importorskip("matplotlib")
        assert (tmp_path / "a.svg").write_text("") == 0
        drawn = draw_picture({"": plan}, tmp_path / "a.svg").read_text()
        assert "stops after 6" in drawn

    def test_the_rates_are_those_of_the_whole_run(self) -> None:
        whole, part = (configs.plan(configs.compose([*BASE, *more])) for more in ((), ("horizon.stop_after=7",)))
        assert [part.lr(part.groups[0], t) for t in range(24)] == [whole.lr(whole.groups[0], t) for t in range(24)]

    def test_each_track_stops_with_the_run(self) -> None:
        words = (*over(*GAN), *GAN[:-1], "data.train_samples=60")
        tracks = "optimizers={generator: {every: 5}, discriminator: {}}"
        plan = configs.plan(configs.compose([*words, tracks, "horizon.stop_after=13"]))
        assert {name: own.horizon.stop_after for name, own in plan.tracks.items()} == {
            "generator": 5, "discriminator": 13,
        }  # fmt: skip


class TestTokens:
    def test_text_has_its_context(self) -> None:
        words = ["data=text", "model=char_transformer", "warmup=linear", "warmup.length=1e5tok"]
        plan = configs.plan(configs.compose(words))
        assert plan.horizon.tokens_per_sample == 64 and plan.warmup_steps == round(1e5 / (64 * 64))
        assert "4096 tokens a step (64 samples x 64: data.context); 6.144e+06 tokens in all" in render.render_text(plan)

    def test_other_data_has_a_key(self) -> None:
        words = [
            "horizon.tokens_per_sample=10",
            "schedule=step",
            "schedule.every=32000tok",
            "horizon.stop_after=64e3tok",
        ]
        plan = configs.plan(configs.compose(words))
        assert plan.horizon.stop_after == 200 and plan.curve.edges[1] == 100
        made = lrkit.plan(lr=0.1, steps=1000, batch_size=32, tokens_per_sample=10, stop_after="64e3tok")
        assert made.horizon.stop_after == 200


class TestOwnTrainer:
    """``lrkit.configure`` in a script of plain Lightning."""

    def fit(self, module: Any, folder: Path, checkpoint: Path | None = None, **how: Any) -> Trainer:
        torch.manual_seed(0)
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = Trainer(default_root_dir=folder, accelerator="cpu", enable_checkpointing=False, **quiet, **how)
        loader = DataLoader(Points(60), batch_size=10)  # 6 batches
        trainer.fit(module, loader, DataLoader(Points(20), batch_size=10), ckpt_path=checkpoint, weights_only=True)
        return trainer

    def test_a_trainer_that_ends_early_must_be_meant(self, tmp_path: Path) -> None:
        module = lrkit.configure(Net(), lr=0.1, steps=24)
        with pytest.raises(
            ConfigError, match=r"^steps must be 7, .*; the first 7 steps of a run of 24 are stop_after=7"
        ):
            self.fit(module, tmp_path, max_steps=7)
        module = lrkit.configure(Net(), lr=0.1, steps=24, stop_after=9)
        with pytest.raises(
            ConfigError, match=r"^stop_after must be at most 7, the number of optimizer steps that the "
        ):
            self.fit(module, tmp_path, max_steps=7)

    @pytest.mark.slow
    def test_the_first_steps_and_the_rest_are_the_whole(self, tmp_path: Path, recorded: Recorded) -> None:
        whole, part, rest = (Net() for _ in range(3))
        part.load_state_dict(whole.state_dict())
        self.fit(lrkit.configure(whole, lr=0.1), tmp_path, max_epochs=4)
        one = [*recorded]
        recorded.clear()
        trainer = self.fit(lrkit.configure(part, lr=0.1, stop_after="50%"), tmp_path, max_epochs=4)
        assert (trainer.global_step, trainer.max_steps) == (12, -1)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        self.fit(lrkit.configure(rest, lr=0.1), tmp_path, tmp_path / "a.ckpt", max_epochs=4)
        assert recorded == one
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, rest.state_dict()[name])
        recorded.clear()
        meant = lrkit.configure(Net(), lr=0.1, steps=24, stop_after=7)
        self.fit(meant, tmp_path, max_steps=7)
        assert recorded == one[:7]

    def test_from_config_has_the_argument(self) -> None:
        cfg = {
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "schedule": {"_target_": "lrkit.schedules.Linear"},
        }
        _, scheduler = lrkit.from_config(cfg, torch.nn.Linear(1, 1), steps=10, stop_after=4)
        assert (scheduler.plan.horizon.steps, scheduler.plan.horizon.end) == (10, 4)


class TwoSteps(Net):
    """Takes its steps itself, two in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        optimizer: Any = self.optimizers()
        loss: torch.Tensor = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for _ in range(2):
            optimizer.step()
        return loss


@pytest.mark.slow
def test_a_module_that_steps_twice_in_a_batch_is_told() -> None:
    with pytest.raises(
        RunError, match=r"^horizon\.stop_after=7 is between two steps of one batch: TwoSteps takes step 8"
    ):
        lrkit.train(
            *BASE[:3], "logger=none", "horizon.steps=48", "horizon.stop_after=7", module=TwoSteps(), data=Data()
        )


@pytest.mark.slow
def test_a_track_that_leaves_out_a_step_has_failed_at_the_stop(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace(".GAN", ".Hasty") for word in GAN]
    train(*over(*words), *words, "horizon.stop_after=3", code=1)
    assert "generator: 3 steps were planned, 2 were taken" in capsys.readouterr().err


@pytest.mark.slow
def test_find_searches_for_the_whole_schedule(tmp_path: Path) -> None:
    words = [*BASE, "find.confirm=false", "find.repeats=1", "find.steps=30"]
    found = [lrkit.find([*words, *more], quiet=True).lr for more in ((), ("horizon.stop_after=5",))]
    assert found[0] == found[1]
