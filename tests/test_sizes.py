"""A function fits on a screen, and a file holds one concept."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LRKIT = Path(__file__).parents[1] / "lrkit"
FILES = sorted(path.relative_to(LRKIT).as_posix() for path in LRKIT.rglob("*.py"))
MOST_LINES = 400
FUNCTION_LINES = 50


def long_functions(source: str) -> Iterator[str]:
    """Functions whose body, without the docstring, has 50 lines or more."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - (len(said.splitlines()) if said else 0)
            if lines >= FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


@pytest.mark.parametrize("name", FILES)
def test_it_is_short(name: str) -> None:
    source = (LRKIT / name).read_text()
    assert list(long_functions(source)) == []
    assert len(source.splitlines()) <= MOST_LINES


def test_a_long_function_is_seen() -> None:
    body = "\n".join(f"    x = {i}" for i in range(50))
    assert list(long_functions(f"def f():\n{body}\n")) == ["f has 51 lines"]
    assert list(long_functions('def f():\n    """' + "\n" * 60 + '    """\n    return 1\n')) == []
