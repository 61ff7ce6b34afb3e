"""The allowed imports between packages. Read from the source, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import lrkit
import lrkit.data

LRKIT = Path(__file__).parents[1] / "lrkit"

#: The packages of lrkit, and its few modules beside them, from the bottom up: each imports those before it only.
ORDER = (
    "base",
    "schedules",
    "planning",
    "config",
    "optim",
    "lightning",
    "data",
    "models",
    "runs",
    "prediction",
    "callbacks",
    "checkpoint",
    "training_objects",
    "stacking",
    "lr_finder",
    "training",
    "comparison",
    "sweep",
    "cli",
    "api",
    "__init__",
    "__main__",
)
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"}
HYDRA = {"hydra", "omegaconf"}
NUMBERS = {"torch", "numpy"}
PICTURES = {"rich", "matplotlib"}
#: Package -> heavy packages that it may import; the packages left out here import none.
HEAVY = {
    "config": HYDRA,
    "optim": NUMBERS,
    "lightning": NUMBERS,
    "data": NUMBERS,
    "models": NUMBERS,
    "prediction": {"numpy"},
    "callbacks": NUMBERS,
    "checkpoint": NUMBERS | HYDRA,
    "training_objects": NUMBERS,
    "stacking": NUMBERS,
    "lr_finder": NUMBERS,
    "training": NUMBERS | HYDRA,
    "sweep": HYDRA,
}
#: Module -> heavy imports inside its functions: the command imports only the packages that it uses.
LAZILY = {
    "planning.render": {"rich"},
    "planning.picture": {"matplotlib"},
    "lr_finder.result": PICTURES,
    "api.caller_task": {"torch"},
    "api.mounted_config": {"torch", "omegaconf"},
    "base.line_chart": {"matplotlib"},
    "base.live_display": {"rich"},
    "base.terminal_width": {"rich"},
    "base.process_pool": {"torch"},
    "runs.event_records": {"numpy"},
    "comparison.figures": {"matplotlib"},
    "cli.environment_checks": {"torch"},
    "cli.hydra_call": HYDRA,
}
#: The ones that import their parts when they are asked for.
FRONT = {"cli", "api", "__main__"}


class Import(NamedTuple):
    """An import: of whom, and whether it waits until a function is called."""

    module: str
    lazy: bool


def imports(source: str) -> Iterator[Import]:
    """Return the imports of a file at run time, without those for type checkers."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module, "relative imports are not used"
                folder = LRKIT.parent / child.module.replace(".", "/")
                for alias in child.names:  # `from lrkit.planning import render` imports lrkit.planning.render
                    yield Import(f"{child.module}.{alias.name}" if folder.is_dir() else child.module, lazy)
            yield from walk(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return walk(ast.parse(source), False)


def package_of(module: str) -> str:
    """The package, or the single module, that a module of lrkit is in: ``curve`` is in ``schedules``."""
    return module.partition(".")[0]


def wrong(name: str, source: str) -> list[str]:
    """The imports of a module that its package does not allow."""
    package, found = package_of(name), []
    below = ORDER[: ORDER.index(package) + 1]
    for module, lazy in imports(source):
        top, _, inner = module.partition(".")
        if top == "lrkit":
            other = package_of(inner) or "__init__"
            if other not in below and not (package in FRONT and lazy):
                found.append(f"{name} imports lrkit.{inner}, and {other} is not below {package}")
        elif top in LIGHTNING:
            if name != "lightning.imports":
                found.append(f"{name} imports {top}")
        elif top in (HYDRA | NUMBERS | PICTURES) - HEAVY.get(package, set()) and not (
            lazy and top in LAZILY.get(name, ())
        ):
            found.append(f"{name} imports {top}")
    return found


FILES = {
    ".".join(path.relative_to(LRKIT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LRKIT.rglob("*.py"))
}


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downwards(name: str) -> None:
    assert package_of(name) in ORDER, f"lrkit/{package_of(name)} has no place in ORDER"
    assert wrong(name, FILES[name].read_text()) == []


def test_every_package_says_what_it_is_in_a_sentence() -> None:
    for folder in (path for path in LRKIT.iterdir() if path.is_dir() and path.name != "__pycache__"):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert text.endswith(".") and "\n" not in text, folder.name


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that wait for each other, if there are any."""
    left = {name: set(needs) for name, needs in graph.items()}
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    return sorted(left)


def test_no_module_waits_for_itself() -> None:
    graph = {
        name: {
            module.removeprefix("lrkit.")
            for module, lazy in imports(path.read_text())
            if module.startswith("lrkit.") and not lazy
        }
        for name, path in FILES.items()
    }
    assert circle(graph) == []


@pytest.mark.parametrize(
    "module",
    [
        "lrkit",
        "lrkit.cli.main",
        "lrkit.config.compose",
        "lrkit.planning.render",
        "lrkit.api",
        "lrkit.comparison.report",
    ],
)
def test_importing_it_does_not_import_torch(module: str) -> None:
    heavy = sorted(NUMBERS | PICTURES | LIGHTNING)
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "table"),
    [
        ("__init__", lrkit._HOMES),
        ("data", {name: f"lrkit.data.{module}" for name, module in lrkit.data._MODULES.items()}),
    ],
)
def test_names_that_are_imported_at_their_first_use_are_those_for_type_checkers(
    package: str, table: dict[str, str]
) -> None:
    """Both lists are needed: Python reads the table, and a type checker only the imports."""
    block = next(node for node in ast.parse(FILES[package].read_text()).body if isinstance(node, ast.If))
    named = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert named == table


# --- the guard itself -----------------------------------------------------------------------------


CURVE, RENDER, SCHEDULER, RUN, MAIN = (
    "schedules.curve",
    "planning.render",
    "optim.scheduler",
    "training.run",
    "cli.main",
)


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        (CURVE, "import torch.nn", ["imports torch"]),
        (CURVE, "def f():\n    import torch", ["imports torch"]),
        (CURVE, "class A:\n    def f(self):\n        from omegaconf import OmegaConf", ["imports omegaconf"]),
        (
            CURVE,
            "from lrkit.config import compose",
            ["imports lrkit.config.compose, and config is not below schedules"],
        ),
        (CURVE, "import lrkit.optim.lamb", ["imports lrkit.optim.lamb, and optim is not below schedules"]),
        (CURVE, "from lrkit import Plateau", ["imports lrkit.Plateau, and Plateau is not below schedules"]),
        (CURVE, "from lrkit import models", ["imports lrkit.models, and models is not below schedules"]),
        (CURVE, "if TYPE_CHECKING:\n    import torch", []),
        (CURVE, "from lrkit.schedules.horizon import Horizon", []),
        (RENDER, "def f():\n    from rich.table import Table", []),
        (RENDER, "from rich.table import Table", ["imports rich"]),
        ("config.compose", "import torch", ["imports torch"]),
        (
            SCHEDULER,
            "from lrkit.data import file_readers",
            ["imports lrkit.data.file_readers, and data is not below optim"],
        ),
        (SCHEDULER, "import pytorch_lightning as pl", ["imports pytorch_lightning"]),
        (RUN, "from lrkit.cli import main", ["imports lrkit.cli.main, and cli is not below training"]),
        (RUN, "import torch\nfrom lrkit.config import compose", []),
        (MAIN, "from lrkit.training.run import run", []),
        (MAIN, "def f():\n    from lrkit import api", []),
        (MAIN, "def f():\n    import torch", ["imports torch"]),
        (MAIN, "import hydra", ["imports hydra"]),
    ],
)
def test_the_guard_sees_it(name: str, line: str, found: list[str]) -> None:
    assert wrong(name, line) == [f"{name} {each}" for each in found]


def test_the_guard_sees_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
