"""Arithmetic expressions of a schedule, such as ``0.5*(1+cos(pi*u))``: parsed, checked and computed by lrkit.

``ast`` parses the text; lrkit never compiles or executes it as Python. An expression may have numbers, the names of its
variables and of ``CONSTANTS``, calls of ``FUNCTIONS``, arithmetic, comparisons (true is 1, false is 0), ``and``,
``or``, ``not`` and ``a if c else b``. Every number is a float, so no power exceeds a float's range.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import is_number

__all__ = ["CONSTANTS", "FUNCTIONS", "Expression", "formula_text", "parse_expression"]

#: The function of a part of an expression: from the values of the variables to its value.
Part: TypeAlias = Callable[[Sequence[float]], float]

CONSTANTS = {"pi": math.pi}


def _round_down(x: float) -> float:
    return float(math.floor(x))


def _round_up(x: float) -> float:
    return float(math.ceil(x))


#: Each function, with the least and the largest number of its arguments.
FUNCTIONS: Mapping[str, tuple[Callable[..., float], int, int]] = {
    **{
        name: (getattr(math, name), 1, 1)
        for name in ("exp", "log", "log2", "log10", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "tanh")
    },
    "abs": (math.fabs, 1, 1),
    "floor": (_round_down, 1, 1),
    "ceil": (_round_up, 1, 1),
    "min": (min, 2, 64),
    "max": (max, 2, 64),
}

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # for floats: the same bits as **, and an error in place of a complex result
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)

_LONGEST = 1000  # characters
_MOST_PARTS = 400
_DEEPEST = 60  # each level of nesting is a Python call
_UNKNOWN_CHARACTER = re.compile(r"[^A-Za-z0-9_+\-*/%().,<>=! \t\n]")
_HINTS = {"^": ": a power is written **", "&": ": write and", "|": ": write or", "~": ": write not"}
#: Python syntax that is not arithmetic -> its name in the message.
_NAMES: Mapping[type[ast.AST], str] = {
    ast.Attribute: "an attribute",
    ast.Lambda: "a lambda",
    ast.NamedExpr: "an assignment",
    ast.Starred: "a star",
    ast.Tuple: "a comma outside of a function",
    ast.GeneratorExp: "a loop",
    ast.Await: "an await",
    ast.Yield: "a yield",
    ast.YieldFrom: "a yield",
}


@dataclass(frozen=True, eq=False)
class Expression:
    """A parsed expression.

    Args:
        text: the written text.
        variables: the names that have values.
        names: the variables in the text.
        numbers: the numbers in the text.
        compute: returns the value for the values of all variables, in the order of ``variables``.
        comparisons: functions that return whether a comparison holds, for each comparison of a variable with a value
            that depends only on ``n``. The expression may jump at the steps where one changes.
    """

    text: str
    variables: tuple[str, ...]
    names: frozenset[str]
    numbers: frozenset[float]
    compute: Part
    comparisons: tuple[Callable[[Sequence[float]], bool], ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return parse_expression, (self.text, self.variables)  # its functions cannot be pickled

    def value(self, values: Sequence[float]) -> float:
        """Return the value of the expression, a finite number >= 0.

        Args:
            values: the values of the variables, as floats.

        Raises:
            ConfigError: a division by zero, an argument out of a function's domain, or another value; without a key.
        """
        try:
            value = self.compute(values)
        except ZeroDivisionError:
            raise ConfigError("", "divides by zero", self.text) from None
        except OverflowError:
            raise ConfigError("", "is too large for a float", self.text) from None
        except ValueError:
            raise ConfigError("", "is not a real number (such as the root of a negative number)", self.text) from None
        if 0.0 <= value < math.inf:
            return value + 0.0  # not -0.0
        raise ConfigError("", f"must be a finite number >= 0, and is {value!r}", self.text)


def formula_text(key: str, written: Any) -> str:
    """Return the text of a formula, also for one such as 0.5, which YAML reads as a number."""
    if is_number(written):
        return repr(written)
    if not isinstance(written, str):
        raise ConfigError(key, "must be a text such as '0.5*(1+cos(pi*u))'", written)
    return written


@lru_cache(maxsize=256)
def parse_expression(text: str, variables: tuple[str, ...]) -> Expression:
    """Parse an expression.

    Args:
        text: the expression.
        variables: the names that have values, in the order of the values.

    Raises:
        ConfigError: an invalid text, with the accepted parts; without a key.

    >>> half = parse_expression("0.5 if u >= 0.5 else 1", ("u", "s"))
    >>> half.value((0.25, 1.0)), half.value((0.5, 2.0)), sorted(half.names)
    (1.0, 0.5, ['u'])
    """
    if not text.strip():
        raise ConfigError("", "must not be empty", text)
    if len(text) > _LONGEST:
        raise ConfigError("", f"must have at most {_LONGEST} characters", text)
    if (unknown := _UNKNOWN_CHARACTER.search(text)) is not None:
        raise ConfigError("", f"must not have the character {unknown[0]!r}{_HINTS.get(unknown[0], '')}", text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python accepts some misspelt numbers with a warning
            tree = ast.parse(text.strip().replace("\n", " "), mode="eval")
    except SyntaxError as error:
        place = f" near character {error.offset}" if error.offset else ""
        raise ConfigError("", f"cannot be read{place} ({error.msg})", text) from None
    except (ValueError, RecursionError, MemoryError, Warning):
        raise ConfigError("", "cannot be read: it is not an arithmetic expression", text) from None
    parser = _Parser(text, variables)
    compute = parser.read(tree.body, 0)
    return Expression(
        text, variables, frozenset(parser.names), frozenset(parser.numbers), compute, tuple(parser.comparisons)
    )


class _Parser:
    """Builds a function for each node of a syntax tree; refuses every kind of node that is not listed here."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self.text = text
        self.variables = variables
        self.names: set[str] = set()
        self.numbers: set[float] = set()
        self.comparisons: list[Callable[[Sequence[float]], bool]] = []
        self.parts = 0

    def read(self, node: ast.expr, depth: int) -> Part:
        """Return the function of a node."""
        self.parts += 1
        if depth > _DEEPEST or self.parts > _MOST_PARTS:
            must = f"must have at most {_MOST_PARTS} parts, nested at most {_DEEPEST} deep"
            raise ConfigError("", must, self.text)
        readers: dict[type[ast.expr], Callable[[Any, int], Part]] = {
            ast.Constant: self._read_number,
            ast.Name: self._read_name,
            ast.BinOp: self._read_operation,
            ast.UnaryOp: self._read_sign,
            ast.Compare: self._read_comparison,
            ast.BoolOp: self._read_and_or,
            ast.IfExp: self._read_choice,
            ast.Call: self._read_call,
        }
        kind = type(node)
        if kind not in readers:
            raise self._make_error(_NAMES.get(kind, f"a Python {kind.__name__}"))
        return readers[kind](node, depth + 1)

    def _make_error(self, what: str) -> ConfigError:
        names = ", ".join([*self.variables, *CONSTANTS])
        return ConfigError("", f"must not have {what}: only numbers, {names}, arithmetic and functions", self.text)

    def _read_number(self, node: ast.Constant, depth: int) -> Part:
        if type(node.value) not in (int, float):
            raise self._make_error(f"{node.value!r}")
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            raise ConfigError("", "must have numbers that a float can hold", self.text)
        self.numbers.add(value)
        return lambda values: value

    def _read_name(self, node: ast.Name, depth: int) -> Part:
        if node.id in self.variables:
            self.names.add(node.id)
            return operator.itemgetter(self.variables.index(node.id))
        if node.id in CONSTANTS:
            value = CONSTANTS[node.id]
            return lambda values: value
        if node.id in FUNCTIONS:
            raise ConfigError("", f"must call {node.id}, which is a function: {node.id}(u)", self.text)
        hint = did_you_mean(node.id, [*self.variables, *CONSTANTS, *FUNCTIONS])
        raise ConfigError("", f"must not have the unknown name {_shorten_name(node.id)}. {hint}", self.text)

    def _read_operation(self, node: ast.BinOp, depth: int) -> Part:
        operation = _BINARY.get(type(node.op))
        if operation is None:
            raise self._make_error(f"the operator {type(node.op).__name__}")
        left, right = self.read(node.left, depth), self.read(node.right, depth)
        if isinstance(node.op, ast.Mult):  # the frequent operators without another function call
            return lambda values: left(values) * right(values)
        if isinstance(node.op, ast.Add):
            return lambda values: left(values) + right(values)
        if isinstance(node.op, ast.Sub):
            return lambda values: left(values) - right(values)
        return lambda values: operation(left(values), right(values))

    def _read_sign(self, node: ast.UnaryOp, depth: int) -> Part:
        of = self.read(node.operand, depth)
        if isinstance(node.op, ast.USub):
            return lambda values: -of(values)
        if isinstance(node.op, ast.UAdd):
            return of
        if isinstance(node.op, ast.Not):
            return lambda values: 0.0 if of(values) else 1.0
        raise self._make_error(f"the operator {type(node.op).__name__}")

    def _read_comparison(self, node: ast.Compare, depth: int) -> Part:
        operations = [_COMPARE.get(type(op)) for op in node.ops]
        if None in operations:
            raise self._make_error("is or in")
        operands = [node.left, *node.comparators]
        parts = [self.read(operand, depth) for operand in operands]
        pairs = [(op, a, b) for op, (a, b) in zip(operations, pairwise(parts), strict=True) if op is not None]
        for (op, a, b), kind, (left, right) in zip(pairs, node.ops, pairwise(operands), strict=True):
            if isinstance(kind, _ORDERED):
                self._note_comparison(op, (a, left), (b, right))
        if len(pairs) == 1:
            ((op, a, b),) = pairs
            return lambda values: 1.0 if op(a(values), b(values)) else 0.0
        return lambda values: 1.0 if all(op(a(values), b(values)) for op, a, b in pairs) else 0.0

    def _note_comparison(
        self, op: Callable[[float, float], bool], left: tuple[Part, ast.expr], right: tuple[Part, ast.expr]
    ) -> None:
        (a, first), (b, second) = left, right
        for one, other in ((first, second), (second, first)):
            if isinstance(one, ast.Name) and one.id in self.variables:
                inside = {each.id for each in ast.walk(other) if isinstance(each, ast.Name)}
                if not inside & {*self.variables} - {"n"}:
                    self.comparisons.append(lambda values: op(a(values), b(values)))
                    return

    def _read_and_or(self, node: ast.BoolOp, depth: int) -> Part:
        parts = [self.read(each, depth) for each in node.values]
        if isinstance(node.op, ast.And):
            return lambda values: 1.0 if all(part(values) for part in parts) else 0.0
        return lambda values: 1.0 if any(part(values) for part in parts) else 0.0

    def _read_choice(self, node: ast.IfExp, depth: int) -> Part:
        test, yes, no = (self.read(each, depth) for each in (node.test, node.body, node.orelse))
        return lambda values: yes(values) if test(values) else no(values)

    def _read_call(self, node: ast.Call, depth: int) -> Part:
        if not isinstance(node.func, ast.Name):
            raise self._make_error("a call of anything but a function's name")
        name = node.func.id
        if name not in FUNCTIONS:
            known = name in self.variables or name in CONSTANTS
            hint = f": write {name} * (...)" if known else f". {did_you_mean(name, FUNCTIONS)}"
            raise ConfigError("", f"calls {_shorten_name(name)}, which is not a function{hint}", self.text)
        function, least, most = FUNCTIONS[name]
        if node.keywords:
            raise self._make_error("an argument with a name")
        if not least <= len(node.args) <= most:
            many = f"{least}" if least == most else f"{least} to {most}"
            raise ConfigError("", f"must give {name} {many} argument(s), and gives {len(node.args)}", self.text)
        parts = [self.read(each, depth) for each in node.args]
        if len(parts) == 1:
            (only,) = parts
            return lambda values: function(only(values))
        return lambda values: function(*[part(values) for part in parts])


def _shorten_name(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."
