"""Random command lines and folders: no traceback, no hang, no unexpected file.

Each example is one command line in an empty folder. The jobs do nothing: the test is about everything before them.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrkit.cli import board
from lrkit.cli.main import main
from lrkit.config import compose as config
from lrkit.config import overrides
from lrkit.lr_finder import find
from lrkit.sweep import hydra_job, sweep
from lrkit.sweep.common_errors import refuse_common_error

LIMIT = 60.0  # seconds for an example, also on a busy machine
KEYS = sorted(overrides.leaf_paths(config.compose(["warmup=linear", "cooldown=linear", "plateau=reduce"])))
GROUPS = sorted(overrides.default_choices())
OPTIONS = {group: sorted(path.stem for path in (config.CONF_DIR / group).glob("*.yaml")) for group in GROUPS}
OWN = "own"  # the folder of the user's own configs


def listed(text: str) -> list[str]:
    return text.split()  # ruff would have a list of a hundred strings


# --- command lines --------------------------------------------------------------------------------

NUMBERS = listed("""
    0 -1 1 2 7 1e400 -1e400 nan inf -inf 1e-400 1000000000000000000000000000000 0x10 1/10 010 1:30 1_000 .5
    1. +1 1e5 1e-5 5% 101% 2ep 0ep -3sp 0.5sp 0.5 1.0 0.1ep 1e3ep 100% 0.0 -0.0 1000000000 10000000000
    9223372036854775808 NaN true false null True no off 1,2 1e-3
""")
TEXTS = listed(r"""
    '' "" ' " '"x"' "'x'" \ \\ \' ( ) [ ] { } ( [1,2 {a:b {a:b} {a:{b:c}} [] {} [[]] [1,2] [1,a,null]
    [{a:1}] [{}] {1:2} {:} [,] a,b ,a a, , : :a a: @ @a a@b # $ ${ ${} ${optimizer.lr} ${nope} ${seed}
    ${.lr} ${..lr} ${oc.env:HOME} ${oc.env:NO_SUCH} ${oc.env:NO_SUCH,3} ${now:%Y} ${hydra:job.name}
    ${hydra.job.num} ${lrkit.name:a} ${oc.decode:1} ${nope:1} ${${seed}} ${seed}${seed} ${oc.select:nope}
    ${oc.create:{a:1}} ??? glob(*) glob(a*) range(1,3) range(3) range(0,1000000000000) range(1,2,0) range(a)
    choice(1,2) choice() interval(0,1) interval(1,0) sort(3,1,2) shuffle(1,2) shuffle(range(9)) tag(a,b)
    cast() int(3) float(3) str(3) bool(x) json_str([1]) extend_list(1) é 学習率 🙂 ﷽ \ud800 a.b.c a/b ../a ~ ~/a
    . .. / - -- -a --a = == a=b adam cosine Cosine none auto lrkit.schedules.Cosine lrkit.schedules.Nope
    lrkit.nope.Nope torch. .torch a..b
""")
NASTY = [
    "\x00",
    "\x1b[31mred",
    "a\nb",
    "a\tb",
    "\r",
    "a b",
    " ",
    "\u2028",
    "\x85",
    "\udcff",
    "x" * 5000,
    "[" * 300,
    "${" * 50,
]

atoms = st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.sampled_from(NASTY) | st.text(max_size=6)
keys = st.sampled_from(KEYS) | st.sampled_from([key for key in KEYS if not key.startswith(("trainer", "find"))])
wrong_keys = st.sampled_from(
    listed("""
    lr optimizer optimizer.lr.a optimizer..lr .optimizer optimizer. schedule.T_max schedule.phases
    schedule.milestones schedule.every coschedule.momentum coschedule schedule@coschedule.momentum
    schedule@x optimizer@model +experiment experiment sweep +sweep launcher +launcher hydra hydra.nope
    hydra/launcher hydra/sweeper hydra.launcher hydra.sweeper.params hydra.job.name hydra.job.num
    hydra.verbose hydra.output_subdir hydra.help seed.a trainer.nope callbacks.a callbacks.a._target_
    logger.a logger.tensorboard defaults _target_ param_groups.rules resume.path format metric by out port -
    0 1a é
""")
) | st.text(max_size=5)  # fmt: skip
prefixes = st.sampled_from(["", "", "", "", "+", "++", "~"])
mutated = st.builds(lambda p, k, v: f"{p}{k}={v}", prefixes, keys | wrong_keys, atoms)
cut = st.builds(str.__add__, prefixes, keys | wrong_keys)
chosen = st.sampled_from(GROUPS).flatmap(
    lambda group: st.sampled_from(OPTIONS[group]).map(lambda option: f"{group}={option}")
)
swept = st.builds(lambda k, v, w: f"{k}={v},{w}", keys, atoms, atoms)
flags = st.sampled_from(
    listed("""
    -m -m -m --multirun --cfg --cfg=job -c -c=hydra --cfg=x --info --info=defaults --info=x -p
    --package=optimizer --resolve -sc --shell-completion --version --help -h --hydra-help --run -r -1 -- -
    --nope --traceback=1 --config-dir --config-dir=. --config-dir=nope -cd --config-name=x --config-path=/
    --experimental-rerun=x -mh --multi format=csv format=json format=pdf format= port=0 port=x metric=a by=x
    by=best out=out out=
""")
)
commands = st.sampled_from(["show", "show", "train", "train", "find", "compare", "board"])
words = st.one_of(mutated, mutated, mutated, chosen, chosen, cut, swept, flags, atoms)
settled = st.lists(chosen, max_size=3, unique_by=lambda word: word.partition("=")[0])
lines = st.one_of(
    st.builds(lambda c, w: [c, *w], commands, st.lists(words, min_size=1, max_size=4)),
    # One thing wrong at most, and so seen by whatever lies deep.
    *2 * [st.builds(lambda c, w, m: [c, *w, m], st.sampled_from(["show", "train", "find"]), settled, mutated)],
    st.builds(lambda c, w, m: [c, "-m", *w, m], st.sampled_from(["show", "train"]), settled, mutated | swept),
)
gibberish = st.lists(st.one_of(atoms, flags, commands, cut), max_size=5)

# --- files in the folder --------------------------------------------------------------------------

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(NUMBERS + TEXTS + NASTY[:-1]))
names = st.sampled_from(
    [*{key.rpartition(".")[2] for key in KEYS}, *GROUPS, "defaults", "_target_", "_self_", "phases"]
)
trees = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
SNIPPETS = [
    "", "\t", "a:\tb", "a: 1\na: 2", "\ta: 1", "a: b: c", "- 1\n- 2", "5", "text", "%", "a: !!python/name:os.system",
    "a: !!python/object/apply:os.getcwd []", "!!set {a, b}", "a: !nope 1", "a: &x 1\nb: *x", "a: *x", "&x [*x]",
    "a: &x {b: *x}", "<<: {a: 1}", "? [1, 2]\n: 3", "{1: 2}", "{null: 1}", "{true: 1}", "a: 2001-01-01", "--- 1\n--- 2",
    "\ufeffa: 1", "a: '", "a: [1", "a: {b", "_target_: 5", "_target_: null", "_target_: ''", "_target_: [a]",
    "_target_: lrkit.schedules.Cosine\nend: {a: 1}", "_target_: lrkit.schedules.Cosine\nend: ${nope}", "lr: 1\nlr: 2",
    "_target_: lrkit.schedules.Piecewise\nphases: [{_target_: lrkit.schedules.Cosine, length: x}, 3]",
    "defaults: 5", "defaults: {a: b}", "defaults: [a]", "defaults: [mine]", "defaults: [{nope: a}]", "defaults: [[a]]",
    "defaults: [{a: b, c: d}]", "defaults: [{override schedule: step}]", "defaults: [{override nope: step}]",
    "defaults: [{optional nope: x}]", "defaults: [{/schedule: mine}]", "defaults: [{schedule: mine}]",
    "defaults: [null]",
    "defaults: [{/schedule: [step, cosine]}]", "defaults: [{'/optimizer@': adam}]", "defaults: [_self_, _self_]",
    "defaults: [{/schedule: '${nope}'}]", "defaults: [{/experiment: mine}]", "# @package\na: 1", "# @package _global_",
    "# @package _global_\nseed: x", "# @package _global_\nnope: 1", "# @package a.b\nc: 1", "# @package ${x}\na: 1",
    "# @package _global_\noptimizer: 3", "# @package _global_\noptimizer: null", "# @package _global_\ntrainer: []",
    "# @package _global_\nhydra: {sweeper: {params: {seed: 'range('}}}", "# @package _global_\nhydra: 3",
    "# @package _global_\nhydra: {sweeper: {params: 3}}",
    "# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}",
    "# @package _global_\nhydra: {run: {dir: null}}", "# @package _global_\nhydra: {mode: MULTIRUN}",
    "[" * 80 + "]" * 80, "a: " + "[" * 80, "{a: " * 60 + "1" + "}" * 60, "a: " + "9" * 5000, "é: 学習率",
]  # fmt: skip
texts = st.sampled_from(SNIPPETS).map(str.encode) | st.binary(max_size=12) | trees.map(
    lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
)  # fmt: skip
places = st.sampled_from([*GROUPS, "experiment", "sweep", "hydra/launcher", "launcher"])
configs = st.dictionaries(
    places.map(lambda group: f"{group}/mine.yaml") | st.sampled_from(["train.yaml", "schedule/step.yaml", "a.yaml"]),
    texts, min_size=1, max_size=2,
)  # fmt: skip


def _asks_for(files: Mapping[str, bytes], command: str, sweeps: bool) -> list[str]:
    """A command line that uses the files."""
    mine = [file.rpartition("/")[0] for file in files if file.endswith("/mine.yaml")]
    given = [f"{'+' if group in ('experiment', 'sweep', 'launcher') else ''}{group}=mine" for group in mine]
    return [command, *(["-m"] if sweeps else []), *given, "--config-dir", OWN]


users_files = st.builds(
    lambda files, command, sweeps: ({f"{OWN}/{name}": text for name, text in files.items()},
                                    _asks_for(files, command, sweeps)),
    configs, st.sampled_from(["show", "show", "train", "find"]), st.sampled_from([False, False, False, True]),
)  # fmt: skip

METRICS: dict[str, Any] = {
    "status": "done", "monitor": "val/loss", "steps": 3, "seconds": 1.5, "final": {"val/loss": 1.0},
    "best": {"step": 2, "val/loss": 0.5},
}  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A file of metrics with something else in one place."""
    metrics = {**METRICS, draw(st.sampled_from([*METRICS, "test", "best"])): draw(trees)}
    return json.dumps(metrics).encode("utf-8", "surrogatepass")


contents = st.one_of(
    spoiled(), spoiled(), st.just(json.dumps(METRICS).encode()), trees.map(lambda tree: json.dumps(tree).encode()),
    texts, st.binary(max_size=40), st.binary(max_size=12).map(lambda tail: b"\x18" + b"\x00" * 7 + tail),
)  # fmt: skip
results = st.dictionaries(
    st.builds(
        "{}{}".format,
        st.sampled_from(["", "a/", "b/", "a/b/", "0_seed=1/"]),
        st.sampled_from(listed("""
    metrics.json metrics.json plan.json config.json environment.json .hydra/config.yaml .hydra/hydra.yaml sweep.json
    events.out.tfevents.1 hparams.yaml train/events.out.tfevents.1 results.csv job.log
""")),
    ),
    contents, min_size=1, max_size=5,
)  # fmt: skip
comparing = st.lists(
    st.sampled_from(["runs", "runs/a", "runs/b", "nope", "metric=val/loss", "metric=a", "by=final", "by=x", "out=out"]),
    max_size=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def fork_server() -> None:
    """The fork server of sweeps imports torch, which may take longer than LIMIT, in a folder that stays."""
    refuse_common_error([["seed=1"]], None)


# --- one example ----------------------------------------------------------------------------------


class Hangs(BaseException):
    """Too long: nothing may catch it."""


@contextmanager
def watched() -> Iterator[None]:
    """An example that hangs fails, and shows where."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise Hangs(f"more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answers(argv: list[str], files: Mapping[str, bytes]) -> None:
    """One command line gets a proper answer."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, content in files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            if not Path(name).is_dir():
                Path(name).write_bytes(content)
        before = {path for path in Path().rglob("*") if path.is_file()}
        with watched(), redirect_stdout(out), redirect_stderr(err):
            code = main(argv)
        made = {path for path in Path().rglob("*") if path.is_file()} - before
    said = err.getvalue()
    where = f"{shlex.join(argv)!r} -> {code}: {said}"
    assert code in (0, 2) or "the engine failed" in said, where  # 1 would be an unexpected exception
    assert "Traceback" not in said and "Traceback" not in out.getvalue(), where
    allowed = ("outputs", "multirun") if argv[:1] != ["compare"] else ("outputs", "out", "runs")
    assert {path.parts[0] for path in made} <= {*allowed}, f"{where} {made}"
    if code == 2:
        assert not made, f"{where} {made}"
        last = said.splitlines()[-1] if said else ""
        assert last.startswith("lrkit: ") and said.endswith(f"{last}\n") and said.count("\n") == 1, where
        assert _names_something(last, argv, files), where
    if code == 0:
        assert not said, where


def _names_something(line: str, argv: list[str], files: Mapping[str, bytes]) -> bool:
    """Return whether a refusal names its subject: a word of the command line, a file, or a key of the config."""
    typed = {part for word in argv for part in re.split(r"[=\s]", word.lstrip("+~")) if part} | {"an override"}
    there = {*KEYS, *GROUPS, *(key.rpartition(".")[0] for key in KEYS), *(Path(name).name for name in files), "config"}
    return any(word in line for word in typed | there | {"lrkit"} if word)


@pytest.fixture(scope="module", autouse=True)
def jobs_do_nothing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra_job, "train_job", lambda config: SimpleNamespace(status="done"))
        patch.setattr(hydra_job, "score_job", lambda config: 0.0)
        patch.setattr(find, "find_lr", lambda *_, **__: SimpleNamespace(lr=0.1, flag="", steps=1, seconds=1.0,
                                                                     sentence=lambda: "found"))  # fmt: skip
        patch.setattr(sweep.Sweep, "run", lambda *_: {"done": 1})
        patch.setattr("lrkit.cli.sweep.close_sweep", lambda *_: 0)
        patch.setattr(board.subprocess, "call", lambda *_: 0)
        patch.setattr(sys, "path", list(sys.path))
        patch.delenv("NO_SUCH", raising=False)
        yield


def fuzz(examples: int, quick: bool = True) -> settings:
    """Quick ones are the same each time; slow ones look elsewhere each time."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, deadline=None, derandomize=quick, suppress_health_check=checks, database=None
    )


@pytest.mark.usefixtures("fork_server")
@fuzz(60)
@given(lines)
def test_overrides(argv: list[str]) -> None:
    answers(argv, {})


@pytest.mark.usefixtures("fork_server")
@fuzz(130)
@given(gibberish)
def test_gibberish(argv: list[str]) -> None:
    answers(argv, {})


@pytest.mark.usefixtures("fork_server")
@fuzz(35)
@given(users_files)
def test_configs_of_ones_own(example: tuple[dict[str, bytes], list[str]]) -> None:
    answers(example[1], example[0])


@fuzz(75)
@given(results, comparing)
def test_results(files: dict[str, bytes], more: list[str]) -> None:
    answers(["compare", "runs", *more], {f"runs/{name}": content for name, content in files.items()})


@pytest.mark.slow
@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize(
    ("strategy", "examples"),
    [
        (lines.map(lambda argv: (argv, {})), 2000),
        (gibberish.map(lambda argv: (argv, {})), 4500),
        (users_files.map(lambda example: (example[1], example[0])), 500),
        (
            st.builds(
                lambda files, more: (["compare", "runs", *more], {f"runs/{name}": c for name, c in files.items()}),
                results,
                comparing,
            ),
            3000,
        ),
    ],
    ids=["overrides", "gibberish", "configs", "results"],
)
def test_ten_thousand_more(strategy: st.SearchStrategy[Any], examples: int) -> None:
    @fuzz(examples, quick=False)
    @given(strategy)
    def all_answered(example: tuple[list[str], dict[str, bytes]]) -> None:
        answers(*example)

    all_answered()
