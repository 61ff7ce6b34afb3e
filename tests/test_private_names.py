"""Each private name of another package that lrkit uses is in the table of CONTRIBUTING.md, with what replaces it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {str(file.relative_to(ROOT / "lrkit")): ast.parse(file.read_text()) for file in (ROOT / "lrkit").rglob("*.py")}
PRIVATE = re.compile(r"_[a-zA-Z]\w*[a-z]_?")

#: Not private: in the documentation of Python, of Hydra or of torch's sparse tensors; a convention of networks, not of
#: a package; an earlier name of lrkit's own; and parts of names.
PUBLIC = {
    "_asdict", "_current_frames", "_exit", "_fields", "_member_map_", "_name_", "_replace", "_value_",
    "_args_", "_convert_", "_global_", "_partial_", "_recursive_", "_target_",
    "_values",
    "_no_weight_decay",
    "_Dip",
    "_length", "_new", "_resolver", "_shared", "_test", "_val",
}  # fmt: skip


def own_names(file: str) -> set[str]:
    """The names that lrkit defines: classes and their members in any file, functions and variables in this one.

    Not those of torch's modules, which a class of lrkit may have as well.
    """
    names = {node.name for node in ast.walk(FILES[file]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(FILES[file]):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names | OF_CLASSES


def members(tree: ast.AST) -> set[str]:
    """The classes of a file, with their methods, fields and attributes."""
    names = own_attributes(tree)
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        names.add(cls.name)
        for node in cls.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, ast.Assign):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def own_attributes(tree: ast.AST) -> set[str]:
    """The attributes that the classes of a file set on themselves."""
    attributes = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]
    return {each.attr for each in attributes if isinstance(each.value, ast.Name) and each.value.id in ("self", "cls")}


OF_CLASSES = set().union(*map(members, FILES.values())) - {"_buffers", "_modules", "_parameters"}


def used_names(tree: ast.AST) -> set[str]:
    """The private names in a file: attributes, names in strings, imported names and modules."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("lrkit", "__future__")):
            names |= {alias.name for alias in node.names} | set((node.module or "").split("."))
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
    return {name for name in names if PRIVATE.fullmatch(name)}


def test_the_table_has_every_private_name_with_its_files() -> None:
    used = {
        (name, file)
        for file, tree in FILES.items()
        for name in used_names(tree) - own_names(file) - own_attributes(tree) - PUBLIC
    }
    text = (
        (ROOT / "CONTRIBUTING.md").read_text().partition("## Private names of other packages")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    told = {
        (name, file)
        for names, files, *_ in rows
        for name in re.findall(r"`(\w+)`", names)
        for file in re.findall(r"`(\S+\.py)`", files)
    }
    names_told, names_used = {name for name, _ in told}, {name for name, _ in used}
    assert names_told == names_used, (sorted(names_used - names_told), sorted(names_told - names_used))
    assert used <= told, sorted(used - told)
    assert all(len(row) == 4 and all(row) for row in rows)
