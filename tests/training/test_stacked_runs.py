"""A member of a stack leaves what a separate run leaves, and a resumed member goes on as a resumed run."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lrkit.base.signals import Terminated, count_answers
from lrkit.config import compose as configs
from lrkit.runs.event_reader import event_files, read_events
from lrkit.training import stacked_runs
from lrkit.training.run import run_training

SHORT = "data.batch_size=256 trainer.accelerator=cpu"
MEMBERS = ("seed=0", "seed=1 schedule=linear optimizer.lr=0.03")


def train_both(tmp_path: Path, words: str, members: Sequence[str] = MEMBERS) -> list[tuple[Path, Path]]:
    """Train each member separately and in a stack; return the folders of each."""
    every = [configs.compose([*SHORT.split(), *words.split(), *member.split()]) for member in members]
    folders = [(tmp_path / f"separate{i}", tmp_path / f"stacked{i}") for i in range(len(every))]
    for config, (separate, _) in zip(every, folders, strict=True):
        separate.mkdir()
        run_training(config, separate, quiet=True)
    write_stack(every, [stacked for _, stacked in folders])
    return folders


def write_stack(every: Sequence[dict[str, Any]], folders: Sequence[Path]) -> list[str]:
    ended = []

    def write(i: int, run: stacked_runs.StackedRun) -> None:
        folders[i].mkdir()
        try:
            finished = run_training(run.config, folders[i], quiet=True, data=run.data, recorded=run.recorded)
        except Terminated as error:
            ended.append(str(error))
        else:
            ended.append(finished.status)

    stacked_runs.train_stacked_runs(every, write)
    return ended


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if parts is None:
        yield path, value
        return
    for key, part in parts:
        yield from flat(part, f"{path}/{key}")


def assert_alike(got: Any, expected: Any, but: Sequence[str] = ()) -> None:
    """The same keys and types, the same texts and whole numbers; floats up to rounding, rates to the bit."""
    both = [{k: v for k, v in flat(each) if not any(part in k for part in but)} for each in (got, expected)]
    assert both[0].keys() == both[1].keys()
    for key, value in both[1].items():
        mine = both[0][key]
        if isinstance(value, torch.Tensor):
            assert torch.allclose(mine.double(), value.double(), rtol=1e-3, atol=1e-5, equal_nan=True), key
            assert mine.dtype == value.dtype, key
        elif isinstance(value, float) and "lr" not in key and not math.isnan(value):
            assert mine == pytest.approx(value, rel=1e-4, abs=1e-6), key
        else:
            assert mine == value or value != value, key


def list_files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if "tfevents" not in file.name}


def read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "words",
    [
        "trainer.max_epochs=3 optimizer=momentum trainer.log_every_n_steps=2 test=true",
        "model=cnn2d model.widths=[4] optimizer=adamw trainer.max_steps=12 trainer.max_epochs=null"
        " trainer.check_val_every_n_epoch=2",
    ],
)
def test_a_member_leaves_the_files_of_a_separate_run(tmp_path: Path, words: str) -> None:
    for separate, stacked in train_both(tmp_path, words):
        assert list_files(stacked) == list_files(separate)
        for name in ("plan.json", "config.json"):
            assert read(stacked / name) == read(separate / name)
        assert_alike(read(stacked / "metrics.json"), read(separate / "metrics.json"), but=["/seconds"])
        curves = [
            {tag: (series.steps, series.values) for tag, series in read_events(event_files(each)).series.items()}
            for each in (stacked, separate)
        ]
        assert_alike(*curves)
        for file in (separate / "checkpoints").iterdir():
            contents = [torch.load(each / "checkpoints" / file.name, weights_only=True) for each in (stacked, separate)]
            assert_alike(*contents, but=["path", "/callbacks/Kept", "recent"])


def test_a_diverged_member_ends_as_a_separate_run_and_spares_the_others(tmp_path: Path) -> None:
    members = ("seed=1 optimizer.lr=0.03", "optimizer.lr=1e12")
    _, (separate, stacked) = train_both(tmp_path, "trainer.max_epochs=3 allow_extreme_lr=true", members)
    expected, got = read(separate / "metrics.json"), read(stacked / "metrics.json")
    assert got["status"] == expected["status"] == "diverged"
    assert_alike(got, expected, but=["/seconds"])
    assert_alike(read(stacked / "events.json"), read(separate / "events.json"), but=["/time"])
    assert list_files(stacked) == list_files(separate)
    other = read(tmp_path / "stacked0" / "metrics.json")
    assert other["status"] == "done"
    assert_alike(other, read(tmp_path / "separate0" / "metrics.json"), but=["/seconds"])


@pytest.mark.parametrize("after", [7, 10])  # within an epoch of 5 steps, and at the end of one
def test_an_interrupted_member_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    words = [*SHORT.split(), "trainer.max_epochs=3", "model.hidden=[16]", "optimizer=adamw", "seed=3"]
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = run_training(configs.compose(words), whole, quiet=True)

    class Signals(list[int]):
        """A signal that comes after some steps: the stack asks once a step."""

        asked = 0

        def __bool__(self) -> bool:
            self.asked += 1
            return self.asked >= after

    @contextmanager
    def note() -> Iterator[list[int]]:
        yield Signals([15])

    with monkeypatch.context() as patch:
        patch.setattr(stacked_runs, "_note_signals", note)
        ended = write_stack([configs.compose(words)] * 2, [tmp_path / "a", tmp_path / "b"])
    assert f"at step {after} of 15; checkpoint saved" in ended[0] and len(ended) == 2
    assert read(tmp_path / "a" / "metrics.json")["status"] == "preempted"
    resumed = run_training(configs.compose([f"resume.path={tmp_path / 'a'}"]), tmp_path / "a", quiet=True)
    assert resumed.status == "done"
    assert dict(resumed.final) == pytest.approx(dict(expected.final), rel=1e-4)


def test_a_noted_signal_is_answered() -> None:
    """The watchdog ends a process that does not answer, and with it the members that have not saved yet."""
    before, handler = count_answers(), signal.getsignal(signal.SIGTERM)
    with stacked_runs._note_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM] and count_answers() == before + 1
    assert signal.getsignal(signal.SIGTERM) is handler
