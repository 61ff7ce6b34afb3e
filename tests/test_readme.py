"""The README is true: its commands run as shown, its tables name all options, its figures are the measured ones.

Numbers of trainings depend on the machine, so each has a tolerance, which stands where it is compared.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from documented_commands import Command, File, check_overrides, is_shown_output, readme_steps

from evidence.__main__ import CLAIMS
from lrkit.cli.main import main
from lrkit.config.compose import CONF_DIR, check, compose
from lrkit.config.sweep_values import expand_jobs
from lrkit.sweep.sweep import apply_preset

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEPS = readme_steps(README)
COMMANDS = [step for step in STEPS if isinstance(step, Command)]
FILES = [step for step in STEPS if isinstance(step, File)]
LRKIT = [step for step in COMMANDS if step.line.startswith("lrkit ")]
#: Commands in the text and in the tables, without those that have a placeholder.
INLINE = [line for line in re.findall(r"`(lrkit \w+ [^`]+)`", README) if not re.search(r"[A-Z]{3,}", line)]
#: What is executed by no test here: installing, and the demo, which the CI runs.
INSTALLS = ("git clone", "python3 -m venv", "pip install")
SWEEP = next(step.line for step in LRKIT if " -m " in step.line)

#: Options whose extra has another name.
EXTRAS = {"torchvision": "vision", "huggingface": "hf"}


def rows(text: str = README) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that the README has the reader save."""
    for file in FILES:
        (tmp_path / file.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.name).write_text(file.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_run_or_installs() -> None:
    assert {file.name for file in FILES} == {"mine/experiment/night.yaml", "mycode.py"}
    assert all(step.line.startswith(("lrkit ", *INSTALLS)) for step in COMMANDS)
    assert len(LRKIT) > 8


def test_the_plan_of_each_command_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`lrkit show` takes the same words, so what `train` and `find` would refuse early is refused here."""
    for step in LRKIT:
        left_out = ("hydra.", "resume.", "optimizer.lr=auto")
        words = [word for word in shlex.split(step.line)[2:] if not word.startswith(left_out)]
        if step.line != SWEEP and shlex.split(step.line)[1] in ("show", "train", "find"):
            assert main(["show", *words]) == (2 if "schedule=cosin" in words else 0), step.line
            assert not step.output or is_shown_output(
                step.output, "".join(capsys.readouterr()).splitlines(), exact=True
            )


def test_each_sweep_has_as_many_jobs_as_said() -> None:
    sweeps = [shlex.split(line)[3:] for line in (SWEEP, *(line for line in INLINE if " -m " in line))]
    jobs = [expand_jobs(apply_preset([word for word in words if "hydra" not in word], None)) for words in sweeps]
    said = [int(number) for number in re.findall(r"\b(\d+) jobs", README)]
    assert [len(each) for each in jobs] == said[:2]
    for each in jobs:
        check(compose(each[0]))


def test_help_explains_what_the_table_of_commands_names(capsys: pytest.CaptureFixture[str]) -> None:
    named = [line for line in INLINE if line.startswith(("lrkit help ", "lrkit translate ", "lrkit completion "))]
    assert len(named) == 3 and all(main(shlex.split(line)[1:]) == 0 for line in named)
    commands = [row[0].split()[1].strip("`") for row in rows() if row[0][:7] == "`lrkit " and len(row) == 2]
    assert main([]) == 0
    listed = re.findall(r"^  lrkit ([a-z]+)  ", capsys.readouterr().out, flags=re.M)
    assert {*commands} == {*listed}


def test_each_word_of_the_table_is_accepted() -> None:
    """All of them together, for each works with every other."""
    typed = [word for row in rows() if len(row) == 3 for word in re.findall(r"`([^`]+=[^`]+)`", row[1])]
    assert len(typed) > 12
    check_overrides(f"lrkit show {' '.join(dict.fromkeys(' '.join(typed).split()))}")


@pytest.mark.parametrize(
    "group",
    ["optimizer", "warmup", "cooldown", "plateau", "guard", "batch_scaling", "param_groups", "weight_decay_rule",
     "callbacks", "logger", "data", "model"],
)  # fmt: skip
def test_the_table_names_every_option(group: str) -> None:
    for option in (path.stem for path in (CONF_DIR / group).glob("*.yaml")):
        named = [row for row in rows() if re.search(rf"(?<!\w){option}(?!\w)", row[-1])]
        assert named or (group, option) == ("optimizer", "custom"), f"{group}={option}"


def test_what_a_command_needs_is_installed_by_a_line_above_it() -> None:
    """The first install line serves the whole page; a further extra stands in the block of its command."""
    optional = PROJECT["optional-dependencies"]
    lines = [step.line for step in COMMANDS if step.line.startswith("pip install")]
    installed = [set(re.search(r"\.\[([\w,]+)\]", line)[1].split(",")) for line in lines]  # type: ignore[index]
    assert all(extras <= set(optional) for extras in installed)
    assert all("-c constraints.txt" in line for line in lines)
    for block in re.findall(r"^```shell\n(.*?)^```$", README, flags=re.M | re.S):
        words = set(re.findall(r"(?<==)\w+", block))
        needed = {EXTRAS.get(word, word) for word in words} & set(optional) - installed[0]
        assert all(f".[{extra}]" in block for extra in needed), block
    for option in ("wandb", "mlflow"):
        assert f"`{option}`" in README and option in optional


def test_every_link_and_picture_is_there_also_outside_the_repository() -> None:
    """PyPI and an installed wheel show the README where no file lies beside it, so each address is a whole one."""
    repository = PROJECT["urls"]["Repository"]
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    named = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, flags=re.M))
    used = set(re.findall(r"\]\[([^\]]+)\]", README))
    assert used == set(named)
    links = [*re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)\)", README), *named.values()]
    assert pictures and links
    for picture in pictures:
        assert picture.startswith(f"{raw}/main/"), picture
    for link in links:
        assert link.startswith("https://"), link
    for url in [*pictures, *links]:
        if "/lrkit/" in url:
            path, _, anchor = url.removeprefix(f"{raw}/main/").removeprefix(f"{repository}/blob/main/").partition("#")
            assert (ROOT / path).is_file(), url
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), flags=re.M) if anchor else []
            assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], url


def test_the_first_screen_is_a_sentence_a_command_and_a_picture() -> None:
    first = README.partition("\n## ")[0]
    assert len(re.findall(r"^```shell\n[^\n]+\n```$", first, flags=re.M)) == 1 and first.count("```") == 2
    assert first.count("![") == 1 and len(first.splitlines()) < 20
    assert len(README.splitlines()) < 240  # what is reference belongs into docs/


# The figures, against the files of the measurements: equal, not merely close.


def measured(file: str) -> dict[tuple[str, str], str]:
    """(what, against) -> the median ratio, of a table of ``make bench``."""
    table = rows((ROOT / "benchmarks" / file).read_text())
    return {(row[0], row[1]): row[2].split()[0] for row in table}


#: A row of the README's table of costs -> the rows of bench.md behind each of its figures.
COSTS: Mapping[str, list[tuple[str, str]]] = {
    "a step of the schedule": [
        *((f"schedule, {groups}", "SequentialLR") for groups in ("1 group", "10 groups", "100 groups", "1000 groups"))
    ],
    "a training step of a small network": [
        ("training step: lrkit, the same loader", "Lightning with its logging"),
        ("training step: lrkit, the same loader", "Lightning"),
    ],
    "`lrkit --help`": [("lrkit --help", "import torch"), ("lrkit show", "import torch")],
    "a sweep of 12 jobs": [
        ("a sweep of 12 jobs, two at a time", "Hydra's basic launcher"),
        ("a sweep of 12 jobs, two stacks", "Hydra's basic launcher"),
    ],
    "`lrkit train` to its first step": [
        ("lrkit train, to the first step", "plain Lightning"),
        ("memory of a run, at its peak", "plain Lightning with its logging"),
        ("collectives that lrkit adds to a step", "plain Lightning"),
    ],
}


def test_the_costs_are_those_of_the_last_measurement() -> None:
    bench = measured("bench.md")
    shown = {row[0]: row[2] for row in rows() if len(row) == 3 and re.fullmatch(r"[\d./ ]+", row[2])}
    shown = {what: figures for what, figures in shown.items() if not what.startswith("the loss that")}
    race = shown.pop(next(row for row in shown if row.startswith("the steps of a race")))
    (mean,) = [row for row in rows((ROOT / "benchmarks" / "racing.md").read_text()) if row[0] == "mean"]
    assert f"{float(race):.0%}" in [cell.replace(" ", "") for cell in mean]
    assert len(shown) == len(COSTS)
    for what, behind in COSTS.items():
        (figures,) = [figures for row, figures in shown.items() if row.startswith(what)]
        assert figures == " / ".join(bench[key] for key in behind), what


#: A row of that table -> the section of docs/evidence.md, and its columns with and without the command.
PREDICTED: Mapping[str, tuple[str, str, str]] = {
    "the loss that a translated rate costs (median of {cells} pairs; its 90 % intervals cover {covered} %)": (
        "A rate for another schedule and length", "nats lost, translated", "nats lost, as it is",
    ),
    "the loss that the schedule predicted best costs (mean; 90 % intervals cover {covered} % of {cells})": (
        "The loss of a schedule that was not trained", "pick loses, %", "without, %",
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", PREDICTED)
def test_the_figures_of_translate_and_predict_are_those_of_the_evidence(text: str) -> None:
    title, with_it, without_it = PREDICTED[text]
    (section,) = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", EVIDENCE, flags=re.M | re.S)
    head, *table = rows(section)
    (every,) = [dict(zip(head, row, strict=True)) for row in table if row[:2] == ["all", "any"]]
    covered = every["covered, %"]
    (ratio,) = [row[2] for row in rows() if row[0] == text.format(cells=every["cells"], covered=covered)]
    assert ratio == f"{float(every[with_it]) / float(every[without_it]):.2f}"
    assert 85 <= int(covered) <= 95


def test_the_figures_of_the_search_are_those_of_the_last_measurement() -> None:
    first = (ROOT / "benchmarks" / "find.md").read_text().partition("\n\n")[0]
    table = {row[0]: row[1:] for row in rows(first)[1:]}
    median, mean, worst = table["lrkit find (58 cells)"][:3]
    assert f"costs {median} points" in README and f"mean {mean}, worst {worst}" in README.replace("\n", " ")
    for method, name in (("torch-lr-finder",) * 2, ("Lightning",) * 2, ("fastai valley", "fastai")):
        assert f"{table[method][0]} ({name})" in README
    page = (ROOT / "docs" / "find.md").read_text()
    for figures in table.values():
        assert all(figure in page for figure in (*figures[:4], " ".join(figures[6].split()[:2]))), figures


def test_the_evidence_has_as_many_claims_as_said() -> None:
    assert len(CLAIMS) == 14 and "tests fourteen claims" in README


# The slow half: every command, in an empty folder, in the order of the page.


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}


def execute(line: str, folder: Path, expected: int = 0) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(), text=True, timeout=3000,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == expected, f"{line}\n{done.stdout}"
    return done.stdout.rstrip("\n").split("\n")


@pytest.mark.slow
def test_each_command_runs_and_prints_what_is_shown(here: Path) -> None:
    """All but the sweep. A suggested learning rate is that of the page within a factor of 2: another machine rounds
    otherwise, and the search itself gives an interval of this width."""
    for step in STEPS:
        if isinstance(step, File) or (isinstance(step, Command) and (step not in LRKIT or step.line == SWEEP)):
            continue
        if not isinstance(step, Command):
            (here / "script.py").write_text(step.text)
            execute(f"{shlex.quote(sys.executable)} script.py", here)
            continue
        printed = execute(step.line, here, expected=2 if "schedule=cosin" in step.line else 0)
        assert not step.output or is_shown_output(step.output, printed, exact=True), (step, printed)
        if step.line == "lrkit find optimizer=adamw":
            (shown,) = re.findall(r"optimizer\.lr=([\d.]+\d)$", README, flags=re.M)
            found = float(printed[-1].removeprefix("optimizer.lr="))
            assert 0.5 < found / float(shown) < 2


def ranking(lines: Iterator[str] | list[str]) -> dict[str, list[tuple[float, float]]]:
    """Schedule -> mean and half width of each metric, of the first printed table with the schedule."""
    found = {}
    for line in lines:
        if name := re.match(r"\d+ +(?:best|=)? +(\w+) ", line):
            pairs = re.findall(r"([\d.]+) ± ([\d.]+)", line)
            found.setdefault(name[1], [(float(mean), float(half)) for mean, half in pairs])
    return found


@pytest.mark.slow
def test_the_sweep_gives_the_table(here: Path) -> None:
    """Each mean is that of the page within the sum of both intervals; the best schedule is the same."""
    pytest.importorskip("mnist1d")
    shown = ranking(README.splitlines())
    received = ranking(execute(SWEEP, here))
    assert set(shown) == {"wsd", "cosine", "step", "constant"} == set(received)
    assert next(iter(shown)) == next(iter(received))
    for schedule, pairs in shown.items():
        for (mean, half), (mean_here, half_here) in zip(pairs, received[schedule], strict=True):
            assert abs(mean - mean_here) <= half + half_here, schedule
    with open(here / "sweep" / "results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == check_overrides(SWEEP)
    again = next(line for line in INLINE if line.startswith("lrkit compare"))
    assert set(ranking(execute(again, here))) == set(shown)


def test_the_schedules_of_the_picture_are_options() -> None:
    command = re.search(r"^OVERVIEW = (\S+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert command and command[1].count(",") == 7
    for schedule in command[1].split(","):
        assert (CONF_DIR / "schedule" / f"{schedule}.yaml").is_file()
