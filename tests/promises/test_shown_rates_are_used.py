"""The promise: the rates that ``lrkit show`` lists are, bit for bit, those of the optimizer, interrupted or not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from interrupted_runs import EVERY, Interrupted, Stop, WindowCount, ignored, same_weights
from recorded_rates import Recorded
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrkit.base.errors import ConfigError
from lrkit.config.compose import CONF_DIR, compose, plan
from lrkit.planning import render
from lrkit.schedules.shapes.schedule import OVERLAPS
from lrkit.training.run import run_training


def listed(overrides: list[str]) -> list[dict[str, float]]:
    """Return the rows of ``lrkit show format=csv``: one for each step."""
    header, *rows = render.render_csv(plan(compose(overrides))).splitlines()
    return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]


#: For each step the weight decay of each group, as it was used.
Decays = list[dict[str, float]]


@pytest.fixture
def decays() -> Iterator[Decays]:
    steps: Decays = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if "name" in optimizer.param_groups[0]:
            steps.append({f"weight_decay/{group['name']}": group["weight_decay"] for group in optimizer.param_groups})

    handle = register_optimizer_step_post_hook(look)
    yield steps
    handle.remove()


def used(
    recorded: Recorded, decays: Decays, rows: list[dict[str, float]], samples: Sequence[int] | None = None
) -> list[dict[str, float]]:
    """Return the rates, the weight decays and the samples of each step that the optimizer used, in the same form."""
    return [
        {
            "step": float(t),
            **{f"lr/{name}": lr for name, (lr, _) in groups.items()},
            **{f"momentum/{name}": m for name, (_, m) in groups.items() if f"momentum/{name}" in rows[0]},
            **{name: value for name, value in decay.items() if name in rows[0]},
            **({"batch/effective": float(size)} if "batch/effective" in rows[0] else {}),
        }
        for t, (groups, decay, size) in enumerate(zip(recorded, decays, samples or [0] * len(recorded), strict=True))
    ]


def names(group: str) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted({path.stem for path in (CONF_DIR / group).glob("*.yaml")} - {"custom"}))


lengths = st.one_of(
    st.integers(1, 9).map(str),
    st.sampled_from(["5%", "0.1", "25%", "0.5ep", "1ep", "700sp", "250sp"]),
)


INNER = "{_target_: lrkit.schedules.Polynomial, power: 1.0, k: 2.0}"
#: Options of a schedule, other than their defaults.
OPTIONS: dict[str, list[list[str]]] = {
    "cosine": [["schedule.k=2", "schedule.power=0.7"]],
    "cyclic": [["schedule.mode=exp_cycle", "schedule.momentum_start=0.9", "schedule.momentum_peak=0.8"]],
    "exponential": [["schedule.gamma=null", "schedule.end=0", "schedule.ratio=0.1"]],
    "formula": [["schedule.formula=0.5**floor(epoch) * (1 if s < 7 else 0.1) + 0.01*u", "schedule.epoch_length=3"]],
    "inverse_sqrt": [["schedule.power=1.5"]],
    "piecewise": [["schedule.phases=[{name: linear, length: 2}, {name: one_cycle, length: 50%, up: 1}, sqrt]"]],
    "polynomial": [["schedule.k=0.5", "schedule.period=25%"]],
    "product": [
        ["schedule.factors=[{name: table, table: [[0, 0.1], [2, 1], [50%, 0.5]]}, sqrt]", "schedule.scale=2"],
        ["schedule.factors=[{name: cyclic, up: 2, momentum_start: 0.9, momentum_peak: 0.8, length: 60%}, step]"],
    ],
    "restarts": [
        [f"schedule.shape={INNER}", "schedule.decay=0.7", "schedule.decay_of=peak", "schedule.end=0.6"],
        ["schedule.cycles=2", "schedule.growth=1", "schedule.warmup=1", "schedule.end=0.1"],
    ],
    "table": [["schedule.interpolate=previous", "schedule.table=[[1, 0.4], [2ep, 0.8]]", "schedule.normalise=peak"]],
    "wsd": [
        ["schedule.shape=exponential"],
        [f"schedule.shape={INNER}", "schedule.milestones=[30%]", "schedule.decay=1"],
    ],
}


#: Optimizers, and rules for their weight decay.
decaying = st.sampled_from(
    [
        [],
        ["optimizer=adamw"],
        ["optimizer=adamw", "weight_decay_rule=independent", "optimizer.weight_decay=1e-4"],
        ["optimizer=adamw", "weight_decay_rule=timescale", "schedule@coschedule.weight_decay=cosine"],
        ["optimizer=lion", "weight_decay_rule=timescale", "weight_decay_rule.timescale=1ep"],
    ]
)


@st.composite
def group_rules(draw: st.DrawFn) -> str:
    """A rule for the head of the network, with parts of a curve of its own."""
    parts = {
        "lr_scale": st.sampled_from(["10", "0.3"]),
        "schedule": st.sampled_from(["one_cycle", "step", "{name: cosine, end: 0.1, floor: 0.2}", "linear", "wsd"]),
        "warmup": st.one_of(st.just("none"), lengths.map("{{name: linear, length: {}}}".format)),
        "cooldown": st.sampled_from(["none", "{name: sqrt, length: 2}"]),
        "delay": lengths,
    }
    said = draw(st.sets(st.sampled_from([*parts]), min_size=1, max_size=3))
    return ", ".join(["name: head", "pattern: '^head'", *(f"{key}: {draw(parts[key])}" for key in sorted(said))])


accumulations = st.integers(1, 3).map(lambda number: (f"trainer.accumulate_grad_batches={number}",))


@st.composite
def batch_schedules(draw: st.DrawFn, size: int) -> tuple[str, str]:
    """A schedule of two or three batch sizes."""
    windows = draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))
    places = draw(
        st.sampled_from([("0", "30%", "60%"), ("0", "2", "0.6ep"), ("0", "250sp", "1ep"), ("0", "1ep", "80%")])
    )
    stages = ", ".join(f"[{place}, {size * window}]" for place, window in zip(places, windows, strict=False))
    return f"batch.schedule=[{stages}]", f"batch.by={draw(st.sampled_from(['accumulation', 'loader']))}"


@st.composite
def runs(draw: st.DrawFn) -> list[str]:
    """A command line of a run of some ten steps."""
    schedule, warmup, cooldown = draw(names("schedule")), draw(names("warmup")), draw(names("cooldown"))
    overrides = [
        f"schedule={schedule}",
        f"warmup={warmup}",
        f"cooldown={cooldown}",
        f"data.batch_size={(size := draw(st.sampled_from([150, 200, 333])))}",
        f"data.drop_last={draw(st.booleans())}",
        *draw(st.one_of(accumulations, batch_schedules(size))),
        f"trainer.max_epochs={draw(st.integers(2, 3))}",
        f"param_groups={draw(st.sampled_from(['default', 'no_decay']))}",
        f"batch_scaling={draw(names('batch_scaling'))}",
        f"seed={draw(st.integers(0, 3))}",
        *draw(decaying),
    ]
    every = {
        "schedule.scale": st.sampled_from([0.5, 1.5]),
        "schedule.floor": st.sampled_from([0.1, 0.4]),
        "schedule.skip": lengths,
        "schedule.update_every": lengths,
    }
    overrides += [f"{key}={draw(every[key])}" for key in sorted(draw(st.sets(st.sampled_from([*every]), max_size=2)))]
    if warmup != "none":
        overrides.append(f"warmup.length={draw(lengths)}")
        overrides.append(f"warmup.overlap={draw(st.sampled_from(OVERLAPS))}")
    if cooldown != "none":
        overrides.append(f"cooldown.length={draw(lengths)}")
    if schedule == "step":
        overrides.append(f"schedule.every={draw(lengths)}")
    if schedule == "one_cycle":
        overrides.append(f"schedule.up={draw(lengths)}")
    if draw(st.booleans()):
        overrides.append(f"param_groups.rules=[{{{draw(group_rules())}}}]")
    if not any(word.startswith("batch.schedule") for word in overrides) and draw(st.booleans()):
        overrides += ["trainer.max_steps=9", f"horizon.compressed_from={draw(st.sampled_from([9, 20, 61]))}"]
    return [*overrides, *draw(st.sampled_from([[], *OPTIONS.get(schedule, [])]))]


SMALL = ["logger=none", "model.hidden=[4]", "model.dropout=0.5", "trainer.limit_val_batches=1"]


def keep_the_promise(overrides: list[str], share: float, stops: bool, recorded: Recorded, decays: Decays) -> None:
    """``stops``: the first part ends by ``horizon.stop_after``; else it dies."""
    config, stops = [*SMALL, *overrides], stops and not any("compressed_from" in word for word in overrides)
    try:
        rows = listed(config)
    except ConfigError:
        assume(False)
        raise
    folder = Path(tempfile.mkdtemp())
    kept = folder / "kept"
    try:
        config += [EVERY[0] % kept, EVERY[1], "+callbacks.windows={_target_: interrupted_runs.WindowCount}"]
        for name in ("whole", "part", "rest"):
            (folder / name).mkdir()
        for seen in (recorded, decays, WindowCount.samples):
            seen.clear()
        run_training(compose(config), folder / "whole", quiet=True)
        assert used(recorded, decays, rows, WindowCount.samples) == rows
        shutil.rmtree(kept)
        for seen in (recorded, decays, WindowCount.samples):
            seen.clear()
        at = 1 + int(share * (len(rows) - 1))
        if at == len(rows):
            return
        if stops:
            run_training(compose([*config, f"horizon.stop_after={at}"]), folder / "part", quiet=True)
            assert [{**row, "stopped": 0.0} for row in rows[:at]] == listed(
                [*SMALL, *overrides, f"horizon.stop_after={at}"]
            )[:at]
            assert used(recorded, decays, rows, WindowCount.samples) == rows[:at]
            onward = [f"resume.path={folder / 'part'}", "horizon.stop_after=null"]
            run_training(compose([*config, *onward]), folder / "part", quiet=True)
        else:
            Stop.at = at
            with pytest.raises(Interrupted):
                run_training(compose(config), folder / "part", quiet=True)
            checkpoint, Stop.at = kept / f"step={Stop.at}.ckpt", None
            run_training(compose([*config, f"resume.path='{checkpoint}'"]), folder / "rest", quiet=True)
        assert used(recorded, decays, rows, WindowCount.samples) == rows
        assert same_weights(folder / "whole", folder / ("part" if stops else "rest"))
    finally:
        Stop.at = None
        shutil.rmtree(folder)


#: Options of the trainer that change the batches of an epoch, or what happens between two steps.
TRAINER = [
    [],
    ["trainer.limit_train_batches=3"],
    ["trainer.limit_train_batches=0.7"],
    ["trainer.overfit_batches=3"],
    ["trainer.val_check_interval=0.5"],
    ["trainer.precision=bf16-true"],
    ["trainer.gradient_clip_val=0.5", "trainer.detect_anomaly=true"],
    ["trainer.reload_dataloaders_every_n_epochs=1"],
    ["callbacks=ema", "trainer.check_val_every_n_epoch=2"],
]

several: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@ignored
@settings(max_examples=8, derandomize=True, **several)
@given(overrides=runs(), share=st.floats(0, 1), stops=st.booleans())
def test_shown_is_used_is_resumed(
    overrides: list[str], share: float, stops: bool, recorded: Recorded, decays: Decays
) -> None:
    keep_the_promise(overrides, share, stops, recorded, decays)


@ignored
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("options", TRAINER[1:], ids=" ".join)
def test_each_option_of_the_trainer_is_shown_used_and_resumed(
    options: list[str], recorded: Recorded, decays: Decays
) -> None:
    keep_the_promise(
        [*options, "data.batch_size=150", "trainer.max_epochs=2", "warmup=linear"], 0.5, False, recorded, decays
    )


@ignored
@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [[f"schedule={name}", *words] for name, several in OPTIONS.items() for words in several], ids=" ".join
)
def test_each_option_of_a_schedule_is_shown_used_and_resumed(
    words: list[str], recorded: Recorded, decays: Decays
) -> None:
    keep_the_promise([*words, "data.batch_size=150", "trainer.max_epochs=2"], 0.5, False, recorded, decays)


@ignored
@pytest.mark.slow
def test_the_translated_rate_of_a_run_is_shown_used_and_resumed(
    tmp_path: Path, recorded: Recorded, decays: Decays
) -> None:
    words = ["data.batch_size=150", "trainer.max_epochs=1", "schedule=constant", "optimizer.lr=0.03"]
    run_training(compose([*SMALL, *words]), tmp_path, quiet=True)
    new = ["data.batch_size=150", "trainer.max_epochs=2", "schedule=linear", f"optimizer.lr=from:{tmp_path}"]
    assert listed([*SMALL, *new])[0]["lr/default"] == compose([*SMALL, *new])["optimizer"]["lr"] != 0.03
    keep_the_promise(new, 0.5, True, recorded, decays)
    keep_the_promise(new, 0.5, False, recorded, decays)


@ignored
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You requested to overfit")
@settings(max_examples=150, **several)
@given(overrides=runs(), options=st.sampled_from(TRAINER), share=st.floats(0, 1), stops=st.booleans())
def test_shown_is_used_is_resumed_at_length(
    overrides: list[str], options: list[str], share: float, stops: bool, recorded: Recorded, decays: Decays
) -> None:
    keep_the_promise([*overrides, *options], share, stops, recorded, decays)
