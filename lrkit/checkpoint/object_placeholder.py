"""The text that replaces an object in a checkpoint, if the object cannot be plain data."""

from __future__ import annotations

import types
from collections import OrderedDict
from typing import Any

from lrkit.checkpoint.value_types import get_class_name

__all__ = ["describe_object", "is_placeholder_of", "make_placeholder"]

TEXT = 500  #: characters of an object's ``repr``
_CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict)


def make_placeholder(value: Any) -> str:
    """Return the text for an object: its type, and the start of its ``repr`` if that contains no memory address."""
    what = describe_object(value)
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"<not plain data: {what}>"
    try:
        # The repr of a container that is nested too deeply may be endless.
        said = "" if type(value) in _CONTAINERS else repr(value)
    except Exception:  # from a method of the user's class
        said = ""
    said = "" if " at 0x" in said else said[:TEXT]
    return f"<not plain data: {what}{': ' if said else ''}{said}>"


def is_placeholder_of(text: Any, value: Any) -> bool:
    """Return whether a text replaces an object of this type, or this class or function.

    >>> from torch import nn
    >>> from lrkit.checkpoint.plain_data_encoder import to_plain_data
    >>> made = to_plain_data({"loss": nn.MSELoss()}).checkpoint
    >>> is_placeholder_of(made["loss"], nn.MSELoss()), is_placeholder_of(made["loss"], nn.L1Loss())
    (True, False)
    """
    begins = f"<not plain data: {describe_object(value)}"
    return isinstance(text, str) and text.startswith((f"{begins}>", f"{begins}: "))


def describe_object(value: Any) -> str:
    """Return the type of an object, or the name of a class or a function."""
    if isinstance(value, type):
        return f"class {get_class_name(value)}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"function {getattr(value, '__module__', None) or 'builtins'}.{value.__qualname__}"
    return get_class_name(type(value))
