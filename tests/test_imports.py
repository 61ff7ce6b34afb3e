"""Who may import whom. Read from the source, so that an import inside of a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

LRKIT = Path(__file__).parents[1] / "lrkit"

#: Every file of lrkit, in its layer. A new file needs a place here.
LAYERS = {
    "plain": "errors callback_conflicts escaping lightning_package signals files durations horizon schedules"
    " curve families rules scaling plateau guard plan monitors trainer_options search suggest race"
    " jobs found journal show records events diagnosis trusted screening runs intervals settings"
    " compare tuned colours tables bands figures page report board failures streams command_line"
    " run_lock tracks launcher watchdog missing named_data safe_path timeout option_rules"
    " optimizer_options node_options resume_options schema plan_schema archives links memory",
    "hydra": "overrides building config sweep saved_config",
    "torch": "groups fused optim tensorwise adabound lamb muon scheduler batches models network_output"
    " readers tensors blocks layerwise random_state checkpoint_config asked checkpoint_file"
    " checkpoint_state",
    "lightning": "lightning data supervised module lean assembly callbacks firstbatch trace train_loss"
    " step_count step_axis loop_counts group_names watch noise storage loggers resume trial find"
    " preemption endings train job evaluation checkpoint_types checkpoint_content readable"
    " data_position tracksteps replicas rendezvous logged module_modes live_objects restoring",
    "front": "cli api __init__ __main__",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}

#: What a layer may import of lrkit, and what it must not import of others.
BELOW = {
    "plain": {"plain"},
    "hydra": {"plain", "hydra"},
    "torch": {"plain", "torch"},
    "lightning": {"plain", "hydra", "torch", "lightning"},
    "front": {
        "plain",
        "front",
    },  # and everything inside of functions: the command waits for nothing that it does not use
}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"}
HYDRA = {"hydra", "omegaconf"}
FORBIDDEN = {
    "plain": {"torch", "numpy", "rich", "matplotlib"} | LIGHTNING | HYDRA,
    "hydra": {"torch", "numpy"} | LIGHTNING,
    "torch": LIGHTNING | HYDRA,
    "lightning": set[str](),
    "front": {"torch", "numpy", "rich", "matplotlib"} | LIGHTNING | HYDRA,
}
#: What may be imported inside of functions all the same.
LAZILY = {
    "show": {"rich", "matplotlib", "numpy"},
    "found": {"matplotlib"},
    "jobs": {"torch"},
    "records": {"numpy"},
    "tables": {"rich"},
    "figures": {"matplotlib"},
    "cli": HYDRA,
}


class Import(NamedTuple):
    """An import: of whom, and whether it waits until a function is called."""

    module: str
    lazy: bool


def imports(source: str) -> Iterator[Import]:
    """What a file imports when it runs; not what only a type checker sees."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module, "relative imports are not used"
                for alias in child.names:  # `from lrkit.planning import render as show` imports lrkit.planning.render
                    yield Import(f"lrkit.{alias.name}" if child.module == "lrkit" else child.module, lazy)
            yield from walk(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return walk(ast.parse(source), False)


def wrong(name: str, source: str) -> list[str]:
    """The imports of a file that its layer does not allow."""
    layer, found = LAYER_OF[name], []
    for module, lazy in imports(source):
        package, _, inner = module.partition(".")
        if package == "lrkit":
            other = inner.partition(".")[0] or "__init__"
            if LAYER_OF.get(other) not in BELOW[layer] and not (layer == "front" and lazy):
                found.append(f"{name} imports lrkit.{other}, which is in the layer {LAYER_OF.get(other)}")
        elif package in FORBIDDEN[layer] and not (lazy and package in LAZILY.get(name, ())):
            found.append(f"{name} imports {package}")
    return found


FILES = sorted(path.stem for path in LRKIT.glob("*.py"))


def read(name: str) -> str:
    return (LRKIT / f"{name}.py").read_text()


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downwards(name: str) -> None:
    assert name in LAYER_OF, f"lrkit/{name}.py has no place in LAYERS"
    assert wrong(name, read(name)) == []


def test_one_file_imports_lightning() -> None:
    files = {name for name in FILES if any(i.module.partition(".")[0] in LIGHTNING for i in imports(read(name)))}
    assert files == {"lightning"}


def test_the_package_is_flat() -> None:
    assert [path.name for path in LRKIT.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


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
            for module, lazy in imports((LRKIT / f"{name}.py").read_text())
            if module.startswith("lrkit.") and not lazy
        }
        for name in FILES
    }
    assert circle(graph) == []


@pytest.mark.parametrize(
    "module",
    [
        "lrkit",
        "lrkit.cli.main",
        "lrkit.config.compose",
        "lrkit.planning.render",
        "lrkit.plan",
        "lrkit.api",
        "lrkit.compare.report",
    ],
)
def test_importing_it_does_not_import_torch(module: str) -> None:
    heavy = sorted(FORBIDDEN["plain"] - HYDRA)
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the guard itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("curve", "import torch.nn", ["curve imports torch"]),
        ("curve", "def f():\n    import torch", ["curve imports torch"]),
        ("curve", "class A:\n    def f(self):\n        from omegaconf import OmegaConf", ["curve imports omegaconf"]),
        (
            "curve",
            "from lrkit.config import compose as config",
            ["curve imports lrkit.config, which is in the layer hydra"],
        ),
        ("curve", "import lrkit.optim.scheduler", ["curve imports lrkit.optim.scheduler, which is in the layer torch"]),
        ("curve", "from lrkit import Plateau", ["curve imports lrkit.Plateau, which is in the layer None"]),
        ("curve", "if TYPE_CHECKING:\n    import torch", []),
        ("curve", "from lrkit.schedules.horizon import Horizon", []),
        ("show", "def f():\n    from rich.table import Table", []),
        ("show", "from rich.table import Table", ["show imports rich"]),
        ("config", "import torch", ["config imports torch"]),
        (
            "config",
            "from lrkit.optim.factory import build",
            ["config imports lrkit.optim, which is in the layer torch"],
        ),
        (
            "optim",
            "from lrkit.config.compose import build",
            ["optim imports lrkit.config, which is in the layer hydra"],
        ),
        ("optim", "import pytorch_lightning as pl", ["optim imports pytorch_lightning"]),
        ("train", "from lrkit.cli import main as cli", ["train imports lrkit.cli, which is in the layer front"]),
        ("train", "import torch\nfrom lrkit.config import compose as config; from lrkit.lightning import module", []),
        ("cli", "from lrkit.train import run as train", ["cli imports lrkit.train, which is in the layer lightning"]),
        ("cli", "def f():\n    from lrkit.train import run as train", []),
        ("cli", "def f():\n    import torch", ["cli imports torch"]),
        ("cli", "import hydra", ["cli imports hydra"]),
    ],
)
def test_the_guard_sees_it(name: str, line: str, found: list[str]) -> None:
    assert wrong(name, line) == found


def test_the_guard_sees_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
