"""Paired values of a sweep: read, multiplied with other swept keys, taken from a preset, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.overrides import parse_overrides
from lrkit.config.sweep_values import expand_jobs
from lrkit.config.swept_config import check_sweep, sweep_of_files
from lrkit.sweep.job import list_jobs

KEYS = "optimizer.lr,data.batch_size"
PAIRS = f"{KEYS}=(0.1,64),(0.2,128)"


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ([PAIRS], ["optimizer.lr=0.1 data.batch_size=64", "optimizer.lr=0.2 data.batch_size=128"]),
        ([f"{KEYS}=(0.1, 64), (0.2, 128), (0.10, 64)"],  # a job twice is one job
         ["optimizer.lr=0.1 data.batch_size=64", "optimizer.lr=0.2 data.batch_size=128"]),
        (["test=true", PAIRS, "seed=1,2"],  # the last key moves fastest
         ["test=true optimizer.lr=0.1 data.batch_size=64 seed=1",
          "test=true optimizer.lr=0.1 data.batch_size=64 seed=2",
          "test=true optimizer.lr=0.2 data.batch_size=128 seed=1",
          "test=true optimizer.lr=0.2 data.batch_size=128 seed=2"]),
        (["optimizer,optimizer.lr=(adam,1e-3),(momentum,0.1)", "a,b,c=(1,2,3),(4,5,6)"],
         ["optimizer=adam optimizer.lr=1e-3 a=1 b=2 c=3", "optimizer=adam optimizer.lr=1e-3 a=4 b=5 c=6",
          "optimizer=momentum optimizer.lr=0.1 a=1 b=2 c=3", "optimizer=momentum optimizer.lr=0.1 a=4 b=5 c=6"]),
        (["+trainer.x,b=([1,2],'a,(b'),({k:1,l:2},5%)"],
         ["+trainer.x=[1,2] b='a,(b'", "+trainer.x={k:1,l:2} b=5%"]),
    ],
)  # fmt: skip
def test_paired_values_are_taken_together(words: list[str], jobs: list[str]) -> None:
    assert [" ".join(job) for job in expand_jobs(words)] == jobs


FORM = rf"^{KEYS} must have 2 values in parentheses for each job: {KEYS}=\(a1,b1\),\(a2,b2\)\. Received: "


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"{KEYS}=(0.1,64),(0.2)"], FORM + r"'\(0\.2\)'$"),
        ([f"{KEYS}=(0.1,64),(0.2,)"], FORM),
        ([f"{KEYS}=(0.1,64),(0.2,1,2)"], FORM),
        ([f"{KEYS}=0.1,0.2"], FORM),
        ([f"{KEYS}=[0.1,64],[0.2,128]"], FORM),
        ([f"{KEYS}=(0.1,64),(0.2,128"], FORM),
        ([f"{KEYS}=(0.1,64)"], rf"^{KEYS} must have at least two .* write optimizer\.lr=0\.1 data\.batch_size=64\."),
        ([f"{KEYS}=(0.1,64),(0.2,range(1,3))"], r"^data\.batch_size must have one value in each "),
        (["optimizer.lr,+optimizer.lr=(1,2),(3,4)"], r"must have each key once"),
        (["optimizer.lr,=(1,2),(3,4)"], r"must be keys with commas between them"),
        ([PAIRS, "optimizer.lr=1"], rf"^optimizer\.lr is given twice: {KEYS}=.* and optimizer\.lr=1"),
        ([PAIRS, "seed,optimizer.lr=(1,1),(2,2)"], r"^optimizer\.lr is given twice: "),
        (["optimizer.lrr,seed=(0.1,1),(0.2,2)"], r"^optimizer\.lrr is not a key\. Did you mean 'lr'\?"),
        (["optimizer.lr,seed=(0.1,1),(0.2,-2)"], r"^seed must be a whole number"),
        (["trust,seed=([a],1),([b],2)", "sweep,seed=(a,1),(b,2)"], r"^seed is given twice"),
        (["+sweep,seed=(rates,1),(decay,2)"], r"^sweep takes one option"),
    ],
)  # fmt: skip
def test_other_forms_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_sweep(words)


def test_pairs_are_for_sweeps() -> None:
    with pytest.raises(ConfigError, match=rf"^{KEYS} takes paired values in a sweep only: lrkit train -m '{KEYS}="):
        parse_overrides([PAIRS])
    with pytest.raises(ConfigError, match=r"takes paired values in a sweep only"):
        compose([PAIRS])


def test_too_many_jobs_are_refused() -> None:
    with pytest.raises(ConfigError, match="-m must have at most 1000 jobs"):
        expand_jobs(["a,b=" + ",".join(f"({i},{i})" for i in range(1001))])
    with pytest.raises(ConfigError, match="-m must have at most 1000 jobs"):
        expand_jobs([PAIRS, "seed=range(0,501)"])


@pytest.fixture
def config_dir(tmp_path: Path) -> str:
    (tmp_path / "sweep").mkdir()
    text = f"# @package _global_\nhydra:\n  sweeper:\n    params:\n      {KEYS}: (0.1,64),(0.2,128)\n      seed: 1,2\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(text)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ([], [PAIRS, "seed=1,2"]),
        (["seed=5"], [PAIRS]),
        (["optimizer.lr=0.3", "data.batch_size=8,16"], ["seed=1,2"]),
        ([f"{KEYS}=(1,1),(2,2)"], ["seed=1,2"]),
    ],
)
def test_a_preset_may_pair_values(config_dir: str, typed: list[str], added: list[str]) -> None:
    words = ["+sweep=mine", *typed]
    assert sweep_of_files(words, config_dir).words == [*words, *added]
    check_sweep([*words, *added], config_dir)


def test_a_preset_of_paired_values_is_not_replaced_in_part(config_dir: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{KEYS} are paired in .*: set all of these keys or none; optimizer\.lr=1 sets only optim"
    ):
        sweep_of_files(["+sweep=mine", "optimizer.lr=1"], config_dir)


def test_a_search_refuses_pairs() -> None:
    with pytest.raises(ConfigError, match=rf"^{KEYS} has paired values, but \+launcher=optuna picks a value for each"):
        check_sweep(["+launcher=optuna", PAIRS], searches=True)


def test_each_job_has_both_keys_in_its_folder(tmp_path: Path) -> None:
    folders = [job.folder.name for job in list_jobs([PAIRS, "jobs=2"], tmp_path, None)]
    assert folders == ["0_optimizer.lr=0.1,data.batch_size=64", "1_optimizer.lr=0.2,data.batch_size=128"]
