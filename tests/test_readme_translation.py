"""README.zh.md is README.md in Chinese: the same structure, commands, code, numbers, pictures and links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from lrkit.config.compose import CONF_DIR

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
PRESETS = {"experiment", "launcher", "sweep"}  # no groups of the table
OPTIONS = {path.stem for path in CONF_DIR.glob("*/*.yaml") if path.parent.name not in PRESETS}
HERE = "https://github.com/lrkit/lrkit/blob/main/"


def sections(text: str) -> list[str]:
    """The text of each section, with its heading."""
    return re.split(r"^(?=#+ )", re.sub(r"^```.*?^```$", _without_hashes, text, flags=re.M | re.S), flags=re.M)


def _without_hashes(block: re.Match[str]) -> str:
    return re.sub(r"^#", " #", block[0], flags=re.M)


def blocks(text: str) -> list[str]:
    """The fenced and the indented blocks, without what stands behind ``  #``, which is translated."""
    found = re.findall(r"^```.*?^```$|(?:^ {4}\S[^\n]*\n)+", text, flags=re.M | re.S)
    return [re.sub(r" +# .*$", "", block, flags=re.M) if block.startswith(("```shell", "```python")) else block
            for block in found]  # fmt: skip


def prose(text: str) -> str:
    """What is not in a block, without the addresses of links."""
    text = re.sub(r"^```.*?^```$|^\[\w+\]: .*$", "", text, flags=re.M | re.S)
    return re.sub(r"\]\([^)]*\)", "]", text)


def words_of_code(section: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", prose(section)))


def numbers(section: str) -> Counter[str]:
    plain = re.sub(r"`[^`]+`", "", prose(section))
    return Counter(re.findall(r"(?<![\w.])\d+(?:\.\d+)*", plain))


def test_each_names_the_other_at_its_top() -> None:
    assert f"]({HERE}README.zh.md)" in ENGLISH.splitlines()[2]
    assert f"]({HERE}README.md)" in CHINESE.splitlines()[2]


def test_the_headings_have_the_same_levels() -> None:
    levels = [[section.split()[0] for section in sections(text) if section] for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1] and len(levels[0]) > 8


@pytest.mark.parametrize("i", range(len(sections(ENGLISH))))
def test_each_section_has_the_same_content(i: int) -> None:
    ours, theirs = sections(ENGLISH)[i], sections(CHINESE)[i]
    assert blocks(ours) == blocks(theirs)
    assert words_of_code(ours) == words_of_code(theirs)
    assert numbers(ours) == numbers(theirs)
    for pattern in (r"!\[[^\]]*\]\(([^)]+)\)", r"\]\[(\w+)\]", r"^\[(\w+\]: .*)$"):
        assert re.findall(pattern, ours, flags=re.M) == re.findall(pattern, theirs, flags=re.M), pattern
    paragraphs = [len(re.findall(r"\n\n(?=[^\s`])", prose(section))) for section in (ours, theirs)]
    assert paragraphs[0] == paragraphs[1]


def test_the_tables_have_the_same_rows() -> None:
    """Of each cell the code and the numbers are compared; of the last cell also the names of options."""
    tables = [[line.strip("|").split(" | ") for line in text.splitlines() if line[:2] in ("| ", "|-")]
              for text in (ENGLISH, CHINESE)]  # fmt: skip
    assert [len(row) for row in tables[0]] == [len(row) for row in tables[1]]
    for ours, theirs in zip(*tables, strict=True):
        for cell, translated in zip(ours, theirs, strict=True):
            for pattern in (r"`[^`]+`", r"\d+\.\d+", r"[a-z0-9]+_[a-z0-9_]+"):
                assert re.findall(pattern, cell) == re.findall(pattern, translated), cell
        # The names of options come first in a cell, before the words of a language.
        named = [re.match(r"[\w ,;]*", row[-1], flags=re.ASCII) for row in (ours, theirs)]
        runs = [[word for word in re.split(r"[ ,;]+", run[0] if run else "") if word in OPTIONS] for run in named]
        assert len(ours) < 3 or runs[0] == runs[1]
