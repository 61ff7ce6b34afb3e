"""The benchmarks: the plain loop is bit for bit lrkit's own training, and the tables are right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_lightning import Losses

from lrkit.config.compose import compose
from lrkit.training_objects.data import data_of

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import find as bench
import gpu
import gpu_training
import loop
import rows
import scale


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw", "warmup=linear", "seed=3"],
        ["optimizer=momentum", "model=cnn2d", "param_groups=no_decay", "optimizer.lr=0.05"],
    ],
)
def test_the_loop_by_hand_is_the_training_of_lrkit(train: Callable[..., Any], overrides: list[str]) -> None:
    overrides = [*overrides, "trainer.max_epochs=2"]
    run = train(*overrides, "+callbacks.losses._target_=plain_lightning.Losses", "logger=none", short=False)
    config = compose(overrides)
    data = data_of(config)
    data.setup()
    done = loop.train(config, data)
    assert done.losses == Losses.seen
    assert done.loss == pytest.approx(run.final["val/loss"], rel=1e-6)
    assert done.accuracy == pytest.approx(run.final["val/accuracy"], rel=1e-6)


def cell(task: str, best_test: float, here: float | None, steps: int) -> dict[str, Any]:
    outcome = {"lr": 0.1, "val": 0.9, "test": best_test, "test_loss": 0.3}
    result = None if here is None else {"lr": 0.2, "val": 0.8, "test": here, "test_loss": 0.5}
    said = {"lr": None if here is None else 0.2, "steps": steps, "result": result}
    return {
        "cell": [task, "adamw", 1],
        "steps": 100,
        "grid": [{**outcome, "val": 0.5}, outcome],
        "suggested": {"it": said},
    }


def test_regret_is_what_is_lost_on_test_data() -> None:
    cells = [cell("a", 0.9, 0.88, 100), cell("a", 0.9, 0.95, 200), cell("b", 0.9, None, 0)]
    assert [round(bench.regret(each, "it"), 6) for each in cells] == [2.0, -5.0, 90.0]
    head, row = bench.rows(cells)
    told = dict(zip(head, row, strict=True))
    assert (told["median"], told["worst"], told["cells over 3"], told["no rate"]) == ("2.0", "90.0", "1 of 3", "1")
    assert told["steps of the grid"] == "5.0 % (most 10.0 %)"
    assert [line[:3] for line in bench.by_task(cells)][1:] == [("a", "adamw", "0.1-0.1"), ("b", "adamw", "0.1-0.1")]


def test_each_cell_is_measured_once_and_the_weak_ones_first() -> None:
    cells = bench.cells_by_value()
    assert len(cells) == len(set(cells)) == 64 + 16
    assert cells[:8] == bench.weak_cells() and cells[8][0] in bench.HELD_OUT


def test_a_resumed_comparison_measures_cells_without_a_search_again(tmp_path: Path) -> None:
    lines = [
        json.dumps({"cell": n, "suggested": dict.fromkeys(names)}) for n, names in enumerate((bench.SEARCHES, "a"))
    ]
    (tmp_path / "find.jsonl").write_text("\n".join([*lines, lines[0]]))
    assert [result["cell"] for result in bench._read_results(tmp_path / "find.jsonl")] == [0]


def test_the_table_says_what_is_reached() -> None:
    ratio, spread = rows.against([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    assert (ratio, spread) == (1.0, (0.5, 1.5))
    made = [rows.Row("a", "b", ratio, 0.5, spread), rows.Row("c", "d", 0.4, 0.5, figures="ms: 4")]
    made.append(rows.Row("e", "f", 2.0))
    assert rows.table(made).splitlines()[2:] == [
        "| a | b | 1.00 (0.50-1.50) | 0.50 | **no** |  |",
        "| c | d | 0.40 | 0.50 | yes | ms: 4 |",
        "| e | f | 2.00 |  |  |  |",
    ]


def test_an_exponent_is_the_slope_on_two_logarithms() -> None:
    assert scale.exponent([1, 10, 100], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    assert scale.exponent([1, 10, 100], [3.0, 3.0, 3.0]) == pytest.approx(0.0)


def test_a_section_keeps_its_rows_when_it_fails_or_reaches_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "import time\ndef machine(add, small):\n    add(card='a|b', ratio=0.123456, same=False)\n"
    module += "    add.attempt(lambda: 1 / 0, card='c')\n    time.sleep(60 if small else 0.2)\n    exit('no more')\n"
    (tmp_path / "gpu_training.py").write_text(module)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    (tmp_path / "gpu.py").write_text((Path(loop.__file__).parent / "gpu.py").read_text())
    out = tmp_path / "gpu.md"
    failed = gpu.run(["machine", "find"], 5.1, out, small=False)
    assert failed["machine"].problem == "no more" and "ZeroDivisionError" in failed["machine"].log
    assert failed["find"].problem == "left out: the total limit of 5 s"
    page = out.read_text()
    assert "Card: **a|b**" in page and "\n| a\\|b | 0.123 | **no** |  |\n" in page
    assert "| c |  |  | ZeroDivisionError: division by zero |" in page and "**Not complete:** no more" in page
    assert json.loads(out.with_suffix(".json").read_text())["machine"]["rows"][0]["ratio"] == 0.123456
    folder = tmp_path / "small"
    folder.mkdir()
    slow = gpu.run_section("machine", gpu.SECTIONS["machine"], 1.5, folder, small=True)
    assert len(slow.rows) == 2 and slow.problem == "ended at its limit of 2 s"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    script, out = Path(gpu.__file__), tmp_path / "gpu.md"
    words = [sys.executable, str(script), "--small", "--limit", "3000", "--out", str(out)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sections = json.loads(out.with_suffix(".json").read_text())
    assert list(sections) == list(gpu.SECTIONS)
    rows = [row for section in sections.values() for row in section["rows"]]
    # The search of the small mode does not confirm its rate.
    missed = [name for row in rows for name, value in row.items() if value is False and name != "confirmed"]
    assert not missed and not any("problem" in row for row in rows)
    assert len(sections["optimizers"]["rows"]) == 18 and all(section["rows"] for section in sections.values())


def test_a_synchronisation_is_named_by_its_line() -> None:
    inner, ours = ("/x/torch/b.py", 7), ("/x/lrkit/a.py", 3)
    caught = ("/usr/lib/python3/warnings.py", 1)
    assert gpu_training.find_source([ours, inner, caught], "/x/lrkit") == "torch/b.py:7 by lrkit/a.py:3"
    assert gpu_training.find_source([inner, ours, caught], "/x/lrkit") == "lrkit/a.py:3"
    assert gpu_training.find_source([("/x/lrkit.py", 1), inner], "/x/lrkit") == "torch/b.py:7"
