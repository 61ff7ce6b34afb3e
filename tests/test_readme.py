"""The README is true: lrkit accepts its commands, and its tables name all options."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from documented_commands import check_overrides, is_shown_output, shown_commands

from lrkit.config.compose import CONF_DIR

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip().removeprefix("$ ")
    for line in README.splitlines()
    if re.match(r" {4}(\$ )?lrkit (train|show|find)", line) and "..." not in line and "resume.path" not in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_accepted(command: str) -> None:
    if "schedule=cosin " in f"{command} " or "model=custom" in command:
        return  # an error that is shown, and a class of the reader's own
    check_overrides(command)


@pytest.mark.parametrize(
    "group", ["optimizer", "warmup", "cooldown", "plateau", "batch_scaling", "param_groups", "data", "model"]
)
def test_the_table_names_every_option(group: str) -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    for option in (path.stem for path in (CONF_DIR / group).glob("*.yaml")):
        assert any(re.search(rf"(?<!\w){option}(?!\w)", row.rpartition("| ")[2]) for row in rows), f"{group}={option}"


def test_every_link_and_picture_is_there_also_outside_the_repository() -> None:
    """PyPI and an installed wheel show the README where no file lies beside it, so each address is a whole one."""
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
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
            file = url.removeprefix(f"{raw}/main/").removeprefix(f"{repository}/blob/main/")
            assert (ROOT / file).is_file(), url


def test_the_shown_page_is_what_show_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from lrkit.cli.main import main

    command = next(c for c in COMMANDS if "horizon.steps=100" in c)
    assert main(shlex.split(command)[1:]) == 0
    (shown,) = [each for each in shown_commands(README.replace("\n    ", "\n")) if each.line == command]
    output = list(itertools.takewhile(bool, shown.output))
    printed = capsys.readouterr().out.splitlines()
    assert len(output) > 4 and is_shown_output([*output, "..."], printed, exact=True)
