"""Folders of runs as an attacker would make them: a small valid run with one damage.

``craft`` makes one random change in a copy of a run: it replaces, removes or adds a value in a JSON or YAML file, or in
a checkpoint; it replaces a file or folder by a link, a pipe, a folder or a sparse file of a terabyte; or it writes the
archive of a checkpoint with compressed, duplicate, overlapping, truncated or bit-flipped members.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import random
import reprlib
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

#: Replacements of a value.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**53, 2**63, -(2**63), 10**18, 10**40, 0.5, -0.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), "", "a", "nan", "5%", "2ep", "${seed}", "${oc.env:HOME}", "../../x",
    "/etc", "memory://a/b", "webhdfs://example.invalid/a", "__class__", "os.system", "Schedule", "Excerpt", "Cosine",
    "\x1b[31m", "\x00", "\ud800", "x" * 3000, [], {}, [[]], [{}], {"a": 1}, [1, 2], [None], {"name": "Cosine"},
    {"_target_": "os.system"}, {"name": "Excerpt"}, {"name": "Restarts", "period": 1, "growth": 1.0000001},
    {"name": "Restarts", "cycles": 9, "growth": 1e200}, {"name": "Cyclic", "up": 1}, {"name": "Step", "every": 0},
    {"name": "Piecewise", "phases": []}, [0] * 5000, {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}},
]  # fmt: skip


def _deep(levels: int) -> Any:
    node: Any = []
    for _ in range(levels):
        node = [node]
    return node


def _shared() -> Any:
    """A few lists that stand for a million million values."""
    node: Any = [1]
    for _ in range(40):
        node = [node, node]
    return node


_sparse = functools.partial(torch.sparse_coo_tensor, check_invariants=False)

#: Replacements that only a checkpoint, or only JSON, can contain; created when needed.
TENSORS: list[Callable[[], Any]] = [
    lambda: torch.zeros(3),
    lambda: torch.zeros(()),
    lambda: torch.zeros(0),
    lambda: torch.full((2,), float("nan")),
    lambda: torch.zeros(1).expand(10**12),
    lambda: torch.zeros(1, 1).expand(10**6, 10**6),
    lambda: torch.zeros(3, dtype=torch.complex64),
    lambda: torch.zeros(3, dtype=torch.uint8),
    lambda: torch.zeros(3).to_sparse(),
    lambda: _sparse(torch.zeros((1, 0), dtype=torch.int64), torch.zeros(0), (10**12,)),
    lambda: _sparse(torch.tensor([[10**9]]), torch.ones(1), (3,)),
    lambda: torch.zeros(3).untyped_storage(),
    lambda: torch.zeros(5056, dtype=torch.uint8),
    lambda: (1, 2),
    lambda: {1, 2},
    lambda: {1: 2, None: 3},
    lambda: b"abc",
    lambda: 2**2000,
    lambda: _deep(120),
    lambda: _deep(300),
    _shared,
    lambda: torch.float32,
    lambda: torch.device("cuda:7"),
    lambda: torch.Size([1, 2]),
]


def places(node: Any, at: tuple[Any, ...] = (), depth: int = 0) -> list[tuple[Any, ...]]:
    """Every place in nested containers, at most some of a long list."""
    found = [at] if at else []
    if depth > 12:
        return found
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*at, key), depth + 1)
    elif isinstance(node, list):
        for i, value in list(enumerate(node))[:4]:
            found += places(value, (*at, i), depth + 1)
    return found


def _place(chance: random.Random, node: Any) -> tuple[Any, ...]:
    """One of the places, all depths alike: else nearly all would be the counts of Lightning's loops."""
    found = places(node)
    depth = chance.choice(sorted({len(at) for at in found}))
    return chance.choice([at for at in found if len(at) == depth])


def changed(chance: random.Random, node: Any, values: list[Any]) -> str:
    """Make one random change in nested containers, in place, and return its description."""
    at = _place(chance, node)
    above = node
    for step in at[:-1]:
        above = above[step]
    deed = chance.choice(["replace"] * 6 + ["drop", "drop", "add", "key"])
    if deed == "drop":
        del above[at[-1]]
    elif deed == "add" and isinstance(above, dict):
        above[chance.choice(["nope", "_target_", "trust", "name", "__init__"])] = chance.choice(VALUES)
    elif deed == "key" and isinstance(above, dict):
        above[chance.choice([0, -1, "nope", "é", "a.b"])] = above.pop(at[-1])
    else:
        value = chance.choice(values)
        above[at[-1]] = value() if callable(value) else copy.deepcopy(value)
    there = above.get(at[-1]) if isinstance(above, dict) else ""
    return f"{deed} {'.'.join(map(str, at))} {reprlib.repr(there)}"


# --- one thing done to a run -------------------------------------------------------------------------------------


TEXTS = [
    "plan.json", "plan.json", "metrics.json", "metrics.json", "config.json", "config.yaml", "environment.json",
    "events.json", "hparams.yaml", "sweep.json", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
]  # fmt: skip
SPOILED = [
    b"", b"\x00" * 50, b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b'{"a": ' * 2000, b"null", b"3", b'"a"', b"&x [*x]",
    b"a: !!python/object/apply:os.getcwd []",
]  # fmt: skip
#: Names that a run may have, or gets when something is asked of it.
NEW = [
    "find", "events.json", "error.log", "job.log", "sweep.json", ".lock", "results.csv", "results.md", "compare.html",
    "compare.png", "tuned.csv", "config.json", "environment.json", "metrics.csv", "checkpoints/best.ckpt",
    "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/last.ckpt.new", "metrics.json.new",
    "events.out.tfevents.9",
]  # fmt: skip


def _text(chance: random.Random, run: Path, outside: Path) -> str:
    """A file of JSON or YAML with another value, or with other bytes."""
    file = run / chance.choice(TEXTS)
    content = (
        file.read_bytes()
        if file.is_file()
        else json.dumps({"overrides": [], "jobs": {"0": {"status": "done"}}}).encode()
    )
    file.parent.mkdir(exist_ok=True)
    if chance.random() < 0.2:
        spoiled = [content[: len(content) // 2], content * 2, *SPOILED]
        file.write_bytes(chance.choice(spoiled))
        return f"{file.name} spoiled"
    node = (
        json.loads(content)
        if file.suffix == ".json"
        else yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    )
    if not node:
        node = {"a": [1]}
    said = changed(chance, node, VALUES)
    text = json.dumps(node) if file.suffix == ".json" else yaml.safe_dump(node)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"{file.name}: {said}"


def _file(chance: random.Random, run: Path, outside: Path) -> str:
    """A file, or a folder, that is another thing."""
    there = sorted(path for path in run.rglob("*"))
    new = [run / name for name in NEW]
    path = chance.choice(there + new)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    deed = chance.choice(
        ["file", "folder", "nothing", "itself", "zero", "pipe", "a folder", "a terabyte", "gone", "above", "unread"]
    )
    if deed == "pipe":
        os.mkfifo(path)
    elif deed == "a folder":
        path.mkdir()
        (path / "x").write_text("x")
    elif deed == "a terabyte":
        with path.open("wb") as stream:
            stream.truncate(2**40)
    elif deed == "unread":
        path.write_bytes(b"")
    elif deed != "gone":
        targets = {name: outside / name for name in ("nothing", "folder")}
        targets |= {"file": outside / "precious", "itself": path, "zero": Path("/dev/zero"), "above": run.parent}
        path.symlink_to(targets[deed])
    return f"{path.relative_to(run)}: {deed}"


def _checkpoint(run: Path, chance: random.Random) -> Path:
    if chance.random() < 0.7:
        (run / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
    return run / "checkpoints" / "last.ckpt"


def _content(chance: random.Random, run: Path, outside: Path) -> str:
    """A checkpoint with another value in it."""
    file = _checkpoint(run, chance)
    content = torch.load(file, weights_only=True)
    part = chance.choice([content] * 3 + [content["lrkit"]] * 2 + [content["callbacks"], content["lr_schedulers"],
                         content["optimizer_states"], content["loops"]["fit_loop"]])  # fmt: skip
    said = changed(chance, part, VALUES + TENSORS)
    torch.save(content, file)
    return f"checkpoint: {said}"


def _plan(chance: random.Random, run: Path, outside: Path) -> str:
    """A checkpoint with another plan in it."""
    file = _checkpoint(run, chance)
    content = torch.load(file, weights_only=True)
    plan = json.loads(content["lrkit"]["plan"])
    part = plan if chance.random() < 0.3 else {key: value for key, value in plan.items() if key != "config"}
    said = changed(chance, part, VALUES)
    content["lrkit"]["plan"] = json.dumps({**({"config": plan["config"]} if part is not plan else {}), **part})
    torch.save(content, file)
    return f"plan: {said}"


def _archive(chance: random.Random, run: Path, outside: Path) -> str:
    """A checkpoint's archive made anew."""
    file = _checkpoint(run, chance)
    with zipfile.ZipFile(file) as archive:
        parts = [(member.filename, archive.read(member)) for member in archive.infolist()]
    deed = chance.choice(["compressed", "bomb", "twice", "flipped", "pickle", "cut", "before", "after", "grown", "list",
                          "renamed", "missing", "tar", "legacy", "overlap", "many", "size"])  # fmt: skip
    made = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deed in ("compressed", "bomb") else zipfile.ZIP_STORED
    name, data = chance.choice(parts)
    if deed in ("tar", "legacy"):
        torch.save({"a": torch.zeros(3)}, made, _use_new_zipfile_serialization=False)
        file.write_bytes(made.getvalue() if deed == "legacy" else b"a".ljust(512, b"\x00") * 2)
        return f"archive: {deed}"
    with zipfile.ZipFile(made, "w", kind) as archive:
        for each, held in parts:
            if deed == "missing" and each == name:
                continue
            if deed == "bomb" and each.endswith(("data/0", "data.pkl")):
                held = bytes(10**8)
            if deed == "grown" and each == name:
                held = held + bytes(1000)
            if deed == "pickle" and each.endswith("data.pkl"):
                held = _flipped(chance, held, chance.randint(1, 8))
            archive.writestr("archive/nope" if deed == "renamed" and each == name else each, held)
        if deed == "twice":
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                archive.writestr(name, data)
        if deed == "many":
            for i in range(300):
                archive.writestr(f"archive/data/x{i}", b"x")
    content = made.getvalue()
    if deed == "flipped":
        content = _flipped(chance, content, chance.randint(1, 20))
    elif deed == "cut":
        content = content[: chance.randrange(len(content))]
    elif deed == "before":
        content = b"x" * 100 + content
    elif deed == "after":
        content = content + b"x" * 100
    elif deed in ("list", "overlap", "size"):
        content = _relisted(chance, content, deed)
    file.write_bytes(content)
    return f"archive: {deed} {name}"


def _flipped(chance: random.Random, data: bytes, times: int) -> bytes:
    changed = bytearray(data)
    for _ in range(times):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _relisted(chance: random.Random, content: bytes, deed: str) -> bytes:
    """The list of an archive with one entry that says another place, another size, or random bytes."""
    made = bytearray(content)
    _, start = struct.unpack_from("<2L", made, len(made) - 10)
    if deed == "list":
        return content[:start] + _flipped(chance, content[start:], chance.randint(1, 10))
    entries, at = [], start
    while made[at : at + 4] == b"PK\x01\x02":
        entries.append(at)
        at += 46 + sum(struct.unpack_from("<3H", made, at + 28))
    entry, other = chance.choice(entries), chance.choice(entries)
    if deed == "overlap":
        made[entry + 16 : entry + 28] = made[other + 16 : other + 28]
        made[entry + 42 : entry + 46] = made[other + 42 : other + 46]
    else:
        for place in chance.choice([(24,), (20, 24)]):
            struct.pack_into("<L", made, entry + place, chance.choice([0, 1, 10**6, 2**31, 2**32 - 2]))
    return bytes(made)


IN_FOLDERS, IN_CHECKPOINTS = [_text, _file], [_content, _content, _plan, _plan, _archive]


def craft(chance: random.Random, run: Path, outside: Path, *, checkpoint: bool) -> str:
    """Make one random change in the folder of a run, and return its description.

    Args:
        chance: chooses.
        run: a folder with an honest run.
        outside: a folder with the file ``precious`` and the folder ``folder``, for links to lead to.
        checkpoint: whether to its checkpoint, or to another file.
    """
    return chance.choice(IN_CHECKPOINTS if checkpoint else IN_FOLDERS)(chance, run, outside)
