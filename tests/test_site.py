"""The site: what it reads from the code is complete, and a broken link, reference or toctree fails `make docs`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrkit
from lrkit.base import exit_codes
from lrkit.config.compose import CONF_DIR
from lrkit.config.shipped_options import SHARED

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    monkeypatch.syspath_prepend(str(DOCS.parent / "tests" / "promises"))


def test_a_schedule_that_is_added_is_in_the_gallery(tmp_path: Path) -> None:
    from generated_pages import gallery_pages

    shutil.copytree(CONF_DIR / "schedule", tmp_path / "schedule")
    (tmp_path / "schedule" / "gentle.yaml").write_text("# Added.\n_target_: lrkit.schedules.Polynomial\npower: 3.0\n")
    pages = gallery_pages(tmp_path)
    names = {path.stem for path in (CONF_DIR / "schedule").glob("*.yaml")} - {"custom"}
    assert set(pages) == {"schedules.md", *(f"schedules/{name}.md" for name in {*names, "gentle"})}
    page = pages["schedules/gentle.md"]
    for part in ("(1 - u ** k) ** power", "power: 3.0", "lrkit show schedule=gentle", "gentle.svg"):
        assert part in page
    assert all(f"schedules/{name}" in pages["schedules.md"] for name in names)


def test_each_schedule_shows_its_formula() -> None:
    from generated_pages import gallery_pages

    for name, page in gallery_pages().items():
        before = page.partition("## In YAML")[0]
        assert name in ("schedules.md", "schedules/plateau.md") or re.search(
            r"^```\n[^`]*\b(m|start)\b", before, re.M
        ), name


def test_the_reference_names_every_option_exit_code_and_public_name() -> None:
    from generated_pages import api_page, exit_codes_page, options_page

    (options,), (codes,), (api,) = options_page().values(), exit_codes_page().values(), api_page().values()
    for file in CONF_DIR.glob("*/*.yaml"):
        title = rf"every {file.stem}" if file.parent.name == SHARED else rf"\+?{file.parent.name}={file.stem}"
        assert re.search(rf"^### {title}$", options, re.M), file
    for value in vars(exit_codes).values():
        assert not isinstance(value, int) or f"| {value} |" in codes
    for name in [*lrkit.__all__, *(f"schedules.{each}" for each in lrkit.schedules.__all__)]:
        assert re.search(rf":: lrkit\.{name}$", api, re.M), name


def test_the_page_of_other_libraries_shows_each_row_that_is_compared() -> None:
    from parity.peers import PEERS
    from peers_page import peers_page

    (page,) = peers_page().values()
    for peer in PEERS:
        assert f"\n## {peer.name}\n" in page
        for row in peer.rows:
            assert f"`{row.call}`" in page
            assert row.lrkit in page


def test_formulas_stay_as_they_are_written() -> None:
    from docstrings import with_literal_formulas

    lines = ["A line.", "", "    m = a * b ** c", "", "Args:", "    a: first.", "", "    Of two paragraphs."]
    assert with_literal_formulas(lines) == [*lines[:2], "::", "", *lines[2:]]


def test_the_files_that_the_architecture_names_exist() -> None:
    page = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)", page)) - {"__init__.py"}
    assert len(named) > 30
    for file in named:
        assert (DOCS.parent / "lrkit" / file).is_file() or (DOCS.parent / file).is_file(), file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("Fine: [to](index.md).", None),
        ("[to](nowhere.md)", "nowhere"),
        ("[to](index.md#nowhere)", "nowhere"),
        ("{py:func}`lrkit.nowhere`", "nowhere"),
        ("In no toctree.", "toctree"),
    ],
)
def test_what_is_broken_fails(page: str, said: str | None, tmp_path: Path) -> None:
    """By the flags of the Makefile and the settings of docs/conf.py, on a site of two pages."""
    pytest.importorskip("sphinx")
    (flags,) = re.findall(r"^SPHINX = \S+ -m sphinx (.*)$", (DOCS.parent / "Makefile").read_text(), re.M)
    toctree = "" if said == "toctree" else "\n```{toctree}\npage\n```\n"
    (tmp_path / "index.md").write_text(f"# Site\n{toctree}")
    (tmp_path / "page.md").write_text(f"# Page\n\n{page}\n")
    settings = ["-c", str(DOCS), "-D", "extensions=myst_parser", "-D", "html_static_path="]
    argv = [sys.executable, "-m", "sphinx", *flags.split(), *settings, str(tmp_path), str(tmp_path / "built")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode == 0) == (said is None), done.stderr
    assert said is None or said in done.stderr
