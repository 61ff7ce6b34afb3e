"""Resume by the command in the same folder: one continuous curve, and the other files unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted_runs import Stop, weights
from recorded_rates import Recorded
from short_runs import without_callbacks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from two_processes import both_ranks

from lrkit.cli.main import main
from lrkit.config.saved_config import find_run_folder
from lrkit.planning.plan import Plan

#: 24 steps, 6 an epoch; shuffled data and dropout, so that a wrong place or a wrong random number shows.
BASE = {"trainer.max_epochs": "4", "trainer.limit_train_batches": "6", "trainer.limit_val_batches": "1",
        "model.hidden": "[8]", "model.dropout": "0.3", "logger": "none"}  # fmt: skip
STOP = "+callbacks.stop={_target_: interrupted_runs.Stop}"


@pytest.fixture(autouse=True)
def elsewhere(elsewhere: None) -> Iterator[None]:
    """An unrelated folder, and nothing left behind in it or in the process."""
    yield
    Stop.at = None


def halt(at: int) -> str:
    return f"+callbacks.halt={{_target_: interrupted_runs.Halt, at: {at}}}"


def words(*overrides: str) -> list[str]:
    """The command line; a model of the user's own has none of the options of lrkit's."""
    given = {o.partition("=")[0] for o in overrides}
    kept = {k: v for k, v in BASE.items() if k not in given and not ("model" in given and k.startswith("model."))}
    return ["train", *(f"{key}={value}" for key, value in kept.items()), *overrides]


def folders() -> list[Path]:
    return sorted(Path("outputs/runs").iterdir(), key=lambda folder: folder.stat().st_mtime)


def train(*overrides: str, code: int = 0) -> Path:
    """Run a command line that must end with ``code``; return the newest folder of a run.

    A callback that ended the run is left out when the run is resumed.
    """
    path = next((o.partition("=")[2] for o in overrides if o.startswith("resume.path=")), ".")
    folder = find_run_folder(path)
    left = [] if folder is None else without_callbacks(folder, *overrides)
    assert main(words(*overrides, *left)) == code
    return folders()[-1]


def dies(at: int, *overrides: str) -> Path:
    """A run that crashes after ``at`` steps; ``last.ckpt`` is of the end of the epoch before."""
    Stop.at = at
    assert main(words(STOP, *overrides)) == 1
    Stop.at = None
    return folders()[-1]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plan_of(folder: Path) -> Plan:
    return Plan.from_json(json.loads((folder / "plan.json").read_text()))


def metrics_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def rates(recorded: Recorded) -> list[float]:
    return [step["default"][0] for step in recorded]


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All event files of a run, merged as TensorBoard merges them."""
    (place,) = {path.parent for path in folder.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(place), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class TestTheSameFolder:
    @pytest.mark.parametrize("at", [7, 17])
    def test_curves_join_without_overlap(self, at: int) -> None:
        """The crash comes some steps after the checkpoint: the logs of these steps do not occur twice."""
        folder = dies(at, "logger=tensorboard", "warmup=linear", "warmup.length=5")
        # Event files are ordered by name: the second, the process, a counter. Two runs of one process in one second
        # would be ordered by the counter as text, 10 before 9; a resume comes from another process, and later.
        time.sleep(1.1)
        assert train("logger=tensorboard", "warmup=linear", "warmup.length=5", f"resume.path={folder}") == folder
        assert len(folders()) == 1 and len([*folder.rglob("events.out.tfevents*")]) >= 2
        curves = curves_of(folder)
        del curves["epoch"]  # Lightning writes it beside each metric
        for tag, points in curves.items():
            steps = [step for step, _ in points]
            assert steps == sorted({*steps}), tag
        plan = plan_of(folder)
        assert curves["lr/default"] == [(t, np.float32(plan.lr(plan.groups[0], t))) for t in range(24)]
        assert [step for step, _ in curves["val/loss"]] == [5, 11, 17, 23]

    def test_what_was_there_stays_as_it_was(self) -> None:
        folder = dies(15, "seed=4")
        before = hashes(folder)
        assert ".hydra/overrides.yaml" in before and "config.json" in before
        train("seed=4", f"resume.path={folder}")
        after = hashes(folder)
        assert {*before} <= {*after}
        for name in before:
            if name.startswith(".hydra") or name in ("config.json", "plan.json"):
                assert after[name] == before[name], name

    def test_the_result_is_that_of_the_run_that_never_died(self, recorded: Recorded) -> None:
        whole = train()
        one = rates(recorded)
        recorded.clear()
        resumed = dies(15)
        train(f"resume.path={resumed}")
        assert rates(recorded) == [*one[:15], *one[12:]]
        assert all(torch.equal(weights(whole)[name], weights(resumed)[name]) for name in weights(whole))
        assert metrics_of(whole)["final"] == metrics_of(resumed)["final"]

    def test_the_best_of_before_survives(self) -> None:
        foreign = ["model=custom", "model._target_=plain_lightning.Scripted", "data=custom",
                   "data._target_=plain_lightning.Data", "data.batch_size=10"]  # fmt: skip
        folder = dies(15, *foreign)
        train(*foreign, f"resume.path={folder}")
        metrics = metrics_of(folder)
        assert metrics["final"]["val_loss"] == 2.5
        best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
        assert best["global_step"] == 12
        assert metrics["best"]["val_loss"] == 1.0 and metrics["best"]["step"] == 12

    def test_a_checkpoint_in_it_will_do_and_its_checkpoints_folder_is_named(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = dies(15)
        train(f"resume.path={folder}/checkpoints", code=2)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("lrkit: resume.path must be a checkpoint or the folder of a run")
        assert train(f"resume.path={folder}/checkpoints/last.ckpt") == folder and len(folders()) == 1

    def test_schedule_free_goes_on(self) -> None:
        free = ["optimizer=schedule_free_adamw", "schedule=constant"]
        whole = train(*free)
        resumed = dies(15, *free)
        train(*free, f"resume.path={resumed}")
        assert all(torch.equal(weights(whole)[name], weights(resumed)[name]) for name in weights(whole))


class TestRefused:
    @pytest.mark.parametrize(
        ("changed", "shown"),
        [
            (["optimizer.lr=0.05"], "base rate"),
            (["schedule=step"], "phases"),
            (["trainer.max_epochs=8"], "steps"),
            (["param_groups=no_decay", "optimizer.weight_decay=0.1"], "optimizer options: weight_decay"),
            pytest.param(
                ["param_groups=no_decay"],
                "groups",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_nothing_is_touched_and_the_difference_is_a_table(
        self, changed: list[str], shown: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = dies(15, "logger=tensorboard")
        before = hashes(folder)
        recorded.clear()
        capsys.readouterr()
        assert main(words("logger=tensorboard", *changed, f"resume.path={folder}", *without_callbacks(folder))) == 2
        *table, said = capsys.readouterr().err.splitlines()
        assert table[0].split() == ["checkpoint", "command"] and any(row.startswith(f"{shown} ") for row in table)
        assert said.startswith("lrkit: resume.policy must be set")
        assert hashes(folder) == before and len(folders()) == 1 and not recorded

    @pytest.mark.parametrize("changed", ["schedule=step", "schedule.end=0.1"])
    def test_nor_by_a_policy_that_does_not_fit(self, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
        folder = dies(15)
        before = hashes(folder)
        assert (
            main(
                words(
                    changed,
                    "trainer.max_epochs=8",
                    f"resume.path={folder}",
                    "resume.policy=extend",
                    *without_callbacks(folder),
                )
            )
            == 2
        )
        assert "keeps the shape, but the schedule differs: use override" in capsys.readouterr().err
        assert hashes(folder) == before and len(folders()) == 1

    @pytest.mark.parametrize("policy", ["override", "extend"])
    def test_the_state_of_another_optimizer_is_not_taken(
        self, policy: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = dies(15, "optimizer=adamw", "optimizer.lr=0.1")
        recorded.clear()
        assert (
            main(
                words(
                    "optimizer=momentum", f"resume.path={folder}", f"resume.policy={policy}", *without_callbacks(folder)
                )
            )
            == 2
        )
        said = capsys.readouterr().err.splitlines()
        assert said[-1].endswith("use resume.policy=restart.") and "AdamW" in said[-1] and not recorded
        train("optimizer=momentum", f"resume.path={folder}", "resume.policy=restart")
        assert len(recorded) == 24


class TestAnEndWithinAnEpoch:
    """A time limit, an early stop, max_steps: Lightning counts the epoch as done, and would leave out its rest."""

    @pytest.mark.parametrize("at", [1, 6, 23])
    def test_the_rest_of_the_epoch_is_trained(self, at: int, recorded: Recorded) -> None:
        whole = train()
        one = rates(recorded)
        recorded.clear()
        folder = train(halt(at))
        assert metrics_of(folder)["status"] == "stopped" and len(recorded) == at
        train(f"resume.path={folder}")
        assert rates(recorded) == one and metrics_of(folder)["status"] == "done"
        assert all(torch.equal(weights(whole)[name], weights(folder)[name]) for name in weights(whole))

    def test_with_accumulation_and_validation_within_the_epoch(self, recorded: Recorded) -> None:
        more = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=2"]
        whole = train(*more)
        one = rates(recorded)
        recorded.clear()
        folder = train(*more, halt(5))
        train(*more, f"resume.path={folder}")
        assert rates(recorded) == one
        assert all(torch.equal(weights(whole)[name], weights(folder)[name]) for name in weights(whole))

    def test_more_steps(self, recorded: Recorded) -> None:
        """The run was cut by max_steps, and the next command does not cut it."""
        folder = train("trainer.max_steps=8", "schedule=constant")
        train("trainer.max_steps=-1", f"resume.path={folder}", "resume.policy=extend")
        assert len(recorded) == 24 and metrics_of(folders()[-1])["steps"] == 24

    def test_a_foreign_loader_goes_on_too(self, recorded: Recorded) -> None:
        foreign = ["model=custom", "model._target_=plain_lightning.Net", "data=custom",
                   "data._target_=plain_lightning.Data", "data.batch_size=10"]  # fmt: skip
        whole = train(*foreign)
        recorded.clear()
        folder = train(*foreign, halt(8))
        train(*foreign, f"resume.path={folder}")
        assert len(recorded) == 24 and metrics_of(folder)["status"] == "done"
        assert all(torch.equal(weights(whole)[name], weights(folder)[name]) for name in weights(whole))


class TestPolicies:
    def test_override_changes_more_than_the_rate_and_keeps_the_state(self, recorded: Recorded) -> None:
        folder = dies(15, "optimizer.weight_decay=0.01")
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        recorded.clear()
        seen: list[tuple[float, float, list[Tensor]]] = []

        def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            group = optimizer.param_groups[0]
            if "name" in group:
                buffers = [optimizer.state[p]["momentum_buffer"].clone() for p in group["params"]]
                seen.append((group["momentum"], group["weight_decay"], buffers))

        handle = register_optimizer_step_pre_hook(look)
        try:
            new = train("optimizer.lr=0.03", "optimizer.momentum=0.5", "optimizer.weight_decay=0.2",
                        f"resume.path={folder}", "resume.policy=override")  # fmt: skip
        finally:
            handle.remove()
        plan = plan_of(new)
        assert new != folder and rates(recorded) == [plan.lr(plan.groups[0], t) for t in range(12, 24)]
        assert {(momentum, decay) for momentum, decay, _ in seen} == {(0.5, 0.2)}
        assert all(torch.equal(b, saved[i]["momentum_buffer"]) for i, b in enumerate(seen[0][2]))

    @pytest.mark.parametrize("at", [15, 40])
    def test_a_run_that_was_extended_is_restored(self, at: int, recorded: Recorded) -> None:
        """The stretched curve goes through JSON and comes back; so does one that is stretched a second time."""
        shape = ["warmup=linear", "warmup.length=5", "schedule=one_cycle"]
        trunk = dies(15, *shape)
        longer = [*shape, "trainer.max_epochs=8"]
        recorded.clear()
        whole = train(*longer, f"resume.path={trunk}", "resume.policy=extend")
        one = [*recorded]
        assert len(one) == 36
        part = train(*longer, f"resume.path={trunk}", "resume.policy=extend", halt(at))
        recorded.clear()
        rest = train(*longer, f"resume.path={part}", "resume.policy=restore")
        assert recorded == one[at - 12 :] and plan_of(rest).curve == plan_of(whole).curve
        assert all(torch.equal(weights(whole)[name], weights(rest)[name]) for name in weights(whole))
        recorded.clear()
        again = train(*shape, "trainer.max_epochs=10", f"resume.path={part}", "resume.policy=extend")
        curve = plan_of(again).curve
        assert len(recorded) == 60 - at and curve.steps == 60 and abs(curve(at) - plan_of(part).curve(at)) < 1e-12
        assert rates(recorded) == [plan_of(again).lr(plan_of(again).groups[0], t) for t in range(at, 60)]

    def test_an_extended_run_that_died_goes_on_with_its_own_command(self, recorded: Recorded) -> None:
        """The words that were typed for the extension lead to another plan than the stretched one: restore."""
        trunk = dies(15)
        part = train("trainer.max_epochs=8", f"resume.path={trunk}", "resume.policy=extend", halt(20))
        assert main(words("trainer.max_epochs=8", f"resume.path={part}")) == 2
        recorded.clear()
        train("trainer.max_epochs=8", f"resume.path={part}", "resume.policy=restore")
        assert len(recorded) == 28


@pytest.mark.slow
@pytest.mark.parametrize("at", [6, 8])
def test_two_processes_go_on(at: int, tmp_path: Path) -> None:
    """At the end of an epoch and within one: the same rates on both ranks, the same weights as without a stop."""
    base = [
        word
        for word in words("plateau=reduce", "plateau.patience=0", "data.batch_size=16")[1:]
        if word != "logger=none"
    ]
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    one, other, whole = both_ranks(tmp_path / "whole", *base)
    first, _, folder = both_ranks(tmp_path / "part", *base, halt(at))
    rest, beside, folder = both_ranks(tmp_path / "part", *base, "--trust", "interrupted_runs", f"resume.path={folder}")
    assert one == other and rest == beside and first + rest == one and len(one) == 24
    assert all(torch.equal(weights(whole)[name], weights(folder)[name]) for name in weights(whole))
