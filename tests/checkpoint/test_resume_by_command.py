"""Resume by the command: with the run's own config, by each policy, from each checkpoint."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, ClassVar

import failing_parts
import pytest
import torch
from interrupted_runs import weights
from recorded_rates import Recorded
from torch import Tensor, nn

from lrkit.cli.main import main
from lrkit.cli.sweep import run_job
from lrkit.lightning.imports import Callback, LightningModule
from lrkit.planning.plan import Plan
from lrkit.sweep.sweep import Sweep

#: 24 steps, 6 an epoch, none of them of the default config.
BASE = ["trainer.max_epochs=4", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "model.hidden=[8]",
        "model.dropout=0.3", "logger=none"]  # fmt: skip
SHAPE = ["warmup=linear", "warmup.length=5", "optimizer=adamw", "optimizer.lr=0.01", "schedule=step",
         "schedule.every=1ep", "seed=3"]  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
]


def new(*words: str, code: int = 0) -> Path:
    assert main(["train", *BASE, *words]) == code
    return newest()


def on(*words: str, code: int = 0) -> Path:
    """Go on, and type no more than that."""
    assert main(["train", *words]) == code
    return newest()


def newest() -> Path:
    return max(Path("outputs/runs").iterdir(), key=lambda folder: folder.stat().st_mtime)


def plan_of(folder: Path) -> Plan:
    return Plan.from_json(json.loads((folder / "plan.json").read_text()))


def rates(recorded: Recorded) -> list[float]:
    return [step["default"][0] for step in recorded]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def same(one: Path, other: Path) -> bool:
    before, after = weights(one), weights(other)
    return all(torch.equal(before[name], after[name]) for name in before)


class HaltAt(Callback):
    """Stops a run normally, once: the resumed run has this callback too."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.at


class Late(LightningModule):
    """Makes its layers when the training is set up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def setup(self, stage: str) -> None:
        self.body = nn.Sequential(nn.Linear(4, self.width), nn.ReLU(), nn.Linear(self.width, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.body(batch["features"]), batch["label"])


class Epochs(Callback):
    """Wants the validation loss at the end of each epoch, and counts the steps of each."""

    seen: ClassVar[list[int]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        assert {"val/loss", "val_loss"} & {*trainer.callback_metrics}
        Epochs.seen.append(trainer.global_step)


HALT = "+callbacks.halt={{_target_: test_resume_by_command.HaltAt, at: {}}}"
TRUST = ["--trust", "test_resume_by_command"]


class TestItsOwnConfig:
    def test_nothing_needs_to_be_typed_again(self, recorded: Recorded) -> None:
        whole = new(*SHAPE)
        one = rates(recorded)
        recorded.clear()
        folder = new(*SHAPE, HALT.format(9))
        assert on(*TRUST, f"resume.path={folder}") == folder
        assert rates(recorded) == one and same(whole, folder)

    def test_the_line_of_the_readme(self, recorded: Recorded) -> None:
        folder = new("warmup=linear", "warmup.length=5", HALT.format(12))
        recorded.clear()
        new_ = on("trainer.max_epochs=8", f"resume.path={folder}", "resume.policy=extend", "~callbacks.halt")
        assert len(recorded) == 36 and plan_of(new_).warmup_steps == 5

    def test_what_is_typed_wins(self) -> None:
        folder = new(*SHAPE, HALT.format(12))
        config = plan_of(on("seed=5", "schedule=cosine", "schedule.end=0.1", "test=true",
                            "+callbacks.halt.at=-1", *TRUST, f"resume.path={folder}",
                            "resume.policy=override")).config  # fmt: skip
        assert (config["schedule"]["_target_"], config["schedule"]["end"]) == ("lrkit.schedules.Cosine", 0.1)
        assert "every" not in config["schedule"] and config["warmup"]["length"] == 5
        assert (config["seed"], config["data"]["seed"], config["test"]) == (5, 5, True)
        assert config["callbacks"]["halt"] == {"_target_": "test_resume_by_command.HaltAt", "at": -1}

    def test_a_checkpoint_alone_has_it_too(self, recorded: Recorded, tmp_path: Path) -> None:
        folder = new(*SHAPE, HALT.format(9))
        alone = tmp_path / "elsewhere" / "some.ckpt"
        alone.parent.mkdir()
        (folder / "checkpoints" / "last.ckpt").rename(alone)
        recorded.clear()
        on(f"resume.path={alone}", "~callbacks.halt")
        assert len(recorded) == 15

    def test_a_class_of_ones_own_needs_trust(self, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(HALT.format(9))
        recorded.clear()
        on(f"resume.path={folder}", code=2)
        said = last_line(capsys)
        assert "--trust test_resume_by_command" in said and not recorded
        assert f"keep the values of the run in {folder}" in said

    def test_a_file_must_not_trust_by_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(HALT.format(9))
        plan = json.loads((folder / "plan.json").read_text())
        assert "test_resume_by_command.HaltAt" in plan["config"]["trust"]
        plan["config"]["model"]["hidden"] = "${oc.env:HOME}"
        (folder / "plan.json").write_text(json.dumps(plan))
        on(*TRUST, f"resume.path={folder}", code=2)
        assert "resume.path must contain a config without interpolations" in last_line(capsys)

    def test_a_key_that_is_not_there_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(*SHAPE, HALT.format(9))
        on("schedule.gama=0.5", *TRUST, f"resume.path={folder}", code=2)
        assert last_line(capsys).startswith("lrkit: schedule.gama is not a key. Did you mean 'gamma'?")
        on("warmup.lenght=3", *TRUST, f"resume.path={folder}", code=2)
        assert last_line(capsys).startswith("lrkit: warmup.lenght is not a key. Did you mean 'length'?")

    def test_it_can_be_looked_at(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(*SHAPE)
        capsys.readouterr()
        assert main(["train", "--cfg", "job", "warmup.length=7", f"resume.path={folder}"]) == 0
        said = capsys.readouterr().out
        assert "length: 7" in said and "torch.optim.AdamW" in said


class TestExtend:
    def test_a_finished_run_goes_on_in_its_shape(self, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new()
        recorded.clear()
        longer = on("trainer.max_epochs=8", f"resume.path={folder}", "resume.policy=extend")
        plan = plan_of(longer)
        assert rates(recorded) == [plan.lr(plan.groups[0], t) for t in range(24, 48)]
        assert rates(recorded)[0] == pytest.approx(0.05) and plan.curve(48) == 0.0
        line = "note: extended from step 24 to step 48: the rate continues at 0.05 and ends at 0.0001071"
        assert f"{line}; the run had ended at 0, so its shape covers all 48 steps" in capsys.readouterr().out

    def test_of_one_that_is_under_way_the_rates_are_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(HALT.format(12))
        on("trainer.max_epochs=8", *TRUST, f"resume.path={folder}", "resume.policy=extend")
        assert (
            "note: extended from step 12 to step 48: the rate continues at 0.05 and ends at" in capsys.readouterr().out
        )

    def test_one_that_holds_its_last_value_holds_it(self, recorded: Recorded) -> None:
        folder = new("schedule.length=6", "schedule.end=0.1", HALT.format(12))
        recorded.clear()
        on("trainer.max_epochs=6", *TRUST, f"resume.path={folder}", "resume.policy=extend")
        assert rates(recorded) == pytest.approx([0.01] * 24)

    def test_a_rate_of_0_is_refused(self, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new("schedule.length=6", HALT.format(12))
        recorded.clear()
        on("trainer.max_epochs=6", *TRUST, f"resume.path={folder}", "resume.policy=extend", code=2)
        assert "resume.policy=extend would continue at a rate of 0 until step 36: use override" in last_line(capsys)
        assert not recorded

    def test_what_else_differs_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(HALT.format(12))
        on(
            "trainer.max_epochs=8",
            "data.batch_size=16",
            *TRUST,
            f"resume.path={folder}",
            "resume.policy=extend",
            code=2,
        )
        assert last_line(capsys) == (
            "lrkit: resume.policy=extend changes only the length, and samples a step (32 a device x 1 x accumulate 1"
            " then, 16 a device x 1 x accumulate 1 now) differs too: use override."
        )


class TestCooldown:
    def test_from_a_rate_of_0_it_is_refused(self, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new()
        recorded.clear()
        on("cooldown=linear", "cooldown.length=5", f"resume.path={folder}", "resume.policy=cooldown", code=2)
        said = last_line(capsys)
        assert said.startswith("lrkit: resume.policy=cooldown must begin above 0, and at step 24 the rate is 0")
        assert not recorded

    def test_it_does_not_rise(self, capsys: pytest.CaptureFixture[str]) -> None:
        folder = new(HALT.format(12))
        on("cooldown=linear", "cooldown.length=5", "cooldown.end=0.7", *TRUST, f"resume.path={folder}",
           "resume.policy=cooldown", code=2)  # fmt: skip
        assert (
            last_line(capsys) == "lrkit: cooldown.end must not be above 0.5, where the cooldown begins. Received: 0.7"
        )

    def test_a_cooldown_that_was_stopped_goes_on(self, recorded: Recorded) -> None:
        """The rate of a cooldown is in no config: it falls from its rate at the checkpoint."""
        trunk = new("schedule=constant", HALT.format(9))
        down = ["cooldown=linear", "cooldown.length=10", f"resume.path={trunk}", "resume.policy=cooldown"]
        on(*down, "+callbacks.halt.at=-1", *TRUST)
        one = rates(recorded)[-10:]
        recorded.clear()
        stopped = on(*down, "+callbacks.halt.at=13", *TRUST)
        on(*TRUST, f"resume.path={stopped}")
        assert rates(recorded) == one and one[-1] == pytest.approx(0.01)


STOPPING = {
    "early stopping": "+callbacks.e={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss,"
    " patience: 9}",
    "plateau": "plateau=reduce",
    "a callback": "+callbacks.c={_target_: test_resume_by_command.Epochs}",
}
POLICIES = {
    "none": [],
    "restore": ["optimizer.lr=0.3"],
    "override": ["optimizer.lr=0.05"],
    "extend": ["trainer.max_epochs=6"],
    "cooldown": ["cooldown=linear", "cooldown.length=7"],
    "restart": [],
}


@pytest.mark.filterwarnings("error:.*could not find the monitored key")
@pytest.mark.parametrize("at", [12, 15], ids=["end", "within"])
@pytest.mark.parametrize(
    "policy", [pytest.param(p, marks=() if p in ("none", "cooldown") else pytest.mark.slow) for p in POLICIES]
)
def test_no_epoch_without_a_step(policy: str, at: int, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """By each policy, from the end of an epoch and from within one, with all that waits for a metric."""
    Epochs.seen = []
    trunk = new(*STOPPING.values(), HALT.format(at), "schedule=constant")
    recorded.clear()
    capsys.readouterr()
    Epochs.seen = []
    named = [] if policy == "none" else [f"resume.policy={policy}"]
    on(*POLICIES[policy], *TRUST, "~callbacks.halt", f"resume.path={trunk}", *named)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    steps = [int(line.split("step ")[1].split()[0]) for line in lines]
    assert steps == sorted(set(steps)) == Epochs.seen
    assert steps[0] > (0 if policy == "restart" else at) and all("val/loss" in line for line in lines)
    assert len(recorded) == steps[-1] - (0 if policy == "restart" else at)


@pytest.mark.parametrize("limit", ["trainer.max_steps=24", "trainer.max_epochs=4"])
def test_nor_from_the_best_checkpoint(limit: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is saved before its epoch has ended."""
    waits = [STOPPING[name].replace("val/loss", "val_loss") for name in ("early stopping", "a callback")]
    words = [*waits, "schedule=constant", "logger=none", limit, "model=custom", "data=custom", "data.batch_size=10",
             "model._target_=plain_lightning.Scripted", "data._target_=plain_lightning.Data"]  # fmt: skip
    assert main(["train", *words, *["trainer.max_epochs=-1"] * ("max_steps" in limit)]) == 0
    folder, best = newest(), 12
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == best
    capsys.readouterr()
    recorded.clear()
    on(*TRUST, "--trust", "plain_lightning", f"resume.path={folder}/checkpoints/best.ckpt")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(recorded) == 24 - best and len(lines) == len(recorded) // 6


class TestTheCommandToGoOnWith:
    @pytest.mark.parametrize("policy", ["", "extend"])
    def test_has_its_flags(self, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        own = tmp_path / "my configs" / "callbacks"
        own.mkdir(parents=True)
        signal = "signal: {_target_: failing_parts.SignalAt, step: 14, name: SIGTERM}"
        (own / "mine.yaml").write_text(f"{signal}\n")
        more = ["--traceback", "--config-dir", "my configs", "--trust", "failing_parts", "callbacks=mine"]
        if policy:
            trunk = new(HALT.format(12))
            more += ["trainer.max_epochs=6", f"resume.path={trunk}", "resume.policy=extend"]
            assert main(["train", *more]) == 143
        else:
            assert main(["train", *more, *BASE, "hydra.run.dir='a folder, of mine'"]) == 143
        line = last_line(capsys)
        command = shlex.split(line.partition("go on with: ")[2])
        assert command[:6] == ["lrkit", "train", "--traceback", "--config-dir", "my configs", "--trust"]
        assert main(command[1:]) == 0  # the signal does not come again: its step is passed

    def test_of_a_job_of_a_sweep_too(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        own = tmp_path / "cfg" / "callbacks"
        own.mkdir(parents=True)
        (own / "mine.yaml").write_text("signal: {_target_: failing_parts.SignalAt, step: 3, name: SIGTERM}\n")
        words = [*BASE, "trust=[failing_parts]", "callbacks=mine", "seed=2"]
        (tmp_path / "job").mkdir()
        assert run_job([*words, "hydra.run.dir='job'"], "cfg") == 143
        command = shlex.split(last_line(capsys).partition("go on with: ")[2])
        assert command == ["lrkit", "train", "--config-dir", "cfg", *words, "resume.path=job"]


class TestAnotherModel:
    @pytest.mark.parametrize("policy", ["", "override", "restart"])
    def test_it_is_refused_with_a_table(
        self, policy: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = new(HALT.format(9))
        recorded.clear()
        named = [f"resume.policy={policy}"] if policy else []
        on("model.hidden=[16]", *TRUST, f"resume.path={folder}", *named, code=2)
        *table, said = capsys.readouterr().err.splitlines()
        assert said.startswith("lrkit: model must have the parameters of last.ckpt, step 9; 3 differ")
        assert any(row.split() == ["model.body.0.weight", "(8,", "64)", "(16,", "64)"] for row in table), table
        assert not recorded

    def test_that_makes_its_layers_late(self, recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["model=custom", "model._target_=test_resume_by_command.Late", "+model.width=8", "logger=none",
                 "data=custom", "data._target_=plain_lightning.OnlyTraining", "data.batch_size=8",
                 "trainer.max_epochs=2", HALT.format(3)]  # fmt: skip
        assert main(["train", *words]) == 0
        recorded.clear()
        on("model.width=4", *TRUST, "--trust", "plain_lightning", f"resume.path={newest()}", code=2)
        assert "model must have the parameters of last.ckpt" in last_line(capsys) and not recorded


class TestOneProcess:
    def test_a_second_one_is_refused_until_the_first_is_dead(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        base = [word for word in BASE if "max_epochs" not in word]
        first = failing_parts.start(["train", *base, "trainer.max_epochs=4000", "hydra.run.dir=it"], tmp_path)
        failing_parts.until(lambda: (tmp_path / "it" / "checkpoints" / "previous.ckpt").exists(), first)
        before = (tmp_path / "it" / "plan.json").read_bytes(), sorted((tmp_path / "it" / ".hydra").iterdir())
        try:
            assert main(["train", "resume.path=it"]) == 2
            said = last_line(capsys)
            assert said.startswith("lrkit: resume.path must be a folder without a running process")
            assert first.is_alive()
            assert (
                (tmp_path / "it" / "plan.json").read_bytes(),
                sorted((tmp_path / "it" / ".hydra").iterdir()),
            ) == before
        finally:
            first.kill()
            first.join()
        assert main(["train", "seed=9", "resume.path=it"]) == 2  # for another reason
        assert last_line(capsys).startswith("lrkit: resume.policy must be set, because the plan differs")


class TestASweepOfSweeps:
    @pytest.mark.parametrize("words", ["+sweep=schedules,lr_sensitivity", "+launcher=joblib,ray"])
    def test_is_refused(self, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["train", "-m", words, *BASE]) == 2
        key, _, values = words.lstrip("+").partition("=")
        assert last_line(capsys) == (
            f"lrkit: {key} takes one option: it configures the sweep, and a job cannot. Received: '{values}'"
        )
        assert not Path("outputs").exists()

    def test_one_value_is_one_job(self, tmp_path: Path) -> None:
        words = ["optimizer.lr=0.1,0.05,0.10", "seed=1,1", "schedule=cosine,'cosine'"]
        assert [job.label for job in Sweep(words, tmp_path).jobs] == [
            f"optimizer.lr={lr},seed=1,schedule=cosine" for lr in ("0.1", "0.05")
        ]
