"""Builds the object of a node with ``_target_``. Every class in the node is checked before the first one is called.

Hydra's ``instantiate`` calls the object of any name, and resolves ``${...}`` a second time in resolved values. This
module calls only the classes that it has checked, and does not change values. ``_args_``, ``_partial_`` and
``_recursive_`` have Hydra's meaning; containers are always plain, as with ``_convert_: all``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError
from lrkit.config import trusted_targets
from lrkit.config.near_names import suggest_name
from lrkit.config.trusted_targets import TARGET

__all__ = ["arguments", "build", "check", "use_lightning"]

_DIRECTIVES = (TARGET, "_args_", "_partial_", "_recursive_", "_convert_")


@dataclass(frozen=True)
class _Call:
    """A checked class and its arguments."""

    key: str
    cls: type
    args: list[Any]
    options: dict[str, Any]
    partial: bool


def build(node: Mapping[str, Any] | None, key: str, trust: Sequence[str] = ()) -> Any:
    """Build the object of a node; return None for an empty node.

    Args:
        key: the key of the node, such as ``model``; errors name the keys below it.
        trust: the packages that the user trusts, see ``lrkit.config.trusted_targets``.

    Raises:
        ConfigError: a class that the node may not name, an unknown argument, or an error of the constructor.
    """
    return _make_objects(check(node, key, trust)) if node else None


def check(node: Mapping[str, Any], key: str, trust: Sequence[str] = ()) -> Any:
    """Check a node without a call; return what ``build`` would call. Only the constructors can still refuse it."""
    if not isinstance(node, Mapping):
        raise ConfigError(key, "must be a group of keys", node)
    for where, target in trusted_targets.find_targets(node, key):
        trusted_targets.check_name(target, where, trust)
    if TARGET not in node:
        raise ConfigError(f"{key}.{TARGET}", "must be set")
    if node.get("_partial_"):
        raise ConfigError(f"{key}._partial_", "must not be set here: it builds a function, and lrkit needs an object")
    return _check_calls(node, key, trust)


def use_lightning(config: Mapping[str, Any]) -> str:
    """Use the Lightning package of the user's own classes in a config, and return its name. Nothing is built.

    The caller must do this before it imports a module of lrkit that imports Lightning. A class that cannot be found
    is ignored here.

    Raises:
        ConfigError: the classes need both packages, see ``lrkit.base.lightning_package``.
    """
    nodes = {"model": config["model"], "data": config["data"]}
    for group in ("callbacks", "logger"):
        nodes |= {f"{group}.{name}": node for name, node in (config[group] or {}).items()}
    for name in ("strategy", "profiler"):
        nodes[f"trainer.{name}"] = config["trainer"].get(name)
    plugins = config["trainer"].get("plugins")
    nodes |= {f"trainer.plugins[{i}]": node for i, node in enumerate(plugins if isinstance(plugins, list) else ())}
    classes = {}
    for name, node in nodes.items():
        key, target = f"{name}.{TARGET}", node.get(TARGET) if isinstance(node, Mapping) else None
        if isinstance(target, str) and not trusted_targets.is_covered(
            target, (*trusted_targets.NAMES, *lightning_package.LIGHTNING)
        ):
            with suppress(ConfigError):
                classes[key] = trusted_targets.return_type(
                    trusted_targets.resolve_class(target, key, config.get("trust", ()))
                )
    return lightning_package.use_package(classes)


def arguments(cls: type, node: Mapping[str, Any], key: str) -> frozenset[str]:
    """Return the arguments of the class of a node; refuse a node with another key."""
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"{key}.{TARGET}", "must be a class whose arguments are known", node[TARGET]) from None
    accepted = frozenset(name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD)
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in node:
        if not (name in accepted or anything or name in _DIRECTIVES):
            raise ConfigError(f"{key}.{name}", f"is not a key. {suggest_name(str(name), accepted)}")
    return accepted


def _check_calls(node: Any, key: str, trust: Sequence[str]) -> Any:
    """Return the node with a ``_Call`` in place of each node with ``_target_``."""
    if isinstance(node, list):
        return [_check_calls(inner, f"{key}[{i}]", trust) for i, inner in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if TARGET not in node:
        return {name: _check_calls(inner, f"{key}.{name}", trust) for name, inner in node.items()}
    cls = trusted_targets.resolve_class(node[TARGET], f"{key}.{TARGET}", trust)
    arguments(cls, node, key)
    for name, default in (("_partial_", False), ("_recursive_", True)):
        if not isinstance(node.get(name, default), bool):
            raise ConfigError(f"{key}.{name}", "must be true or false", node[name])
    if node.get("_convert_", "all") != "all":
        raise ConfigError(f"{key}._convert_", "must be all, which is lrkit's default: leave it out")
    args, options = node.get("_args_", []), {n: inner for n, inner in node.items() if n not in _DIRECTIVES}
    if not isinstance(args, list):
        raise ConfigError(f"{key}._args_", "must be a list", args)
    if node.get("_recursive_", True):
        args = _check_calls(args, f"{key}._args_", trust)
        options = {name: _check_calls(inner, f"{key}.{name}", trust) for name, inner in options.items()}
    return _Call(key, cls, args, options, bool(node.get("_partial_")))


def _make_objects(node: Any) -> Any:
    if isinstance(node, list):
        return [_make_objects(inner) for inner in node]
    if isinstance(node, dict):
        return {name: _make_objects(inner) for name, inner in node.items()}
    if not isinstance(node, _Call):
        return node
    args, options = _make_objects(node.args), _make_objects(node.options)
    if node.partial:
        return functools.partial(node.cls, *args, **options)
    try:
        return node.cls(*args, **options)
    except ConfigError as error:
        raise (error if error.key.startswith(node.key) else error.under(node.key)) from None
    except Exception as error:  # of any class: it comes from the constructor of the user or of a library
        raise ConfigError(node.key, "cannot be built: " + " ".join(str(error).split()).rstrip(".")) from error
