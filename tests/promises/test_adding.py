"""The recipes of CONTRIBUTING.md, each followed in a copy of the repository: nothing else must change."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from locations import ROOT, environment

from lrkit.base.exit_codes import DIVERGED

PARTS = ("lrkit", "conf", "tests", "evidence", "benchmarks", "docs", "examples", "README.md",
         "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml",
         "constraints.txt", "LICENSE")  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What is added, where, and what must hold then.

    Args:
        section: the heading in CONTRIBUTING.md.
        new: files that are made, with their text.
        changed: files that are changed: a text in the file, and the text in its place.
        shows: an override of `lrkit show`, and a text that it then prints.
        tests: the tests that look at the thing, which must pass.
    """

    section: str
    new: Mapping[str, str]
    changed: Mapping[str, Sequence[tuple[str, str]]]
    shows: Sequence[tuple[str, str]]
    tests: Sequence[str]


#: A module of the package ``evidence``.
EXPERIMENT = '''"""Claim: a warmup over half of the run is too long."""

from evidence.claim import Claim, Finding, verdict


def measure(lab):
    lab.sweep("lengths", "+experiment=long_warmup", "+sweep=long_warmup")
    return Finding("not separable", "A test of the recipe.", [["a"], ["b"]])


CLAIM = Claim("A long warmup", "It is too long.", "Two lengths.", measure, ["lrkit train -m +sweep=long_warmup"])
'''

#: The tests that look at an optimizer's option.
OF_OPTIMIZERS = [
    "tests/planning/test_optimizer_traits.py",
    "tests/optim/test_optimizer_factory.py",
    "tests/test_readme.py",
    "tests/test_readme_translation.py",
    "tests/config/test_optimizer_options.py",
    "tests/test_yaml_comments.py",
    "tests/test_site.py",
]

RECIPES = {
    "schedule": Recipe(
        "Add a schedule",
        {
            "conf/schedule/quarter.yaml": (
                "# A quarter of the rate from a share of the phase on.\n"
                "defaults: [/_shared/schedule@_here_]\n_target_: lrkit.schedules.Quarter\n"
                "length: null  # duration of the phase; null: the rest of the run\n"
                "at: 0.5       # the share of the phase, in [0, 1]; half is easy to see\n"
            )
        },
        {
            "lrkit/schedules/shapes/decays.py": [
                (
                    "@dataclass(frozen=True)\nclass Sqrt(",
                    "@dataclass(frozen=True)\nclass Quarter(Schedule):\n"
                    '    """A quarter of the rate from a share of the phase on.\n\n'
                    "        m = 1 if s < at n, else 1/4\n\n"
                    "    >>> Quarter()(2, 8), Quarter()(4, 8)\n    (1.0, 0.25)\n"
                    '    """\n\n    at: float = number(0.5, low=0, high=1)\n\n'
                    "    def value(self, s: float, n: int) -> float:\n"
                    "        return 1.0 if s < self.at * n else 0.25\n\n"
                    "    def turns(self, n: int) -> list[int]:\n"
                    "        return [e for e in [math.ceil(self.at * n)] if 0 < e < n]\n\n\n"
                    "@dataclass(frozen=True)\nclass Sqrt(",
                ),
                ('"Polynomial", ', '"Polynomial", "Quarter", '),
            ],
            "tests/schedules/test_shapes.py": [
                ("    Polynomial,\n", "    Polynomial,\n    Quarter,\n"),
                ("TABLE = [\n", "TABLE = [\n    (Quarter(), 8, [0, 3, 4, 7], [1, 1, 0.25, 0.25]),\n"),
                (
                    "    Piecewise: piecewise,",
                    "    Quarter: lambda draw, n: Quarter(at=draw(st.floats(0, 1))),\n    Piecewise: piecewise,",
                ),
            ],
        },
        [("schedule=quarter", "quarter"), ("schedule=quarter schedule.at=0.25", "quarter")],
        [
            "tests/schedules",
            "tests/test_yaml_comments.py",
            "tests/test_site.py",
            "tests/test_readme.py",
            "tests/test_readme_translation.py",
            "lrkit/schedules",
            "tests/test_sizes.py",
        ],
    ),
    "warmup": Recipe(
        "Add a warmup or a cooldown",
        {
            "conf/warmup/sqrt.yaml": (
                "# A warmup along a square root.\n"
                "defaults: [/_shared/warmup@_here_]\n_target_: lrkit.schedules.Sqrt\n"
                "length: 5%   # duration of the warmup, >= 0; a common share of the run\n"
                "start: 0.1   # first value, as a share of the schedule's first value, >= 0\n"
            )
        },
        {},
        [("warmup=sqrt", "warmup    sqrt")],
        ["tests/test_yaml_comments.py", "tests/test_site.py", "tests/test_compose.py"],
    ),
    "cooldown": Recipe(
        "Add a warmup or a cooldown",
        {
            "conf/cooldown/restarts.yaml": (
                "# A cooldown in two cycles, down from the schedule's last value.\n"
                "defaults: [/_shared/cooldown@_here_]\n_target_: lrkit.schedules.Restarts\n"
                "length: 20%  # duration of the cooldown, >= 0; the share of the other cooldowns\n"
                "end: 0.0     # multiplier of the base learning rate at the end, >= 0; 0: it ends at zero\n"
                "cycles: 2    # number of cycles, whole number >= 1\n"
            )
        },
        {},
        [("schedule=constant cooldown=restarts", "cooldown  restarts")],
        ["tests/test_yaml_comments.py", "tests/test_compose.py"],
    ),
    "batch-size rule": Recipe(
        "Add a batch-size rule",
        {
            "conf/batch_scaling/cube_root.yaml": (
                "# In proportion to the cube root of the batch size.\n"
                "rule: cube_root       # name of the rule; choose another one by batch_scaling=none, linear or sqrt\n"
                "base_batch_size: 256  # samples in an optimizer step for which optimizer.lr was chosen,"
                " whole number >= 1\n"
            )
        },
        {
            "lrkit/planning/batch_scaling.py": [
                ('    "sqrt": math.sqrt,', '    "cube_root": lambda k: float(k ** (1 / 3)),\n    "sqrt": math.sqrt,')
            ],
            "tests/planning/test_batch_scaling.py": [
                (
                    "TABLE = [\n",
                    'TABLE = [\n    ("cube_root", 64, 64, SGD, 1, "1 (cube_root: batch 64 / base 64)"),\n',
                )
            ],
        },
        [
            (
                "batch_scaling=cube_root data.batch_size=512 batch_scaling.base_batch_size=64",
                "0.2 = 0.1 x 2 (cube_root: batch 512 / base 64)",
            )
        ],
        ["tests/planning/test_batch_scaling.py", "tests/test_yaml_comments.py", "tests/test_site.py"],
    ),
    "optimizer": Recipe(
        "Add an optimizer",
        {
            "conf/optimizer/adamax.yaml": (
                "# Adam with the infinity norm (Kingma and Ba 2015, section 7.1).\n_target_: torch.optim.Adamax\n"
                "lr: 2.0e-3           # base learning rate, > 0; the paper's and torch's\n"
                "betas: [0.9, 0.999]  # decay of the running mean and of the norm, each in [0, 1); the paper's\n"
                "eps: 1.0e-8          # added to the denominator, > 0; torch's default\n"
                "weight_decay: 0.0    # an L2 penalty, >= 0; torch's default\n"
            )
        },
        {
            "lrkit/config/optimizer_options.py": [
                (
                    '    "torch.optim.NAdam": {',
                    '    "torch.optim.Adamax": {**_ADAM, **_CAPTURABLE},\n    "torch.optim.NAdam": {',
                )
            ],
            "tests/planning/test_optimizer_traits.py": [
                ('    "nadam":  ', '    "adamax": ("torch.optim.Adamax", "adaptive", "betas", 2e-3),\n    "nadam":  ')
            ],
            "README.md": [(" nadam radam", " adamax nadam radam")],
            "README.zh.md": [(" nadam radam", " adamax nadam radam")],
        },
        [("optimizer=adamax", "Adamax")],
        OF_OPTIMIZERS,
    ),
    "optimizer of an unknown class": Recipe(
        "Add an optimizer",
        {
            "conf/optimizer/yogi.yaml": (
                "# Yogi: Adam with additive changes of the second moment (Zaheer et al. 2018, algorithm 2).\n"
                "_target_: pytorch_optimizer.Yogi\n"
                "lr: 1.0e-2           # base learning rate, > 0; the paper's\n"
                "betas: [0.9, 0.999]  # decay of the average of the gradient and of its square, each in [0, 1); the"
                " paper's\n"
                "eps: 1.0e-3          # added to the denominator, > 0; the paper's\n"
                "weight_decay: 0.0    # decoupled, >= 0; the class's default\n"
            )
        },
        {
            "lrkit/planning/optimizer_traits.py": [
                ('    "schedulefree.AdamW', '    "pytorch_optimizer.Yogi": _ADAM,\n    "schedulefree.AdamW')
            ],
            "lrkit/config/optimizer_options.py": [
                (
                    '    "schedulefree.AdamW',
                    '    "pytorch_optimizer.Yogi": {**_ADAM, "eps": 1e-3, "initial_accumulator": 1e-6, **_DECOUPLED,'
                    ' **_TORCH},\n    "schedulefree.AdamW',
                ),
                ('"lr_decay", "momentum_decay",', '"lr_decay", "initial_accumulator", "momentum_decay",'),
            ],
            "tests/planning/test_optimizer_traits.py": [
                ('    "lion":  ', '    "yogi": ("pytorch_optimizer.Yogi", "adaptive", "betas", 1e-2),\n    "lion":  ')
            ],
            "README.md": [(" lion lamb", " lion yogi lamb")],
            "README.zh.md": [(" lion lamb", " lion yogi lamb")],
        },
        [("optimizer=yogi batch_scaling=sqrt", "Yogi")],
        OF_OPTIMIZERS,
    ),
    "experiment": Recipe(
        "Add an experiment",
        {
            "conf/experiment/long_warmup.yaml": (
                "# @package _global_\n"
                "# A warmup over half of the run. Sweep: +sweep=long_warmup.\n"
                "defaults:\n  - override /warmup: linear\n  - override /schedule: cosine\n\n"
                "warmup: {length: 50%}\n"
            ),
            "conf/sweep/long_warmup.yaml": (
                "# @package _global_\n# Half of the run, and a tenth. Experiment: +experiment=long_warmup.\n"
                "hydra:\n  sweeper:\n    params:\n      warmup.length: 50%,10%\n"
            ),
            "evidence/long_warmup.py": EXPERIMENT,
        },
        {"evidence/__main__.py": [('    "one_cycle", ', '    "one_cycle", "long_warmup", ')]},
        [("+experiment=long_warmup", "warmup    linear")],
        ["tests/test_yaml_comments.py", "tests/test_compose.py"],
    ),
    "guard policy": Recipe(
        "Add a guard policy",
        {
            "conf/guard/ignore.yaml": (
                "# Divergence guard: leave out a bad step, and never end the run.\n"
                "_target_: lrkit.planning.guard.Guard\n"
                "policy: ignore  # name of the policy; choose another one by guard=off, stop, skip or reduce\n"
            )
        },
        {
            "lrkit/planning/guard_policies.py": [
                (
                    "class Reduce(Policy):",
                    'class Ignore(Policy):\n    """Leave out each bad step, for as long as it takes."""\n\n'
                    "    def describe_action(self, gain: float | None) -> str:\n"
                    '        return "ignored"\n\n'
                    "    def decide(self, guard: Guard, why: str, in_a_row: int, reductions: int) -> Action:\n"
                    "        return Action(why)\n\n\nclass Reduce(Policy):",
                )
            ],
            "tests/planning/test_guard.py": [
                ("DECISIONS = {\n", 'DECISIONS = {\n    "ignore": (Action("nan"), Action("nan")),\n')
            ],
        },
        [("guard=ignore", "lr 0.1")],
        ["tests/planning/test_guard.py", "tests/test_yaml_comments.py", "tests/test_site.py"],
    ),
    "logger": Recipe(
        "Add a logger",
        {
            "conf/logger/table.yaml": (
                "# One CSV file by Lightning's own logger, beside the others.\n"
                "table:            # name of the logger; any name works\n"
                "  _target_: pytorch_lightning.loggers.CSVLogger\n"
                "  save_dir: auto  # folder; auto: the run's folder\n"
            )
        },
        {},
        [("logger=table", "lr 0.1")],
        ["tests/test_yaml_comments.py", "tests/test_site.py"],
    ),
}


def places(section: str) -> list[str]:
    """The paths that the numbered list of a section names first, as patterns."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    text = page.split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    items = re.findall(r"^\d\. (.*(?:\n   .*)*)", text, re.M)
    named = [re.findall(r"`((?:lrkit|conf|tests|evidence)/[^`]+|README(?:\.zh)?\.md)`", item) for item in items]
    paths = [path for paths in named for path in (paths if " or `conf" in text or "README" in paths[0] else paths[:1])]
    return [re.sub(r"<[^>]+>", "[a-z_]+", re.escape(path).replace(r"\<", "<").replace(r"\>", ">")) for path in paths]


@pytest.mark.parametrize("thing", RECIPES)
def test_the_page_names_the_places(thing: str) -> None:
    recipe = RECIPES[thing]
    listed = places(recipe.section)
    used = [*recipe.new, *recipe.changed]
    assert listed and all(any(re.fullmatch(pattern, path) for pattern in listed) for path in used)
    # Left out: the row of an optimizer that is known already, and the other slot of a warmup or a cooldown.
    spared = {"optimizer": 1, "warmup": 1, "cooldown": 1}.get(thing, 0)
    assert sum(not any(re.fullmatch(pattern, path) for path in used) for pattern in listed) == spared


@pytest.mark.slow
@pytest.mark.parametrize("thing", RECIPES)
def test_it_is_added_by_its_recipe_alone(thing: str, tmp_path: Path) -> None:
    recipe, copy = RECIPES[thing], tmp_path / "copy"
    skipped = shutil.ignore_patterns("__pycache__", "_build", "generated", "*.pyc")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=skipped)
        else:
            shutil.copy(ROOT / part, copy / part)
    for path, text in recipe.new.items():
        assert not (copy / path).exists()
        (copy / path).write_text(text)
    for path, edits in recipe.changed.items():
        text = (copy / path).read_text()
        for old, new in edits:
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        (copy / path).write_text(text)

    def run(*words: str, code: int = 0) -> str:
        env = {**environment(), "PYTHONPATH": f"{copy}:{copy}/tests/helpers"}
        done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == code, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    assert run("-c", "import lrkit; print(lrkit.__file__)").startswith(str(copy))
    for words, text in recipe.shows:
        assert text in run("-m", "lrkit", "show", *words.split())
    if thing == "schedule":
        assert run("-c", "import lrkit; print(lrkit.curve('quarter', steps=8)(6))").strip() == "0.25"
    if thing == "experiment":
        assert "long_warmup" in run("-m", "evidence", "--help")
        assert run("-c", "from evidence.__main__ import claim; print(claim('long_warmup').title)") == "A long warmup\n"
    if thing == "logger":
        own = "+logger.own={_target_: recorded_logger.Recorded, path: seen.txt}"
        (copy / "recorded_logger.py").write_text(LOGGER)
        run("-m", "lrkit", "train", "logger=table", own, "trainer.max_epochs=2", "hydra.run.dir=run")
        seen = (copy / "seen.txt").read_text()
        assert "lr/default" in seen and "val/loss" in seen and "optimizer.lr" in seen
        assert next((copy / "run").rglob("metrics.csv")).is_file()
    if thing == "guard policy":
        diverging = ["optimizer=sgd", "optimizer.lr=1e30", "allow_extreme_lr=true", "trainer.max_epochs=1"]
        run("-m", "lrkit", "train", "guard=ignore", *diverging, "logger=none", "hydra.run.dir=run", code=DIVERGED)
        events = json.loads((copy / "run" / "events.json").read_text())
        assert {event["event"] for event in events} == {"ignore"} and "nan" in events[0]["why"]
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *recipe.tests)


#: A logger of a third party: it has nothing of lrkit's, and of Lightning only the base class.
LOGGER = """
from pytorch_lightning.loggers.logger import Logger


class Recorded(Logger):
    def __init__(self, path):
        super().__init__()
        self.path = path

    name, version = "recorded", "0"

    def _write(self, line):
        with open(self.path, "a") as file:
            print(line, file=file)

    def log_metrics(self, metrics, step=None):
        self._write(f"{step} {metrics}")

    def log_hyperparams(self, params, *args, **kwargs):
        self._write(params)
"""
