"""Racing sweeps: short copies choose the settings that are trained in full. The trainings here are formulas."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_json
from lrkit.base.process_pool import Outcome
from lrkit.base.run_files import RACE
from lrkit.cli.sweep import run_engine, run_sweep
from lrkit.config import compose as configs
from lrkit.config.compose import compose, plan
from lrkit.config.sweep_values import expand_jobs
from lrkit.runs.dropped_settings import find_dropped
from lrkit.runs.run_folders import find_runs
from lrkit.sweep import sweep as sweeps
from lrkit.sweep.promotion import Standing, promote, race_cost
from lrkit.sweep.race_settings import list_settings, read_options
from lrkit.sweep.racing import Race
from lrkit.sweep.sweep import Sweep
from lrkit.sweep.sweep_file import find_unfinished, is_complete

GRID = ["schedule=constant,cosine,linear", "optimizer.lr=0.1,1.0", "seed=1,2", "+sweep.race=true", "sweep.keep=0.5"]
KINDS = {"constant": 0.3, "cosine": 0.1, "linear": 0.2}

Words = Mapping[str, str]


def as_words(overrides: Sequence[str]) -> dict[str, str]:
    return {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in overrides}


def loss_of(words: Words) -> float:
    """The loss of a training: best at the rate 0.1 for a whole run, at a higher one for a shorter run."""
    whole = float(words.get("horizon.compressed_from", 570))
    best = 0.1 * (float(words.get("trainer.max_steps", whole)) / whole) ** -0.3
    return KINDS[words["schedule"]] + math.log10(float(words["optimizer.lr"]) / best) ** 2 + 0.001 * int(words["seed"])


class Trainings:
    """Stands for the processes of the jobs: each writes the result that ``loss`` gives it, or the status it returns."""

    def __init__(self, loss: Callable[[Words], float | str]) -> None:
        self.loss, self.begun = loss, list[dict[str, str]]()

    def run_jobs(
        self, work: object, logs: Sequence[Path], share: object, *, begin: Callable[[int], tuple[list[str], object]],
        ended: Callable[[int, Outcome], bool], **more: Any,
    ) -> None:  # fmt: skip
        for i in range(len(logs)):
            words = as_words(begin(i)[0])
            self.begun.append(words)
            found = self.loss(words)
            result: dict[str, Any] = {"status": found} if isinstance(found, str) else {"status": "done"}
            if not isinstance(found, str):
                steps = int(words.get("trainer.max_steps", 570))
                result |= {"monitor": "val/loss", "best": {"val/loss": found}, "final": {"val/loss": found}}
                result["steps"] = steps
            write_json(logs[i].parent / "metrics.json", result)
            code = {"diverged": 3, "failed": 1}.get(str(found), 0)
            if not ended(i, Outcome(code, 0.1)):
                return


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a race, in a parent folder without others."""
    return tmp_path / "race"


_COMPOSED: dict[tuple[str, ...], dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose equal overrides once for all tests here."""
    real = configs.compose

    def compose_once(overrides: Sequence[str] = (), config_dir: str | None = None) -> dict[str, Any]:
        key = tuple(overrides)
        if key not in _COMPOSED:
            _COMPOSED[key] = real(overrides, config_dir)
        return _COMPOSED[key]

    monkeypatch.setattr(configs, "compose", compose_once)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings(loss_of)
    monkeypatch.setattr(sweeps, "run_jobs", made.run_jobs)
    return made


def race(folder: Path, words: Sequence[str] = GRID) -> tuple[dict[str, int], str]:
    """Run a race in a folder of its own; return its counts and what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs, said = expand_jobs(words), list[str]()
    options = read_options(jobs, None)
    assert options is not None
    counts = Race(Sweep(words, folder), list_settings(jobs, options, None), options).run(lambda *_: 0, said.append)
    return counts, "\n".join(said)


def test_the_best_settings_are_trained_in_full_and_the_others_are_named(run: Path, trainings: Trainings) -> None:
    counts, said = race(run)
    rungs = Counter(words.get("trainer.max_steps", "whole") for words in trainings.begun)
    assert rungs == {"36": 12, "142": 6, "whole": 4} and counts == {"done": 4}
    whole = [words for words in trainings.begun if "trainer.max_steps" not in words]
    assert {(words["schedule"], words["optimizer.lr"], words["seed"]) for words in whole} == {
        (schedule, "0.1", seed) for schedule in ("cosine", "linear") for seed in "12"
    }
    # A whole run has the overrides, and the folder, that it has in the sweep without a race.
    assert not any("horizon.compressed_from" in words or "trainer.max_steps" in words for words in whole)
    assert [path.name for path in find_runs([run])] == [
        f"{number}_schedule={schedule},optimizer.lr=0.1,seed={seed}"
        for number, schedule, seed in ((4, "cosine", 1), (5, "cosine", 2), (8, "linear", 1), (9, "linear", 2))
    ]
    states = json.loads((run / "sweep.json").read_text())["jobs"]
    assert Counter(state["status"] for state in states.values()) == {"done": 4, "dropped": 8}
    dropped = states["6_schedule=cosine,optimizer.lr=1.0,seed=1"]
    assert dropped["rung"] == 1 and dropped["share"] == "6.25%" and dropped["score"] > 1
    assert is_complete(run, GRID, 12) and find_unfinished(GRID, run.parent) is None
    written = json.loads((run / RACE).read_text())
    assert [len(rung["settings"]) for rung in written["rungs"]] == [6, 3]
    assert written["steps"] == 12 * 36 + 6 * 142 + 4 * 570 and written["steps of all settings"] == 12 * 570
    assert "52 % of the 6840 of all 6 settings in full; it dropped 4 settings (3 at 6.25%, 1 at 25%)" in said
    (note,) = find_dropped([run])
    assert note == (
        "a race dropped 4 settings (3 at 6.25%, 1 at 25% of their steps), and kept schedule=cosine,optimizer.lr=0.1, "
        "schedule=linear,optimizer.lr=0.1: see race.json"
    )
    assert said.count("  dropped") == 4 and "schedule=linear, optimizer.lr=1.0" in said


def test_a_short_copy_takes_the_whole_curve_at_the_translated_rate(run: Path, trainings: Trainings) -> None:
    grid = [
        "schedule=wsd,linear,constant",
        "warmup=linear",
        "warmup.length=40",
        "seed=3",
        "+sweep.race=true",
        "optimizer.lr=0.2",
    ]
    KINDS["wsd"] = 0.0
    race(run, grid)
    short = next(words for words in trainings.begun if words.get("trainer.max_steps") == "36")
    told = [f"{key}={value}" for key, value in short.items() if not key.startswith("hydra.")]
    copy, whole = plan(compose(told)), plan(compose(["schedule=wsd", *grid[1:4], "optimizer.lr=0.2"]))
    assert copy.base_lr == float(f"{0.2 * (36 / 570) ** -0.3:.6g}") and copy.horizon.steps == 36
    expected = whole.within(36, copy.base_lr)
    assert [copy.lr(copy.main_group, t) for t in range(36)] == [expected.lr(expected.main_group, t) for t in range(36)]
    assert copy.guard == whole.guard and "the whole curve of 570 steps" in str(copy)


@pytest.mark.parametrize(
    ("optimizer", "factor"), [("sgd", (36 / 570) ** -0.3), ("momentum", (36 / 570) ** -0.3), ("adamw", 1), ("lion", 1)]
)
def test_a_copy_has_the_translated_rate_of_sgd_and_the_own_rate_of_others(optimizer: str, factor: float) -> None:
    jobs = expand_jobs(["schedule=wsd,linear,constant", f"optimizer={optimizer}", "+sweep.race=true"])
    options = read_options(jobs, None)
    assert options is not None
    entry = list_settings(jobs, options, None)[0].entries[0]
    copy = plan(compose(entry.short_words(options.rungs[0])))
    assert copy.horizon.steps == 36 and copy.base_lr == float(f"{entry.rate * factor:.6g}")


def test_an_interrupted_race_goes_on_without_the_rungs_that_are_decided(run: Path, trainings: Trainings) -> None:
    def interrupt(words: Words) -> float:
        if len(trainings.begun) == 15:  # the third job of the second rung
            raise KeyboardInterrupt
        return loss_of(words)

    trainings.loss = interrupt
    with pytest.raises(KeyboardInterrupt):
        race(run)
    assert find_unfinished(GRID, run.parent) == run
    trainings.loss, first = loss_of, len(trainings.begun)
    counts, said = race(run)
    again = Counter(words.get("trainer.max_steps", "whole") for words in trainings.begun[first:])
    assert again == {"142": 4, "whole": 4} and counts == {"done": 4}
    assert "2 of 6 jobs are done" in said
    assert said.startswith("place")  # the table of the first rung comes from race.json
    before = len(trainings.begun)
    assert race(run)[0] == {"done": 4} and len(trainings.begun) == before  # nothing is left to do


@pytest.mark.parametrize("damage", ["{", '{"rungs": [{"settings": 3}]}', '{"rungs": [{"settings": [{"jobs": 1}]}]}'])
def test_a_damaged_record_is_made_again(damage: str, run: Path, trainings: Trainings) -> None:
    grid = ["schedule=constant,cosine,linear", "optimizer.lr=0.1", "seed=1", "+sweep.race=true", "sweep.rungs=[25%]"]
    race(run, grid)
    (run / RACE).write_text(damage)
    assert race(run, grid)[0] == {"done": 2} and len(trainings.begun) == 5
    assert len(json.loads((run / RACE).read_text())["rungs"]) == 1


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_setting_with_a_lost_run_is_last(status: str, run: Path, trainings: Trainings) -> None:
    grid = ["schedule=constant,cosine,linear", "optimizer.lr=0.1", "seed=1,2", "+sweep.race=true", "sweep.rungs=[25%]"]
    trainings.loss = lambda words: status if words["schedule"] + words["seed"] == "cosine2" else loss_of(words)
    counts, said = race(run, grid)
    assert counts == {"done": 4, **({"failed": 1} if status == "failed" else {})}
    assert all(words["schedule"] != "cosine" for words in trainings.begun if "trainer.max_steps" not in words)
    assert re.search(rf"schedule=cosine +{status}  dropped", said)


def test_a_race_without_a_finished_copy_trains_nothing_in_full(run: Path, trainings: Trainings) -> None:
    grid = ["schedule=constant,cosine,linear", "optimizer.lr=0.1", "seed=1", "+sweep.race=true"]
    trainings.loss = lambda _: "diverged"
    assert race(run, grid)[0] == {"diverged": 3} and len(trainings.begun) == 3


def test_on_error_stop_ends_a_race_in_its_rung(run: Path, trainings: Trainings) -> None:
    grid = ["schedule=constant,cosine,linear", "optimizer.lr=0.1", "seed=1", "+sweep.race=true", "on_error=stop"]
    trainings.loss = lambda _: "failed"
    assert race(run, grid)[0] == {"failed": 1, "waiting": 2}
    assert find_unfinished(grid, run.parent) == run
    trainings.loss = loss_of
    assert race(run, grid)[0] == {"done": 2}


def test_a_preset_is_raced_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jobs = expand_jobs(
        ["+sweep=schedules", "sweep.race=true", "schedule=step,linear,wsd", "optimizer.lr=0.1", "seed=1"]
    )
    options = read_options(jobs, None)
    assert options is not None
    assert [setting.label for setting in list_settings(jobs, options, None)] == [
        "schedule=step",
        "schedule=linear",
        "schedule=wsd",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1,2"], "sweep.race needs three settings or more that differ in more than the seed"),
        (["optimizer.lr=auto", "seed=1,2"], "optimizer.lr=auto and sweep.race cannot be used together"),
        (["plateau=reduce"], "plateau and sweep.race cannot be used together"),
        (["batch.schedule=[[0,32],[50%,64]]"], "batch.schedule and sweep.race cannot be used together"),
        (["horizon.stop_after=100"], "horizon.stop_after and sweep.race cannot be used together"),
        (["trainer.max_steps=50", "horizon.compressed_from=100"], "horizon.compressed_from and sweep.race"),
        (["trainer.fast_dev_run=true"], "trainer.fast_dev_run and sweep.race cannot be used together"),
        (["trainer.max_steps=50"], "sweep.rungs must begin at 5 of the run's 50 optimizer steps or more"),
        (["data.train_samples=null"], "sweep.race needs the number of optimizer steps before a run begins"),
        (["sweep.rungs=[]"], "sweep.rungs must be a list of 1 to 10 shares"),
        (["sweep.rungs=[25%,6%]"], "sweep.rungs must rise strictly"),
        (["sweep.rungs=[100]"], "sweep.rungs must be shares of the run between 0 and 100%"),
        (["sweep.keep=1.0"], "sweep.keep must be a number in (0, 1)"),
        (["sweep.keeps=0.5"], "sweep.keeps is not a key. Did you mean 'keep'?"),
    ],
)
def test_what_cannot_be_raced_is_refused(words: list[str], said: str) -> None:
    swept = [] if any("," in word and "[" not in word for word in words) else ["schedule=step,cosine,linear"]
    jobs = expand_jobs([*swept, "+sweep.race=true", *words])
    with pytest.raises(ConfigError) as raised:
        list_settings(jobs, read_options(jobs, None) or Mock(), None)
    assert said in str(raised.value) and "sweep" in str(raised.value)


def test_a_refusal_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"plateau and sweep\.race cannot be used together"):
        run_sweep(["schedule=step,cosine", "+sweep.race=true", "plateau=reduce"], None)
    with pytest.raises(ConfigError, match=r"sweep\.race takes one value: it configures the sweep"):
        run_sweep(["schedule=step,cosine", "sweep.race=true,false"], None)
    assert not list(tmp_path.iterdir())


def test_an_engine_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"sweep\.race and hydra/launcher=basic cannot be used together"):
        run_engine(["schedule=step,cosine", "+sweep.race=true", "hydra/launcher=basic"], None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["trainer.max_steps=50", "horizon.compressed_from=49"],
            "must be at least 50, the optimizer steps of this run",
        ),
        (["horizon.compressed_from=1000", "plateau=reduce"], "and plateau cannot be used together"),
        (["horizon.compressed_from=1000", "horizon.stop_after=5"], "and horizon.stop_after cannot be used together"),
        (["horizon.compressed_from=1000", "batch.schedule=[[0,32],[50%,64]]"], "and batch.schedule cannot be used"),
        (["horizon.compressed_from=10.5"], "must be a whole number"),
    ],
)
def test_a_compressed_run_is_refused_with_the_reason(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=r"horizon\.compressed_from") as raised:
        plan(compose(words))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("standings", "keep", "promoted"),
    [
        ([{1: 1.0}, {1: 2.0}, {1: 3.0}, {1: 4.0}], 0.5, [0, 1]),
        ([{1: 4.0}, {1: 2.0}, {1: 3.0}, {1: 1.0}], 0.3, [3, 1]),
        ([{1: math.inf}, {1: math.inf}], 0.5, []),
        ([{1: 1.0, 2: math.inf}, {1: 5.0, 2: 6.0}], 0.5, [1]),
        (
            [{1: 0.5, 2: 2.5}, {1: 1.0, 2: 3.0}, {1: 1.1, 2: 2.95}, {1: 3.0, 2: 5.0}],
            0.3,
            [0, 1, 2],
        ),  # noise over the seeds: not separable
        (
            [{1: 0.5, 2: 2.5}, {1: 1.0, 2: 3.0}, {1: 1.1, 2: 3.1}, {1: 3.0, 2: 5.0}],
            0.3,
            [0, 1],
        ),  # the seeds agree: separable
        ([{1: 1.0}, *[{1: 1.0}] * 9], 0.3, [0, 1, 2, 3, 4, 5]),  # ties, up to twice as many
    ],
)
def test_what_a_rung_promotes(standings: list[dict[object, float]], keep: float, promoted: list[int]) -> None:
    assert promote([Standing(values) for values in standings], keep) == promoted


def test_the_cost_of_a_race_is_below_a_third_with_the_shipped_options() -> None:
    jobs = expand_jobs(["schedule=step,cosine", "sweep.race=true"])
    options = read_options(jobs, None)
    assert options is not None
    assert max(race_cost(settings, options.rungs, options.keep) for settings in range(24, 500)) < 1 / 3


@pytest.mark.slow
def test_a_real_race_by_the_command(tmp_path: Path) -> None:
    words = ["schedule=constant,cosine", "optimizer.lr=0.05,0.2", "seed=1", "trainer.max_epochs=4", "model.hidden=[8]"]
    command = [sys.executable, "-m", "lrkit", "train", "-m", *words, "+sweep.race=true", "jobs=2", "logger=none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    steps = [json.loads(path.read_text())["steps"] for path in sorted(folder.glob("rungs/*/*/metrics.json"))]
    assert sorted(steps) == [10, 10, 10, 10]
    assert [json.loads(path.read_text())["steps"] for path in folder.glob("[0-9]*/metrics.json")] == [152, 152]
    assert "it dropped 2 settings" in done.stdout
    assert "a race dropped 2 settings (2 at 6.25% of their steps), and kept " in (folder / "compare.html").read_text()
