"""`lrkit find`: the whole search, the files that it leaves unchanged, and the use of its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equality import same
from locations import environment
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError, SearchError
from lrkit.checkpoint.saved_run import load_saved_run
from lrkit.cli import main
from lrkit.config.compose import check, compose
from lrkit.config.find_options import Search
from lrkit.lr_finder.find import find_lr
from lrkit.lr_finder.result import FinderResult, round_rate
from lrkit.schedules.horizon import Horizon
from lrkit.training.run import run_training

#: A search of a few seconds.
BRIEF = ["find.start=1e-5", "find.steps=60", "find.repeats=1", "find.rounds=2", "trainer.max_epochs=4", "logger=none"]


def brief(*overrides: str) -> list[str]:
    """``BRIEF`` without the keys that the overrides set."""
    said = {override.partition("=")[0] for override in overrides}
    return [*(each for each in BRIEF if each.partition("=")[0] not in said), *overrides]


def found(tmp_path: Path, *overrides: str, name: str = "find") -> FinderResult:
    folder = tmp_path / name
    folder.mkdir()
    return find_lr(compose(brief(*overrides)), folder, quiet=True)


def last(folder: Path) -> dict[str, Any]:
    """The last state of a run: weights, buffers, optimizer, schedule, random numbers, place in the data."""
    content = load_saved_run(str(folder)).content
    return {
        "weights": content["state_dict"], "optimizer": content["optimizer_states"], "rate": content["lr_schedulers"],
        "rng": content["lrkit"]["rng"], "data": content["lrkit"]["data"], "loops": content["loops"],
        "step": content["global_step"],
    }  # fmt: skip


# --- the answer -----------------------------------------------------------------------------------


def test_it_finds_a_rate_that_trains(tmp_path: Path) -> None:
    answer = found(tmp_path, "optimizer=adamw", "warmup=linear", "find.rounds=3", "find.steps=1.6ep")
    assert [each.steps for each in answer.rounds] == [10, 38, 76]
    first, second = answer.sweeps[0].rates[:2]
    assert second / first == pytest.approx(1e6 ** (1 / 61))  # 1.6 epochs are 61 steps, from 1e-5 to 10
    assert answer.lr is not None and answer.low is not None and answer.high is not None
    assert 1e-3 < answer.low <= answer.lr <= answer.high < 0.2
    assert answer.confirmed and len(answer.rounds[0].scores) >= 6
    tested, raced = sum(len(s.losses) for s in answer.sweeps), sum(len(h.scores) * h.steps for h in answer.rounds)
    assert answer.steps == tested + raced
    written = json.loads((tmp_path / "find" / "find.json").read_text())
    assert written["lr"] == answer.lr and written["config"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert float(f"{answer.lr:.2g}") == answer.lr  # the printed rate is the exact rate


def test_full_runs_have_the_score_of_the_run(tmp_path: Path) -> None:
    answer = found(tmp_path, "find.full=true", "trainer.max_epochs=2")
    assert [each.steps for each in answer.rounds] == [8, 76]
    scores = answer.rounds[-1].scores
    rate = min(scores, key=scores.__getitem__)
    assert answer.lr == round_rate(rate)
    (tmp_path / "run").mkdir()
    run_training(compose(brief(f"optimizer.lr={rate!r}", "trainer.max_epochs=2")), tmp_path / "run", quiet=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["final"]["val/loss"] == pytest.approx(scores[rate], rel=1e-6)


def test_full_runs_need_an_end() -> None:
    Search().check_full(Horizon(None))
    Search(full=True).check_full(Horizon(100))
    with pytest.raises(ConfigError, match=r"^find\.full must be false for a run without a number of steps"):
        Search(full=True).check_full(Horizon(None))


def test_without_confirmation_it_is_quicker_and_says_so(tmp_path: Path) -> None:
    answer = found(tmp_path, "find.confirm=false", "find.repeats=2", "optimizer=adamw")
    assert answer.lr is not None and answer.low is not None and answer.high is not None
    assert answer.high / answer.low > 3
    assert answer.rounds == () and answer.steps <= 120
    assert answer.sentence().endswith("not confirmed by training")


def test_a_range_without_an_answer(tmp_path: Path) -> None:
    answer = found(tmp_path, "find.start=1e-8", "find.end=1e-6")
    assert answer.lr is None and answer.rounds == ()
    assert answer.sentence().startswith("no suggestion: no rate")


def test_a_rate_free_optimizer_needs_no_search(tmp_path: Path) -> None:
    answer = found(tmp_path, "optimizer=prodigy")
    assert (answer.lr, answer.steps) == (1.0, 0)
    assert answer.sentence() == "lr 1: Prodigy finds the learning rate itself, and optimizer.lr multiplies it"


def test_validation_loss_linear_ladder_and_odd_lengths(tmp_path: Path) -> None:
    answer = found(
        tmp_path, "find.loss=val", "find.shape=linear", "find.start=1e-3", "find.end=1.0", "find.steps=33",
        "find.confirm=false", "trainer.limit_val_batches=2",
    )  # fmt: skip
    rates = answer.sweeps[0].rates
    assert rates[0] == pytest.approx(1e-3)
    assert rates[1] - rates[0] == pytest.approx(0.999 / 33) == pytest.approx(rates[5] - rates[4])


def test_groups_keep_their_proportion_and_batch_scaling_multiplies(tmp_path: Path, recorded: Recorded) -> None:
    answer = found(
        tmp_path, 'param_groups.rules=[{name: head, pattern: "^head", lr_scale: 10}]', "find.confirm=false",
        "batch_scaling=linear", "batch_scaling.base_batch_size=16",
    )  # fmt: skip
    head, rest = ([step[name][0] for step in recorded] for name in ("head", "default"))
    assert head == pytest.approx([10 * rate for rate in rest])
    assert rest[: len(answer.sweeps[0].rates)] == pytest.approx([2 * rate for rate in answer.sweeps[0].rates])


def test_the_optimizer_is_the_configured_one_and_the_race_has_the_real_warmup(
    tmp_path: Path, recorded: Recorded
) -> None:
    answer = found(tmp_path, "optimizer=adamw", "optimizer.betas=[0.7,0.9]", "warmup=linear", "warmup.length=25%",
                   "schedule=one_cycle", "schedule.momentum_start=0.9", "schedule.momentum_peak=0.6")  # fmt: skip
    assert {step["default"][1] for step in recorded[: len(answer.sweeps[0].losses)]} == {0.7}
    each = answer.rounds[-1]
    race = [step["default"] for step in recorded[-each.steps :]]
    rates = [rate for rate, _ in race]
    assert rates[each.steps // 4] < max(rates) and rates.index(max(rates)) > each.steps // 4
    assert min(momentum for _, momentum in race) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=schedule_free_adamw", "schedule=constant"],
        ["optimizer=ranger"],
        ["trainer.accumulate_grad_batches=3"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.gradient_clip_val=1.0"],
        ["schedule=restarts", "plateau=reduce", "cooldown=linear"],
        ["coschedule.weight_decay={_target_: lrkit.schedules.Linear}", "optimizer.weight_decay=0.01"],
        ["monitor=val/accuracy"],
    ],
    ids=" ".join,
)
def test_it_works_with(tmp_path: Path, overrides: list[str]) -> None:
    overrides = [f"++{o}" if o.startswith("coschedule.") else o for o in overrides]
    answer = found(tmp_path, *overrides)
    assert answer.lr is not None, answer.reason
    assert 1e-4 < answer.lr < 3.0


# --- refused values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("find.start=1.0 find.end=0.1", "find.start must be below end (0.1). Received: 1.0"),
        ("find.start=0", "find.start must be > 0. Received: 0"),
        ("find.end=inf", "find.end must be > 0. Received: inf"),
        ("find.steps=5", "find.steps must be at least 30 optimizer steps. Received: 5"),
        ("find.steps=1%", "find.steps must be at least 30 optimizer steps, and 1% is 6. Received: '1%'"),
        ("find.steps=2.5", "find.steps must be a whole number of steps, or a share strictly between 0 and 1; or"),
        ("find.rounds=1", "find.rounds must be a whole number in [2, 3]. Received: 1"),
        ("find.full=1", "find.full must be true or false. Received: 1"),
        ("find.full=true find.confirm=false", "find.full must be false if confirm is: there are no short runs."),
        ("find.repeats=0", "find.repeats must be a whole number >= 1. Received: 0"),
        ("find.shape=log", "find.shape must be exponential or linear. Received: 'log'"),
        ("find.loss=test", "find.loss must be train or val. Received: 'test'"),
        ("find.confirm=3", "find.confirm must be true or false. Received: 3"),
        ("find.stepz=3", "find.stepz is not a key. Did you mean 'steps'?"),
        ("+find.interval=[1,2]", "find.interval is not a key."),
        (
            "schedule=range_test",
            "schedule must be the schedule to train with: lrkit find runs its own range test.",
        ),
        ("-m", "-m is not for lrkit find; each job of a sweep finds its own rate by optimizer.lr=auto."),
        (
            "--cfg=job",
            "--cfg=job is not a flag of lrkit find: it takes --config, --config-dir, --trust and --traceback.",
        ),
        ("optimizer.lr=automatic", "optimizer.lr must be a number. Received: 'automatic'"),
        (
            "resume.path=nowhere",
            "resume.path must be an existing checkpoint or the folder of a run. Received: 'nowhere'",
        ),
    ],
)
def test_bad_input_is_one_line(
    override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["find", *override.split()]) == 2
    assert capsys.readouterr().err.startswith(f"lrkit: {said}")
    assert not list(tmp_path.glob("outputs/find/*"))


def test_show_has_no_rate_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["show", "optimizer.lr=auto"]) == 2
    assert "optimizer.lr must be a number: only lrkit train and lrkit find can measure auto" in capsys.readouterr().err


def test_auto_is_checked_like_a_number() -> None:
    check(compose(["optimizer.lr=auto", "optimizer=prodigy"]))
    with pytest.raises(ConfigError, match=r"data\.batch_size"):
        check(compose(["optimizer.lr=auto", "data.batch_size=5000"]))


# --- the command ----------------------------------------------------------------------------------


def test_the_last_line_is_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["find", *BRIEF, "optimizer=adamw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (folder,) = (tmp_path / "outputs" / "find").iterdir()
    assert {"find.json", "find.csv", "find.png"} < {path.name for path in folder.iterdir()}
    assert lines[-1] == f"optimizer.lr={json.loads((folder / 'find.json').read_text())['lr']:g}"
    assert main.main(["find", *brief("find.start=1e-8", "find.end=1e-6")]) == 1
    assert "no suggestion: no rate" in capsys.readouterr().out


# --- optimizer.lr=auto ----------------------------------------------------------------------------


def test_auto_is_in_the_plan_and_a_resume_does_not_search_again(tmp_path: Path) -> None:
    overrides = [
        "optimizer.lr=auto",
        *BRIEF,
        "optimizer=adamw",
        "batch_scaling=sqrt",
        "batch_scaling.base_batch_size=8",
    ]
    first = tmp_path / "first"
    first.mkdir()
    done = run_training(compose(overrides), first, quiet=True)
    answer = json.loads((first / "find" / "find.json").read_text())
    plan = json.loads((first / "plan.json").read_text())
    assert plan["base_lr"] == answer["lr"] and plan["found"] == [answer["low"], answer["high"]]
    how = f"{answer['lr']:g} (found: {answer['low']:g}-{answer['high']:g}) x 2 (sqrt: batch 32 / base 8)"
    assert done.plan.rate_line() == f"lr {2 * answer['lr']:.6g} = {how}"
    assert json.loads((first / "config.json").read_text())["optimizer"]["lr"] == answer["lr"]

    longer = [o for o in overrides if "max_epochs" not in o] + ["trainer.max_epochs=6", f"resume.path={first}"]
    second = tmp_path / "second"
    second.mkdir()
    more = run_training(compose([*longer, "resume.policy=override"]), second, quiet=True)
    assert not (second / "find").exists()
    assert (more.plan.base_lr, more.plan.found) == (done.plan.base_lr, done.plan.found)


def test_auto_without_an_answer_trains_nothing(tmp_path: Path) -> None:
    config = compose(brief("optimizer.lr=auto", "find.start=1e-8", "find.end=1e-6"))
    with pytest.raises(SearchError, match=r"optimizer\.lr=auto found no suggestion: no rate"):
        run_training(config, tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["find"]


def test_each_job_of_a_sweep_finds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["train", "-m", "optimizer=adamw,momentum", "optimizer.lr=auto", *BRIEF]) == 0
    rates = [json.loads(plan.read_text())["base_lr"] for plan in sorted(tmp_path.glob("outputs/sweeps/*/*/plan.json"))]
    assert len(rates) == 2 and rates[0] != rates[1]


# --- nothing of it is left ------------------------------------------------------------------------

TASKS = {
    "digits": ["data=digits", "model=mlp", "model.dropout=0.2"],
    "linear": ["data=digits", "model=linear", "optimizer=adamw"],
    "cnn2d": ["data=digits", "model=cnn2d", "model.widths=[4,8]"],
    "text": ["data=text", "model=char_transformer", "model.layers=1", "model.width=16", "model.dropout=0.1",
             "data.context=16", "data.train_samples=640", "data.val_samples=64", "optimizer=adamw"],
    "mnist1d": ["data=mnist1d", "model=cnn1d", "data.train_samples=1000", "data.val_samples=200",
                "data.test_samples=200"],
    "foreign": ["data=custom", "data._target_=plain_lightning.Data", "data.batch_size=10", "model=custom",
                "model._target_=plain_lightning.Net", "trainer.max_epochs=12"],
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_run_after_a_search_is_the_run_without_it(task: str, tmp_path: Path) -> None:
    overrides = brief(*TASKS[task], "seed=7")
    folders = [tmp_path / name for name in ("alone", "find", "after")]
    for folder in folders:
        folder.mkdir()
    alone, searched, after = folders
    config = compose([*overrides, "optimizer.lr=0.01", "trainer.limit_train_batches=6"])
    run_training(config, alone, quiet=True)
    before = [torch.get_rng_state(), np.random.get_state(legacy=True)[1].copy()]
    find_lr(compose(overrides), searched, quiet=True)
    run_training(config, after, quiet=True)
    assert same(last(alone), last(after))
    assert sorted(p.name for p in alone.iterdir()) == sorted(p.name for p in after.iterdir())
    # A search changes the random generators as a run does, reproducibly.
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state(legacy=True)[1])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_run_after_a_search_is_the_run_without_it_on_two_processes(task: str, tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    overrides = brief(*TASKS[task], *two, "seed=7")
    overrides += ["data.batch_size=16"] if task == "digits" else []

    def command(*words: str) -> str:
        env = environment()
        line = [sys.executable, "-m", "lrkit", *words]
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command("train", *overrides, "optimizer.lr=auto", "hydra.run.dir=searched")
    (plan,) = tmp_path.glob("searched/plan.json")
    lr = json.loads(plan.read_text())["base_lr"]
    said = json.loads((tmp_path / "searched" / "find" / "find.json").read_text())
    assert said["lr"] == lr and said["confirmed"]
    command("train", *overrides, f"optimizer.lr={lr!r}", "hydra.run.dir=alone")
    assert same(last(tmp_path / "searched"), last(tmp_path / "alone"))


@pytest.mark.slow
def test_two_processes_agree_and_only_one_writes(tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "data.batch_size=16"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "lrkit", "find", *BRIEF, *two, "optimizer=adamw"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("range test 1 of 1") == 1
    (folder,) = (tmp_path / "outputs" / "find").iterdir()
    assert done.stdout.splitlines()[-1] == f"optimizer.lr={json.loads((folder / 'find.json').read_text())['lr']:g}"
