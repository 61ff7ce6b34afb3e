"""Overrides of the command line: parsed, expanded into the jobs of a sweep, and refused with a hint."""

from __future__ import annotations

import time

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.config import overrides
from lrkit.config.compose import compose
from lrkit.config.near_names import nearest_key, suggest_name
from lrkit.config.overrides import (
    default_choices,
    hydra_initialised,
    leaf_paths,
    parse_overrides,
)
from lrkit.config.shipped_options import CONF_DIR, parse_shipped_yaml
from lrkit.config.sweep_values import MAX_JOBS, expand_jobs, list_choices
from lrkit.config.unknown_keys import unknown_key

KEYS = ["optimizer.lr", "optimizer.momentum", "schedule.end", "schedule.start", "horizon.steps", "seed", "warmup"]


# --- parse ----------------------------------------------------------------------------------------


def test_parse_keeps_the_order_and_the_words() -> None:
    words = ["schedule=step", "optimizer.lr=0.1", "+callbacks.a.b=1", "~data.seed", "++seed=3"]
    parsed = parse_overrides(words)
    assert [override.input_line for override in parsed] == words
    assert [override.key_or_group for override in parsed] == [
        "schedule", "optimizer.lr", "callbacks.a.b", "data.seed", "seed"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "value"),
    [("0.1", 0.1), ("1e-3", 1e-3), ("5%", "5%"), ("2ep", "2ep"), ("null", None), ("true", True), ("[1,5%]", [1, "5%"]),
     ("'a b'", "a b"), ("inf", float("inf")), ("val/loss", "val/loss"), ("{a:1}", {"a": 1})],
)  # fmt: skip
def test_parse_reads_values(written: str, value: object) -> None:
    assert parse_overrides([f"key={written}"])[0].value() == value


def test_the_same_option_may_be_mounted_twice() -> None:
    assert len(parse_overrides(["schedule=step", "schedule@coschedule.momentum=cosine"])) == 2


@given(st.lists(st.text(max_size=30), max_size=3))
@example(["=5"])
@example(["a=range(0,10,0)"])
@example(["a=range(5,1,-0.5)"])
@example(["a=choice()"])
@example(["a=glob(*)"])
@example(["a=int('x')"])
@example(["a=shuffle(range(0,1e300))"])
@example(["a=1,,2"])
@example(["~"])
@example(["a@b=1"])
@example(["@=1"])
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_refused(words: list[str]) -> None:
    try:
        jobs = expand_jobs(words)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(jobs) <= MAX_JOBS
        assert all(len(job) == len(words) for job in jobs)


@given(
    st.sampled_from(["optimizer.lr", "schedule", "seed", "warmup.length", "+x", "~y", "a.b@c"]),
    st.text("0123456789.,%()[]{}:$'\"\\+-=/ abcxrangechoiceglobintervalsortshuffle\n\t", max_size=24),
)
@settings(max_examples=300, deadline=None)
def test_any_value_of_a_key_is_parsed_or_refused(key: str, value: str) -> None:
    try:
        expand_jobs([f"{key}={value}"])
    except ConfigError as error:
        assert "\n" not in str(error)


# --- expand ---------------------------------------------------------------------------------------


def test_nothing_swept_is_one_job() -> None:
    assert expand_jobs([]) == [[]]
    assert expand_jobs(["seed=1"]) == [["seed=1"]]


def test_the_last_key_moves_fastest_and_what_is_not_swept_stays() -> None:
    assert expand_jobs(["schedule=step,cosine", "seed=7", "optimizer.lr=range(1,4)"]) == [
        [f"schedule={schedule}", "seed=7", f"optimizer.lr={lr}"] for schedule in ("step", "cosine") for lr in (1, 2, 3)
    ]


def test_values_keep_their_meaning_and_their_units() -> None:
    assert expand_jobs(["optimizer.lr=1e-3,0.10", "warmup.length=5%,2ep", "model.hidden=[8],[8,8]"])[0] == [
        "optimizer.lr=0.001", "warmup.length=5%", "model.hidden=[8]"
    ]  # fmt: skip


def test_a_glob_stands_for_the_options_of_a_group() -> None:
    jobs = expand_jobs(["schedule=glob(c*)"])
    assert jobs == [["schedule=constant"], ["schedule=cosine"], ["schedule=cyclic"]]


@pytest.mark.parametrize(
    ("overrides", "jobs"), [(["seed=range(0,1000)"], 1000), (["a=range(0,10)", "b=range(0,100)"], 1000)]
)
def test_a_thousand_jobs_are_accepted(overrides: list[str], jobs: int) -> None:
    assert len(expand_jobs(overrides)) == jobs == MAX_JOBS


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=range(0,1001)"],
        ["a=range(0,1000000)", "b=range(0,1000000)"],
        ["a=range(0,11)", "b=range(0,100)"],
        ["a=shuffle(range(0,1000000000000))"],
        ["a=range(0,1000000000000,0.5)"],
    ],
)
def test_more_than_a_thousand_jobs_are_refused_at_once(overrides: list[str]) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError, match=f"-m must have at most {MAX_JOBS} jobs"):
        expand_jobs(overrides)
    assert time.process_time() - begun < 2.0


def test_what_cannot_be_listed_cannot_be_swept() -> None:
    for sweep in ("interval(0,1)", "glob(x*)"):
        with pytest.raises(ConfigError, match=r"^schedule must sweep over"):
            expand_jobs([f"schedule={sweep}"])


def test_swept_lists_one_override() -> None:
    (choice,) = list_choices(["seed=1,2"])
    assert choice.alternatives == [("seed=1",), ("seed=2",)]


# --- hints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optimizer.lrr", "Did you mean 'lr'? Accepted: lr, momentum"),
        ("optimizer.learning_rate", "Did you mean 'lr'? Accepted: lr, momentum"),
        ("schedule.eta_min", "Did you mean 'end'? Accepted: end, start"),
        ("schedule.zzz", "Accepted: end, start"),
        ("lr", "Did you mean 'optimizer.lr'?"),
        ("learning_rate", "Did you mean 'optimizer.lr'?"),
        ("sead", "Did you mean 'seed'?"),
        ("optimzer.lr", "Did you mean 'optimizer.lr'?"),
        ("zzz", "Accepted: horizon, optimizer, schedule, seed, warmup"),
    ],
)
def test_nearest(key: str, hint: str) -> None:
    assert nearest_key(key, KEYS) == hint


def test_an_empty_group_says_what_else_there_is() -> None:
    assert str(unknown_key("warmup.length", KEYS)) == (
        "warmup.length is not a key of warmup=none; other options of warmup: constant, cosine, exponential, formula,"
        " linear, logarithmic."
    )


def test_another_librarys_name_counts_only_where_ours_is_accepted() -> None:
    assert suggest_name("T_max", ["length"]) == "Did you mean 'length'? Accepted: length"
    assert suggest_name("T_max", ["gamma"]) == "Accepted: gamma"


def test_leaves_are_the_dotted_paths() -> None:
    assert list(leaf_paths({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]})) == ["a.b", "a.c", "d"]


def test_defaults_are_the_first_lines_of_the_table_of_contents() -> None:
    assert list(default_choices().items())[:3] == [("data", "digits"), ("model", "mlp"), ("optimizer", "momentum")]
    assert not any("@" in group or " " in group for group in default_choices())


# --- Hydra's global state -------------------------------------------------------------------------


def test_hydra_is_left_as_it_was_found() -> None:
    before = GlobalHydra.instance().hydra
    with hydra_initialised():
        inner = GlobalHydra.instance().hydra
        assert inner is not None and inner is not before
        with pytest.raises(KeyError), hydra_initialised():
            raise KeyError
        assert GlobalHydra.instance().hydra is inner
    assert GlobalHydra.instance().hydra is before


def test_lrkits_own_files_are_parsed_once() -> None:
    words = ["schedule=cosine", "+experiment=demo"]
    first = compose(words)
    parsed = overrides._parse_shipped_file.cache_info().misses
    assert compose(words) == first  # what Hydra did to the first one does not show in the second one
    assert overrides._parse_shipped_file.cache_info().misses == parsed > 10


def test_lrkits_own_files_are_read_as_omegaconf_reads_them() -> None:
    files = [*CONF_DIR.rglob("*.yaml")]
    assert len(files) > 100
    for file in files:
        expected = OmegaConf.to_container(OmegaConf.load(file))
        assert repr(parse_shipped_yaml(file.read_text())) == repr(expected), file
    assert repr(parse_shipped_yaml("[1e-3, 1_0.5, 2020-01-01, 0o7, yes]")) == "[0.001, 10.5, '2020-01-01', '0o7', True]"
    numbers = (
        "1e3 -1E+3 +1.5e3 1.e3 .5 .5e+3 .5e3 1_0e2 1_ 1__0e2 0x1f 0o7 017 0b1 1:30 1:30.5 inf .inf -.INF .nan 1e e3"
    )
    texts = ["2020-01-01", "2020-01-01 10:00:00", "yes", "Off", "null", "~", "''", "'1e3'", *numbers.split()]
    for text in texts:
        expected = OmegaConf.to_container(OmegaConf.create(f"x: {text}"))
        assert repr(parse_shipped_yaml(f"x: {text}")) == repr(expected), text
