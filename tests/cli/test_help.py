"""`lrkit help` and `--help`: each name has a page that fits the terminal, and a wrong name gets the nearest ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lrkit.cli import help as pages
from lrkit.cli.commands import COMMANDS
from lrkit.cli.main import main
from lrkit.config.documented_options import DocumentedOptions
from lrkit.config.overrides import default_choices
from lrkit.config.shipped_options import option_names

Said = Callable[..., str]
OPTIONS = DocumentedOptions()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command line that must end with ``code``, and return what it prints."""

    def run(*argv: str, code: int = 0) -> str:
        result = main(list(argv))
        out, err = capsys.readouterr()
        assert result == code, err
        return out + err

    return run


def lines_with(page: str, word: str) -> list[str]:
    return [line for line in page.splitlines() if line.split()[:1] == [word]]


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_page_with_usage_sentence_and_examples(name: str, said: Said) -> None:
    command = COMMANDS[name]
    page = said(name, "--help")
    assert page == said("help", name) == said(name, "-h")
    assert page.startswith(f"lrkit {name} {command.usage}\n  {command.sentence}\n")
    assert all(example in page and meaning in page for example, meaning in command.examples.items())
    assert 2 <= len(command.examples) <= 3
    assert callable(command.load())
    for flag, meaning in command.flags.items():
        assert re.search(rf"^  {re.escape(flag)} +{re.escape(meaning)}$", page, re.M)
    for key in command.keys:
        assert re.search(rf"^  {re.escape(key.usage)} +{re.escape(key.meaning)}$", page, re.M)


@pytest.mark.parametrize("name", ["train", "find", "show"])
def test_the_page_of_a_run_has_the_groups_first_and_marks_the_chosen_options(name: str, said: Said) -> None:
    page = said(name, "--help", "schedule=step", "+experiment=decay")
    assert page.splitlines()[3].startswith("Groups")
    for group, default in default_choices().items():
        (line,) = lines_with(page, group)
        assert [word.rstrip("*") for word in line.split()[1:]] == [*option_names(group)]
        assert [word for word in line.split() if word.endswith("*")] == [
            "step*" if group == "schedule" else f"{default}*"
        ]
    assert " decay* " in lines_with(page, "+experiment")[0]
    assert len(said(name, "--help").splitlines()) <= 60


def test_overrides_beside_help_are_checked(said: Said) -> None:
    assert said("show", "--help", "optimizer.lrr=1", code=2).startswith("lrkit: optimizer.lrr is not a key. ")
    assert said("train", "-m", "--help", "schedule=cosin,cosine", code=2).startswith("lrkit: schedule has no option")


def test_the_keys_of_find_are_on_its_page(said: Said) -> None:
    page = said("find", "--help")
    assert all(f"  {key.path}={key.default}" in page for key in OPTIONS.settings if key.path.startswith("find."))


# --- groups, options, keys ------------------------------------------------------------------------


@pytest.mark.parametrize("group", [group.name for group in OPTIONS.groups])
def test_the_page_of_a_group_has_each_option_and_its_comment(group: str, said: Said) -> None:
    page = said("help", group)
    for name in OPTIONS.names(group):
        (line,) = [line for line in page.splitlines() if line.split()[:1] in ([name], [f"{name}*"])]
        assert line.endswith(OPTIONS.comment(group, name))
    assert OPTIONS.group(group).comment in page  # type: ignore[union-attr]


@pytest.mark.parametrize("spelling", ["schedule.one_cycle", "schedule=one_cycle"])
def test_the_page_of_an_option_has_its_source_and_its_keys(spelling: str, said: Said) -> None:
    page = said("help", spelling)
    assert "(Smith and Topin 2018)" in page and "lrkit.schedules.OneCycle" in page
    assert lines_with(page, "schedule.up") == ["schedule.up              30%      duration of the rise, > 0"]
    assert lines_with(page, "schedule.scale")[0].endswith("factor of all multipliers, > 0")
    assert page.rstrip().splitlines()[-1].startswith("A duration is 500 (optimizer steps), 5% (of the run), 2ep")


def test_every_option_and_every_key_has_a_page(said: Said) -> None:
    comments = {key.path: key.comment for key in OPTIONS.settings if key.path not in COMMANDS}
    for group in OPTIONS.groups:
        for name in OPTIONS.names(group.name):
            option = OPTIONS.read(group.name, name)
            comments[f"{group.name}={name}"] = option.comment
            if not group.added:
                comments |= {key.path: key.comment for key in (*option.keys, *option.shared)}
    page = said("help", *comments)
    assert len(comments) > 400
    for path, comment in comments.items():
        assert comment in page and path in page


def test_the_page_of_a_key_has_the_meaning_and_default_of_each_option(said: Said) -> None:
    rows = said("help", "optimizer.lr").splitlines()
    assert rows[3].split()[:2] == ["momentum*", "0.1"] and "(He et al. 2016)" in rows[3]
    assert {row.split()[0].rstrip("*") for row in rows[3:]} == {*option_names("optimizer")}
    assert "  default: null\n" in said("help", "horizon.steps")
    assert "adamw" in said("help", "optimizer.adamw.lr") and "lion" not in said("help", "optimizer.adamw.lr")


def test_an_option_elsewhere_has_the_keys_of_that_place(said: Said) -> None:
    assert "coschedule.momentum.end" in said("help", "schedule@coschedule.momentum=cosine")
    assert "coschedule.momentum.end=VALUE" in said("help", "coschedule.momentum.end")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lr", "Did you mean 'optimizer.lr'?"), ("cosin", "'schedule.cosine'"),
     ("epochs", "Did you mean 'trainer.max_epochs'?"), ("optimizer.lrr", "Did you mean 'optimizer.lr'"),
     ("optimzer", "Did you mean 'optimizer', "), ("schedule.nope.end", "Did you mean 'schedule.end'?"),
     ("qqq", "lrkit help: the commands; lrkit train --help: the groups")],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest_ones_and_code_2(name: str, hint: str, said: Said) -> None:
    (line,) = said("help", name, code=2).splitlines()
    assert line.startswith(f"lrkit: lrkit help has no page {name!r}. ") and hint in line


# --- the user's own folder, and the terminal ------------------------------------------------------


def test_options_and_groups_of_the_users_own_folder_have_pages(said: Said) -> None:
    for name, text in {
        "schedule/mine.yaml": "# My schedule \u202e.\n_target_: lrkit.schedules.Linear\nend: 0.25  # my end, >= 0\n",
        "place/here.yaml": "# A group of my own.\nroom:  # where\n  number: 5  # of the room\n# above\nfloor: 2\n",
        "optimizer/momentum.yaml": "# Another default.\n_target_: torch.optim.SGD\nlr: 0.0625  # mine\n",
    }.items():
        (Path("own") / name).parent.mkdir(parents=True)
        (Path("own") / name).write_text(text)
    own = ("--config-dir", "own")
    assert "mine" in lines_with(said("help", "schedule", *own), "mine")[0]
    option = said("help", "schedule.mine", *own)
    assert "My schedule \\u202e." in option and "0.25     my end, >= 0" in option
    assert "Another default." in said("help", "optimizer", *own) and "0.0625   mine" in said(
        "help", "optimizer.lr", *own
    )
    group = said("help", "place.here", *own)
    assert lines_with(group, "place.room.number")[0].split() == ["place.room.number", "5", "of", "the", "room"]
    assert lines_with(group, "place.floor")[0].endswith("above")
    assert "+place " in said("train", "--help", *own)
    assert "schedule.mine" in said("help", "schedule.min", *own, code=2)


def test_a_file_that_would_execute_something_is_refused(said: Said) -> None:
    (Path("own") / "model").mkdir(parents=True)
    (Path("own") / "model" / "mine.yaml").write_text("# mine\na: !!python/object/apply:os.getcwd []\n")
    (line,) = said("help", "model.mine", "--config-dir=own", code=2).splitlines()
    assert "must be plain data" in line


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_pages_fit_the_terminal_and_break_between_words(
    width: int, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setattr(pages, "find_width", lambda: width)
    for words in (["help"], ["help", "schedule"], ["help", "schedule.one_cycle"], ["help", "optimizer.lr"]):
        page = said(*words)
        monkeypatch.setattr(pages, "find_width", lambda: None)
        whole = said(*words)
        monkeypatch.setattr(pages, "find_width", lambda: width)
        longest = max(len(line) for line in page.splitlines() if " " in line.strip())
        assert longest <= max(min(width, 120), 36)
        assert {*page.replace("\\", "").split()} == {*whole.split()}  # no word is broken
        assert "\x1b" not in page


def test_help_loads_neither_hydra_nor_torch() -> None:
    import subprocess

    code = """
import contextlib, io, sys
from lrkit.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    codes = [main(["help", "schedule.cosine"]), main(["train", "--help"]), main(["help", "optimizer.lr"])]
print(codes, [name for name in ("torch", "hydra", "omegaconf", "rich", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 0, 0] []\n"
