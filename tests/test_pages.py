"""The pages are true where they name files, and where they list what lrkit accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrkit.base.lightning_package import LIGHTNING
from lrkit.config import named_datasets, trusted_targets

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
SECURITY = (ROOT / "docs" / "security.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"`((?:lrkit|tests|conf|benchmarks|evidence|docs)/[\w./]+)`", text))
    if page.name == "architecture.md":
        named |= {f"lrkit/{path}" for path in re.findall(r"`([a-z_]+(?:/[a-z_]+)?\.py)", text)}
    for path in named:
        # A file that lies in a folder of tests, by its name alone; else by its path.
        assert (ROOT / path).exists() or (ROOT / path.removeprefix("lrkit/")).exists(), path
    for test in re.findall(r"`(test_\w+)`", text):
        assert any((ROOT / "tests").rglob(f"{test}.py")), test


def test_each_link_between_pages_leads_to_a_file() -> None:
    for page in PAGES:
        # `make docs` writes the pages in docs/generated/, and fails at a link that leads nowhere.
        for target in re.findall(r"\]\(((?!https?:|generated/)[^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def blocks(page: str) -> list[set[str]]:
    """The words of each indented block."""
    return [set(block.split()) for block in re.findall(r"(?:^ {4}.*\n)+", page, flags=re.M)]


def test_the_page_on_security_lists_what_is_accepted() -> None:
    main, *others = LIGHTNING
    names = {name for name in trusted_targets.NAMES if not name.startswith(tuple(others))}
    assert names in blocks(SECURITY) and all(f"`{other}`" in SECURITY for other in others)
    assert any(name.startswith(main) for name in names)
    assert set(named_datasets.TORCHVISION) in blocks(SECURITY)
    assert f"`{' '.join(named_datasets.FORMATS)}`" in SECURITY


def test_the_table_of_packages_has_the_order_of_imports() -> None:
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    tested = (ROOT / "tests" / "test_imports.py").read_text().partition("ORDER = (")[2].partition(")")[0]
    assert rows == [name for name in re.findall(r'"(\w+)"', tested) if not name.startswith("__")]
