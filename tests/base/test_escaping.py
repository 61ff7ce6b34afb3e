"""Untrusted names and texts in the output of ``lrkit compare``: shown as text, not as markup, formulas or controls."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest

from lrkit.base.files import read_file, read_json
from lrkit.cli.main import main

NASTY = '=HYPERLINK("http://x")\x1b[31m\n<img src=x>|[a](b)'


def run(folder: Path, lr: object, metrics: object = None, **config: object) -> None:
    folder.mkdir(parents=True)
    ended = {"status": "done", "monitor": "val/loss", "final": {"val/loss": 0.5}, "best": {"val/loss": 0.4}}
    (folder / "metrics.json").write_text(json.dumps(ended if metrics is None else metrics))
    (folder / "config.json").write_text(json.dumps({"seed": 1, "optimizer": {"lr": lr}, **config}))


def test_a_hostile_name_is_text_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", 0.1, model={NASTY: NASTY})
    run(tmp_path / "b", 0.2, model={NASTY: "plain"})
    run(tmp_path / "c\x1b[2J\nd", 0.2, model={NASTY: "=1+1"})
    assert main(["compare", str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\\x1b[31m" in printed

    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r")]
    assert "'=1+1" in cells
    assert len({len(row) for row in rows}) == 1

    page = (tmp_path / "out" / "results.md").read_text()
    assert "<img" not in page and "\x1b" not in page and "](" not in page.replace("\\](", "")
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "<img src=x>" not in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    "metrics",
    [
        {"status": "done", "final": {"val/loss": 10**400}},
        {"status": ["done"], "best": 3, "final": [1], "findings": [{"kind": []}, 4], "steps": "many"},
        {"status": "done", "steps": True, "seconds": float("inf"), "monitor": 5},
        {"status": "done", "seconds": -1, "steps": -3, "test": {"a": None}},
        [[]],
        "text",
    ],
    ids=str,
)
def test_a_bad_file_costs_its_own_row_and_no_more(
    metrics: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "good", 0.1)
    run(tmp_path / "bad", 0.2, metrics)
    assert main(["compare", str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    assert "\nBest: lr=0.1 (best val/loss 0.4).\n" in capsys.readouterr().out


class TestReading:
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        since = time.process_time()
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(tmp_path / "pipe")
        assert read_json(tmp_path / "pipe") is None
        assert time.process_time() - since < 1

    def test_a_device_has_no_end(self) -> None:
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(Path("/dev/zero"))

    def test_no_more_is_read_than_may_be(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(bytes(101))
        assert len(read_file(tmp_path / "a", 101)) == 101
        with pytest.raises(OSError, match="it is larger than 100 bytes"):
            read_file(tmp_path / "a", 100)

    def test_numbers_of_many_digits_are_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text(f"[{'9' * 5000}, {'9' * 300}, {2**62}]")
        assert read_json(tmp_path / "a") == [float("inf"), float("9" * 300), 2**62]

    def test_pipes_in_the_place_of_files_cost_their_row(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(tmp_path / "good", 0.1)
        (tmp_path / "bad").mkdir()
        for name in ("metrics.json", "config.json", "events.out.tfevents.1.a"):
            os.mkfifo(tmp_path / "bad" / name)
        assert main(["compare", str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
        assert "bad: metrics.json cannot be read" in capsys.readouterr().out
