"""The classes that a config may name: lrkit's own list, and the packages that the user trusts.

A config comes from the command line, from files, or from a checkpoint; files and checkpoints may be untrusted. Before
an import, each ``_target_`` must be in ``NAMES`` or below an entry of ``trust``. After the import it must be a class of
the kind that its key needs. Only the command line can set ``trust`` (``--trust mycode``, or the dotted path of a class
as an override).
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

#: The names that any config may use. Left out: loggers that send results to a server, and the rest of torch and
#: Lightning.
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
#: The packages in which the class of such a name must be defined: an alias of another class is refused.
_HOMES = (
    *(name for name in NAMES if ".loggers." not in name),
    *(f"{package}.loggers" for package in LIGHTNING),
    "lightning_fabric.plugins",  # some of Lightning's plugins are defined here
    "lightning.fabric.plugins",
)


class Kind(NamedTuple):
    """The kind of class that a key needs: a subclass of one of the ``names`` in one of the ``modules``.

    ``names`` are separated by spaces; ``meaning`` describes the kind in a message.
    """

    modules: tuple[str, ...]
    names: str
    meaning: str

    def holds(self, cls: type) -> bool:
        """Return whether a class is of this kind. Nothing is imported: a base that is not loaded has no subclasses."""
        bases = (getattr(sys.modules.get(m), name, None) for m in self.modules for name in self.names.split())
        return any(isinstance(base, type) and issubclass(cls, base) for base in bases)


def _list_submodules(name: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for package in LIGHTNING)


_SCHEDULE = Kind(("lrkit.schedules",), "Schedule", "a subclass of lrkit.schedules.Schedule")
_KINDS = {
    "data": Kind(LIGHTNING, "LightningDataModule", "a subclass of LightningDataModule"),
    "model": Kind(
        ("torch.nn",),
        "Module",
        "a subclass of torch.nn.Module, such as a LightningModule, or a function of yours whose return type is one",
    ),
    "optimizer": Kind(("torch.optim",), "Optimizer", "a subclass of torch.optim.Optimizer"),
    "callbacks": Kind(LIGHTNING, "Callback", "a Lightning callback"),
    "logger": Kind(_list_submodules("loggers"), "Logger", "a Lightning logger"),
    "guard": Kind(("lrkit.planning.guard",), "Guard", "a subclass of lrkit.planning.guard.Guard"),
    "plateau": Kind(("lrkit.planning.plateau",), "Plateau", "a subclass of lrkit.planning.plateau.Plateau"),
    "trainer.strategy": Kind(_list_submodules("strategies"), "Strategy", "a Lightning strategy"),
    "trainer.plugins": Kind(
        _list_submodules("plugins"),
        "Precision CheckpointIO ClusterEnvironment LayerSync",
        "a Lightning plugin: of precision, checkpoints, the cluster or batch norm",
    ),
    "trainer.profiler": Kind(_list_submodules("profilers"), "Profiler", "a Lightning profiler"),
    **dict.fromkeys(("schedule", "warmup", "cooldown", "coschedule"), _SCHEDULE),
}
#: Keys that contain several nodes by name.
_MANY = ("callbacks", "logger", "coschedule")

_DEEPEST = 32
_ADDRESS = re.compile(r"\s*[A-Za-z][\w+.:-]*://")


def check_trust(entries: Any, key: str = "trust") -> list[str]:
    """Return the entries of ``trust``; refuse anything but dotted names, and Python's own packages.

    >>> check_trust(["mycode", "timm.models"])
    ['mycode', 'timm.models']
    """
    if not isinstance(entries, list | tuple):
        raise ConfigError(key, "must be a list of packages: trust=[mycode]", entries)
    for entry in entries:
        if not isinstance(entry, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", entry):
            raise ConfigError(key, "must be the name of a package of yours, such as mycode", entry)
        if _get_package(entry) in sys.stdlib_module_names:
            raise ConfigError(key, "must be a package of yours, not one of Python's standard library", entry)
    return list(entries)


def find_targets(node: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every ``_target_`` at any depth, with its key.

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
    """Refuse each ``_target_`` of a config that is neither listed nor trusted. Nothing is imported.

    Raises:
        ConfigError: with the key, and the option that trusts the class if it is the user's own.
    """
    trust = config.get("trust", ())
    for key, target in find_targets({name: node for name, node in config.items() if name != "trust"}):
        check_name(target, key, trust)


def check_addresses(config: Any, typed: Iterable[str], key: str = "") -> None:
    """Refuse each address, such as ``s3://bucket/run``, that is not on the command line.

    Lightning opens a path by its scheme, so an untrusted file could read from any host, or write to it.

    Raises:
        ConfigError: with the key.
    """
    if isinstance(config, Mapping):
        for name, inner in config.items():
            check_addresses(inner, typed, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple):
        for i, inner in enumerate(config):
            check_addresses(inner, typed, f"{key}[{i}]")
    elif isinstance(config, str) and _ADDRESS.match(config) and not any(config.strip() in word for word in typed):
        must = "is an address, which no file may name: if it is yours, set it on the command line"
        raise ConfigError(key, must, config)


def check_name(target: Any, key: str, trust: Iterable[str] = ()) -> None:
    """Refuse a name that is neither in ``NAMES`` nor below an entry of ``trust``. Nothing is imported."""
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise ConfigError(key, "must be the dotted path of a class", target)
    if is_covered(target, trust):
        return
    if is_covered(target, NAMES) and not any(part.startswith("_") for part in target.split(".")):
        return
    top = _get_package(target)
    advice = f"; if it is yours, add --trust {top}"
    if top in sys.stdlib_module_names or top in {_get_package(name) for name in NAMES}:
        advice = f": {', '.join(NAMES)}"
    logger = find_server_logger(target)
    if logger is not None and target in {f"{package}.loggers.{logger.class_name}" for package in LIGHTNING}:
        advice = f": it may send results to a server, so set logger={logger.name} on the command line"
    raise ConfigError(key, f"names {target}, which config files may not name{advice}", target)


def is_covered(path: str, entries: Iterable[str]) -> bool:
    """Return whether a dotted path is one of ``entries``, or below one.

    >>> is_covered("torch.nn.Linear", ["torch.nn"]), is_covered("torch.nnx.Linear", ["torch.nn"])
    (True, False)
    """
    return any(path == entry or path.startswith(f"{entry}.") for entry in entries)


def resolve_class(target: Any, key: str, trust: Sequence[str] = ()) -> type:
    """Import the class at a dotted path, after a check of its name, and check its kind.

    For ``model`` it may also be a class method that builds the network, such as ``AutoModel.from_config``, if ``trust``
    has exactly its path.

    Args:
        key: the key of the ``_target_``, such as ``model._target_``; it determines the kind of class. Inside of
            another node, any kind that lrkit builds and any class of a trusted package is accepted.

    Raises:
        ConfigError: the class does not exist, or is of another kind.
    """
    check_name(target, key, trust)
    path, _, name = in_chosen_package(str(target)).rpartition(".")
    try:
        module = import_module(path)
    except (ImportError, ValueError) as error:
        if key == f"model.{TARGET}" and (method := _find_class_method(path, name)) is not None:
            if target not in trust:  # a trusted package has many methods, and a file could call any of them
                must = f"is a class method, which no file may call: if it is yours, add --trust {target}"
                raise ConfigError(key, must, target) from None
            return method  # type: ignore[no-any-return]
        raise ConfigError(key, f"cannot be imported ({error})", target) from None
    if not hasattr(module, name):
        public = [n for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]
        hint, near, _ = did_you_mean(name, public).partition("? ")
        raise ConfigError(key, f"does not exist: {path} has no {name}" + (f". {hint}?" if near else ""), target)
    found = getattr(module, name)
    _check_kind(found, str(target), key, trust)
    cls: type = found
    check_origin(cls, str(target), key)
    return cls


def _find_class_method(path: str, name: str) -> Any:
    """Return the class method at a dotted path, such as ``from_config``; None if the path has none."""
    module, _, owner = path.rpartition(".")
    try:
        cls = getattr(import_module(module), owner, None)
    except (ImportError, ValueError):
        return None
    is_own = isinstance(cls, type) and _get_package(cls.__module__) == _get_package(path)
    return getattr(cls, name) if is_own and isinstance(inspect.getattr_static(cls, name, None), classmethod) else None


def import_module(module: str) -> ModuleType:
    """Import a module. A module that is not in a library may be in the current folder, which is searched last.

    The current folder is not searched earlier: Hydra's search for plugins would import files in it.
    """
    libraries = {_get_package(name) for name in NAMES}
    if _get_package(module) not in libraries and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    return importlib.import_module(module)


def check_origin(cls: type, target: str, key: str) -> None:
    """Refuse a class that a library only imports: it must be defined in one of the libraries."""
    if is_covered(target, NAMES) and not is_covered(cls.__module__, _HOMES):
        raise ConfigError(
            key, f"is an alias of {cls.__module__}.{cls.__qualname__}, which config files may not name", target
        )


def _check_kind(found: Any, target: str, key: str, trust: Sequence[str]) -> None:
    place = key.removesuffix(f".{TARGET}")
    group, *inner = place.split(".")
    kind = _KINDS.get(group) if len(inner) == (group in _MANY) and "[" not in key else None
    if group == "trainer":
        kind = _KINDS.get(re.sub(r"\[\d+\]$", "", place))
    if kind is not None:
        made = return_type(found) if group == "model" and is_covered(target, trust) else found
        if not (isinstance(made, type) and kind.holds(made)):
            raise ConfigError(key, f"must be {kind.meaning}{_describe_found(found) if group == 'data' else ''}", target)
        return
    if not isinstance(found, type):
        raise ConfigError(key, "must be a class", target)
    theirs = is_covered(target, trust) and _get_package(found.__module__) == _get_package(target)
    if not theirs and not any(each.holds(found) for each in _KINDS.values()):
        raise ConfigError(key, "must be a class that lrkit builds: a module, a callback, a schedule, ...", target)


#: Classes that users often name in place of a data module.
_NOT_YET_DATA = (
    Kind(("torch.utils.data",), "Dataset", "a Dataset"),
    Kind(("torch.utils.data",), "DataLoader", "a DataLoader"),
)


def _describe_found(found: Any) -> str:
    """Return advice for an object that is not a data module."""
    if not isinstance(found, type):
        what = "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"
    else:
        what = next((kind.meaning for kind in _NOT_YET_DATA if kind.holds(found)), "none")
    inner = f"DataLoader({found.__name__}(...), batch_size=64, shuffle=True)" if what == "a Dataset" else "a DataLoader"
    return (
        f", and this is {what}: write a LightningDataModule whose train_dataloader(self) returns {inner}, and"
        " val_dataloader for validation; or add these methods to your LightningModule, and set data=module"
    )


def return_type(found: Any) -> Any:
    """Return the annotated return type of a function that builds networks; a class is returned unchanged."""
    if not inspect.isfunction(found):
        return found
    try:
        return get_type_hints(found).get("return")
    except (NameError, TypeError, AttributeError):
        return None


def _get_package(path: str) -> str:
    return path.partition(".")[0]
