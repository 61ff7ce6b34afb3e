"""The classes that a config may name: lrkit's own list, and the packages that the user trusts.

A config comes from the command line, from files, or out of a checkpoint, and the last two may be untrusted. So a
``_target_`` is a name to be looked up, never an order: before anything is imported the name must be of ``NAMES`` or
under an entry of ``trust``, and what it leads to must be a class of the kind that its key takes. ``trust`` is what the
command line says (``--trust mycode``, or the dotted path of a class itself); no file can say it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.lightning_package import LIGHTNING, in_chosen_package
from lrkit.config.server_loggers import find_server_logger

__all__ = [
    "NAMES",
    "TARGET",
    "check",
    "check_addresses",
    "check_name",
    "check_origin",
    "check_trust",
    "find_targets",
    "import_module",
    "is_covered",
    "resolve_class",
]

TARGET = "_target_"

#: Packages of Lightning for the node ``trainer``.
PARTS = ("strategies", "plugins", "profilers")

#: What any config may name. Not here: loggers that speak to a server, and whatever else torch and Lightning have.
NAMES = (
    "lrkit",
    "torch.nn",
    "torch.optim",
    *(
        f"{package}.{part}"
        for package in LIGHTNING
        for part in ("callbacks", "loggers.CSVLogger", "loggers.TensorBoardLogger", *PARTS)
    ),
    "pytorch_optimizer",
    "schedulefree",
)
#: Where what they lead to must be defined: an alias of something else is seen through.
_HOMES = (
    *(name for name in NAMES if ".loggers." not in name),
    *(f"{package}.loggers" for package in LIGHTNING),
    "lightning_fabric.plugins",  # what Lightning's own plugins are, in part
    "lightning.fabric.plugins",
)


class Kind(NamedTuple):
    """What a key takes: a subclass of a name in one of ``modules``, and how to say so; several names by spaces."""

    modules: tuple[str, ...]
    name: str
    said: str

    def holds(self, cls: type) -> bool:
        """Whether ``cls`` is one. Nothing is imported for it: what is not loaded has no subclasses."""
        bases = (getattr(sys.modules.get(m), name, None) for m in self.modules for name in self.name.split())
        return any(isinstance(base, type) and issubclass(cls, base) for base in bases)


def _submodules(name: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for package in LIGHTNING)


_SCHEDULE = Kind(("lrkit.schedules",), "Schedule", "a subclass of lrkit.schedules.Schedule")
_KINDS = {
    "data": Kind(LIGHTNING, "LightningDataModule", "a subclass of LightningDataModule"),
    "model": Kind(
        ("torch.nn",),
        "Module",
        "a subclass of torch.nn.Module, such as a LightningModule, or a function of yours that says it returns one",
    ),
    "optimizer": Kind(("torch.optim",), "Optimizer", "a subclass of torch.optim.Optimizer"),
    "callbacks": Kind(LIGHTNING, "Callback", "a Lightning callback"),
    "logger": Kind(_submodules("loggers"), "Logger", "a Lightning logger"),
    "guard": Kind(("lrkit.planning.guard",), "Guard", "a subclass of lrkit.planning.guard.Guard"),
    "plateau": Kind(("lrkit.planning.plateau",), "Plateau", "a subclass of lrkit.planning.plateau.Plateau"),
    "trainer.strategy": Kind(_submodules("strategies"), "Strategy", "a Lightning strategy"),
    "trainer.plugins": Kind(
        _submodules("plugins"),
        "Precision CheckpointIO ClusterEnvironment LayerSync",
        "a Lightning plugin: of precision, checkpoints, the cluster or batch norm",
    ),
    "trainer.profiler": Kind(_submodules("profilers"), "Profiler", "a Lightning profiler"),
    **dict.fromkeys(("schedule", "warmup", "cooldown", "coschedule"), _SCHEDULE),
}
#: Keys that are groups of nodes, not nodes.
_MANY = ("callbacks", "logger", "coschedule")

_DEEPEST = 32
_ADDRESS = re.compile(r"\s*[A-Za-z][\w+.:-]*://")


def check_trust(entries: Any, key: str = "trust") -> list[str]:
    """The entries of ``trust``: dotted names, and none of Python's own packages.

    >>> check_trust(["mycode", "timm.models"])
    ['mycode', 'timm.models']
    """
    if not isinstance(entries, list | tuple):
        raise ConfigError(key, "must be a list of packages: trust=[mycode]", entries)
    for entry in entries:
        if not isinstance(entry, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", entry):
            raise ConfigError(key, "must be the name of a package of yours, such as mycode", entry)
        if _top_package(entry) in sys.stdlib_module_names:
            raise ConfigError(key, "must be a package of yours, and this is one of Python's own", entry)
    return list(entries)


def find_targets(node: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` at any depth, by its key.

    >>> list(find_targets({"model": {"parts": [{"_target_": "a.B"}]}}))
    [('model.parts[0]._target_', 'a.B')]
    """
    if depth > _DEEPEST:
        raise ConfigError(key.partition(".")[0] or "config", f"must not be nested deeper than {_DEEPEST}")
    if isinstance(node, Mapping):
        for name, inner in node.items():
            below = f"{key}.{name}" if key else str(name)
            if name == TARGET:
                yield below, inner
            yield from find_targets(inner, below, depth + 1)
    elif isinstance(node, list | tuple):
        for i, inner in enumerate(node):
            yield from find_targets(inner, f"{key}[{i}]", depth + 1)


def check(config: Mapping[str, Any]) -> None:
    """Refuse every ``_target_`` of a config that is not allowed. Nothing is imported.

    Raises:
        ConfigError: naming the key, and what there is to say if the class is the user's own.
    """
    trust = config.get("trust", ())
    for key, target in find_targets({name: node for name, node in config.items() if name != "trust"}):
        check_name(target, key, trust)


def check_addresses(config: Any, typed: Iterable[str], key: str = "") -> None:
    """Refuse every address, such as ``s3://bucket/run``, that the command line does not say itself.

    Lightning opens whatever path it is given by the scheme that it has; an untrusted file would so reach any
    host, or write there.

    Raises:
        ConfigError: naming the key.
    """
    if isinstance(config, Mapping):
        for name, inner in config.items():
            check_addresses(inner, typed, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple):
        for i, inner in enumerate(config):
            check_addresses(inner, typed, f"{key}[{i}]")
    elif isinstance(config, str) and _ADDRESS.match(config) and not any(config.strip() in word for word in typed):
        must = "is an address, which no file may name: if it is yours, say it on the command line"
        raise ConfigError(key, must, config)


def check_name(target: Any, key: str, trust: Iterable[str] = ()) -> None:
    """Refuse a name that is neither one of ``NAMES`` nor under an entry of ``trust``. Nothing is imported."""
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise ConfigError(key, "must be the dotted path of a class", target)
    if is_covered(target, trust):
        return
    if is_covered(target, NAMES) and not any(part.startswith("_") for part in target.split(".")):
        return
    top = _top_package(target)
    advice = f"; if it is yours, say --trust {top}"
    if top in sys.stdlib_module_names or top in {_top_package(name) for name in NAMES}:
        advice = f": {', '.join(NAMES)}"
    logger = find_server_logger(target)
    if logger is not None and target in {f"{package}.loggers.{logger.class_name}" for package in LIGHTNING}:
        advice = f": it may send results to a server, so say logger={logger.name} on the command line"
    raise ConfigError(key, f"names {target}, which is outside of what config files may name{advice}", target)


def is_covered(path: str, entries: Iterable[str]) -> bool:
    """Whether a dotted path is one of ``entries``, or below one.

    >>> is_covered("torch.nn.Linear", ["torch.nn"]), is_covered("torch.nnx.Linear", ["torch.nn"])
    (True, False)
    """
    return any(path == entry or path.startswith(f"{entry}.") for entry in entries)


def resolve_class(target: Any, key: str, trust: Sequence[str] = ()) -> type:
    """The class at a dotted path, allowed by its name and then by what it is.

    For ``model`` it may also be a class method that builds the network, such as ``AutoModel.from_config``, if ``trust``
    has exactly its path.

    Args:
        key: of the ``_target_``, such as ``model._target_``; it says which kind of class is needed. One that lies
            deeper, as a part of another node, may be of any kind that lrkit builds, or what a trusted package defines.

    Raises:
        ConfigError: there is no such class, or it is not of the kind.
    """
    check_name(target, key, trust)
    path, _, name = in_chosen_package(str(target)).rpartition(".")
    try:
        module = import_module(path)
    except (ImportError, ValueError) as error:
        if key == f"model.{TARGET}" and (method := _find_class_method(path, name)) is not None:
            if target not in trust:  # a trusted package has many methods, and a file could call any of them
                must = f"is a class method, which no file may call: if it is yours, say --trust {target}"
                raise ConfigError(key, must, target) from None
            return method  # type: ignore[no-any-return]
        raise ConfigError(key, f"cannot be imported ({error})", target) from None
    if not hasattr(module, name):
        public = [n for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]
        hint, near, _ = did_you_mean(name, public).partition("? ")
        raise ConfigError(key, f"names nothing: {path} has no {name}" + (f". {hint}?" if near else ""), target)
    found = getattr(module, name)
    _check_kind(found, str(target), key, trust)
    cls: type = found
    check_origin(cls, str(target), key)
    return cls


def _find_class_method(path: str, name: str) -> Any:
    """The class method of a class at a dotted path, such as ``from_config``; None where there is none."""
    module, _, owner = path.rpartition(".")
    try:
        cls = getattr(import_module(module), owner, None)
    except (ImportError, ValueError):
        return None
    is_own = isinstance(cls, type) and _top_package(cls.__module__) == _top_package(path)
    return getattr(cls, name) if is_own and isinstance(inspect.getattr_static(cls, name, None), classmethod) else None


def import_module(module: str) -> ModuleType:
    """Import a module; for one that is no library's, the folder that we are in is looked into too, last of all.

    Not before: whatever lies in a folder would otherwise be found by a search for plugins, such as that of Hydra.
    """
    if _top_package(module) not in {_top_package(name) for name in NAMES} and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    return importlib.import_module(module)


def check_origin(cls: type, target: str, key: str) -> None:
    """What a library's name leads to must be defined in one of them, not merely be imported there."""
    if is_covered(target, NAMES) and not is_covered(cls.__module__, _HOMES):
        raise ConfigError(key, f"is an alias of {cls.__module__}.{cls.__qualname__}, which must not be named", target)


def _check_kind(found: Any, target: str, key: str, trust: Sequence[str]) -> None:
    place = key.removesuffix(f".{TARGET}")
    group, *inner = place.split(".")
    kind = _KINDS.get(group) if len(inner) == (group in _MANY) and "[" not in key else None
    if group == "trainer":
        kind = _KINDS.get(re.sub(r"\[\d+\]$", "", place))
    if kind is not None:
        made = return_type(found) if group == "model" and is_covered(target, trust) else found
        if not (isinstance(made, type) and kind.holds(made)):
            raise ConfigError(key, f"must be {kind.said}{_describe_found(found) if group == 'data' else ''}", target)
        return
    if not isinstance(found, type):
        raise ConfigError(key, "must be a class", target)
    theirs = is_covered(target, trust) and _top_package(found.__module__) == _top_package(target)
    if not theirs and not any(each.holds(found) for each in _KINDS.values()):
        raise ConfigError(key, "must be a class that lrkit builds: a module, a callback, a schedule, ...", target)


#: Classes that users often name instead of a data module.
_NOT_YET_DATA = (
    Kind(("torch.utils.data",), "Dataset", "a Dataset"),
    Kind(("torch.utils.data",), "DataLoader", "a DataLoader"),
)


def _describe_found(found: Any) -> str:
    """Advice for data that are not a data module."""
    if not isinstance(found, type):
        what = "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"
    else:
        what = next((kind.said for kind in _NOT_YET_DATA if kind.holds(found)), "none")
    inner = f"DataLoader({found.__name__}(...), batch_size=64, shuffle=True)" if what == "a Dataset" else "a DataLoader"
    return (
        f", and this is {what}: write one whose train_dataloader(self) returns {inner} (val_dataloader, the same for"
        " validation); or give these methods to your LightningModule, and say data=module"
    )


def return_type(found: Any) -> Any:
    """What a function that builds networks, as libraries have them, says that it returns; a class is its own."""
    if not inspect.isfunction(found):
        return found
    try:
        return get_type_hints(found).get("return")
    except (NameError, TypeError, AttributeError):
        return None


def _top_package(path: str) -> str:
    return path.partition(".")[0]
