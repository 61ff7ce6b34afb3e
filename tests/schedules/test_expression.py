"""Expressions: the values that Python gives, and no way to anything else of Python's."""

from __future__ import annotations

import builtins
import math
import pickle
import subprocess
import time
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.schedules import expression
from lrkit.schedules.expression import CONSTANTS, FUNCTIONS, parse_expression

VARIABLES = ("u", "s", "n", "epoch")
VALUES = (0.3, 30.0, 100.0, 3.0)

#: Expressions that Python computes too, and to the same bits.
SAME_AS_PYTHON = [
    "0.5*(1+cos(pi*u))", "1-u", "(1-u)**2", "0.95**epoch", "0.95**epoch*abs(sin(epoch))", "2**-3 + 7//2 + 7%4",
    "min(1, s/100) * (0.1 if u >= 0.5 else 1)", "max(u, 0.5, s)", "1/(1+0.1*s)", "sqrt(10/(10+s))", "exp(-3*u)",
    "log(1+9*u)/log(10)", "tanh(3*u)/tanh(3)", "0.5**floor(4*u)", "ceil(u)", "atan(u)", "1 if 0.2 < u < 0.4 else 0.5",
    "(u < 0.5) + 0.5*(u >= 0.5)", "1 if u < 0.1 or u > 0.9 else 0.5", "1 if not (u > 0.1 and s > 2) else 0.25",
    "+u - -u", "1e-3 + .5 + 1_000*0x10", "u == 0.3", "u != 0.3", "n - s", "-(-2)**2 + 4.5", "log2(8) + log10(100)",
    "asin(u) + acos(u) + tan(u)", "\n1 -\n u\n", "((((u))))", "(u and 1) + (0 or u)*0", "5 % 3 ** 2", "1e308*10 > 1",
]  # fmt: skip

#: Texts that must be refused: no code runs, nothing hangs, and one line says what is wrong.
HOSTILE = {
    # attributes, subscripts, and what leads from a number to the interpreter
    "u.__class__": "must not have an attribute", "(1).__class__.__base__": "must not have an attribute",
    "().__class__.__mro__": "must not have an attribute", "cos.__self__": "must not have an attribute",
    "u.real": "must not have an attribute", "cos(u).hex()": "must not have a call of anything but",
    "u[0]": "must not have the character '['", "[u][0]": "must not have the character '['",
    "{u}": "must not have the character '{'", "{}.get(1)": "must not have the character '{'",
    "min.__globals__": "must not have an attribute", "u . __class__ . __init__": "must not have an attribute",
    # names of Python
    "__import__": "must not have the unknown name __import__", "__import__(u)": "calls __import__, which is",
    "__import__('os').system('id')": "must not have the character \"'\"", "eval(u)": "calls eval, which is not a",
    "exec(u)": "calls exec, which is not a function", "open(u)": "calls open, which is not a function",
    "compile(u,u,u)": "calls compile, which is not a function", "globals()": "calls globals, which is not a function",
    "vars()": "calls vars, which is not a function", "getattr(u,u)": "calls getattr, which is not a function",
    "breakpoint()": "calls breakpoint, which is not a function", "input()": "calls input, which is not a function",
    "exit()": "calls exit, which is not a function", "print(u)": "calls print, which is not a function",
    "self": "must not have the unknown name self", "math": "must not have the unknown name math",
    "math.cos(u)": "must not have a call of anything but", "values": "must not have the unknown name values",
    "pow(9, 9)": "calls pow, which is not a function", "sum(u, u)": "calls sum, which is not a function",
    "__builtins__": "must not have the unknown name", "__debug__": "must not have the unknown name",
    "None": "must not have None", "True": "must not have True", "...": "must not have Ellipsis",
    # other syntax
    "lambda: 1": "must not have the character ':'", "lambda u: u": "must not have the character ':'",
    "(lambda: 1)()": "must not have the character ':'", "u := 1": "must not have the character ':'",
    "(u for u in s)": "must not have a loop", "min(u for u in s)": "must give min 2",
    "[u for u in s]": "must not have the character '['", "u, s": "must not have a comma outside of a function",
    "u,": "must not have a comma outside of a function", "()": "must not have a comma outside of a function",
    "min(*u, u)": "must not have a star", "*u": "cannot be read", "min(**u)": "must not have an argument with a name",
    "cos(x=u)": "must not have an argument with a name", "await u": "must not have an await",
    "(yield)": "must not have a yield", "(yield from u)": "must not have a yield", "import os": "cannot be read",
    "u = 1": "cannot be read", "u; u": "must not have the character ';'", "del u": "cannot be read",
    "assert u": "cannot be read", "return u": "cannot be read", "u is u": "must not have is or in",
    "u in s": "must not have is or in", "not": "cannot be read", "u if u": "cannot be read", "u @ u": "must not have",
    "u | u": "must not have the character '|': write or", "u & u": "must not have the character '&': write and",
    "~u": "must not have the character '~': write not", "u ^ 2": "must not have the character '^': a power is written",
    "u << 2": "must not have the operator LShift", "u >> 2": "must not have the operator RShift",
    # texts, bytes, formatted texts
    "'a'": "must not have the character", '"a"*10**9': "must not have the character", "f'{u}'": "must not have",
    "b'a'": "must not have the character", "'%s' % u": "must not have the character", "`u`": "must not have the char",
    # numbers that are none, and numbers that are too large
    "1j": "must not have 1j", "1e999": "must have numbers that a float can hold", "2u": "cannot be read near character",
    "9" * 400: "must have numbers that a float can hold", "9**9**9": "is too large for a float",
    "9**9**9**9**9**9": "is too large for a float", "2**2**2**2**2**2": "is too large for a float",
    "10**308*10": "must be a finite number >= 0, and is inf", "exp(exp(exp(9)))": "is too large",
    "1e308*10 - 1e308*10": "must be a finite number >= 0, and is nan",
    "-u": "must be a finite number >= 0, and is -0.3",
    "floor(1e308*10)": "is too large for a float", "floor(1e308*10-1e308*10)": "is not a real number",
    "0/0": "divides by zero", "1//0": "divides by zero", "1%0": "divides by zero",
    "1/(s-30)": "divides by zero", "0**-1": "is not a real number", "log(0)": "is not a real number",
    "(-1)**0.5": "is not a real number", "sqrt(-u)": "is not a real number", "sin(1e308*10)": "is",
    "01": "cannot be read", "1__0": "cannot be read", "0x": "cannot be read", "1.2.3": "cannot be read",
    # arguments
    "cos": "must call cos, which is a function", "cos()": "must give cos 1 argument(s), and gives 0",
    "cos(u, u)": "must give cos 1 argument(s), and gives 2", "min(u)": "must give min 2 to 64 argument(s), and gives 1",
    "u(2)": "calls u, which is not a function: write u * (...)", "2(u)": "must not have a call of anything but",
    "cos(cos)": "must call cos, which is a function", "min(" + "u," * 65 + "u)": "must give min 2 to 64 argument(s)",
    # misspelt names
    "epcoh": "must not have the unknown name epcoh. Did you mean 'epoch'?", "e": "must not have the unknown name e.",
    "cosine(u)": "calls cosine, which is not a function. Did you mean 'sin'?", "U": "must not have the unknown name U.",
    # length, depth, unusual characters
    "": "must not be empty", "  \n ": "must not be empty", "u\0": "must not have the character '\\x00'",
    "\N{GREEK SMALL LETTER PI}": "must not have the character", "\uff45val(u)": "must not have the character",
    "u\u200b": "must not have the character", "u # comment": "must not have the character '#'", "u \\": "must not have",
    "\x0cu": "must not have the character", "u\r": "must not have the character", "\ud800": "must not have the char",
    "(" * 100_000: "must have at most 1000 characters", "u" + "+u" * 50_000: "must have at most 1000 characters",
    "x" * 1000: "must not have the unknown name xxx", "(" * 500: "cannot be read", "(" * 450 + "u" + ")" * 450: "ca",
    "-" * 900 + "u": "must have at most 400 parts", "not " * 240 + "u": "must have at most 400 parts",
    "u" + "+u" * 300: "must have at most 400 parts", "u" + "**u" * 300: "must have at most 400 parts",
    "u if u else " * 80 + "u": "must have at most 400 parts", "cos(" * 90 + "u" + ")" * 90: "must have at most 400",
    "max(" + ",".join(["u+u"] * 63) + ")+" + "max(" + ",".join(["u+u"] * 63) + ",u*u*u*u)+u" + "*u" * 30: "must ha",
}  # fmt: skip


def value(text: str) -> float:
    return parse_expression(text, VARIABLES).value(VALUES)


def by_python(text: str) -> Any:
    names = {**CONSTANTS, **{name: getattr(math, name, None) or getattr(builtins, name) for name in FUNCTIONS}}
    return eval(text.strip().replace("\n", " "), {**names, **dict(zip(VARIABLES, VALUES, strict=True))})


@pytest.mark.parametrize("text", SAME_AS_PYTHON)
def test_the_value_is_that_of_python_to_the_bit(text: str) -> None:
    found, expected = value(text), by_python(text)
    assert (type(found), found) == (float, float(expected))


def test_there_are_many_hostile_texts() -> None:
    assert len(HOSTILE) >= 120


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs code, opens a file or starts a program fails the test."""

    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("code of the expression was run")

    for name in ("eval", "exec", "open", "__import__", "input", "breakpoint", "print"):
        monkeypatch.setattr(expression, name, fail, raising=False)
    monkeypatch.setattr(subprocess, "Popen", fail)


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_everything_else_is_refused_in_one_line_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        value(text)
    assert time.process_time() - began < 1.0
    assert caught.value.must.startswith(HOSTILE[text])
    message = str(caught.value.under("schedule.formula"))
    assert message.startswith("schedule.formula ") and "\n" not in message and len(message) < 500


@settings(deadline=1000, max_examples=300)
@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from([*"us0123456789.+-*/%<>=!(),_^[]{}:'\"\\ ", "**", "//", "if", "else", "not", *FUNCTIONS]),
        max_size=30,
    ).map("".join)
)
@example("0_" * 50)
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    try:
        assert 0.0 <= value(text) < math.inf
    except ConfigError as error:
        assert "\n" not in str(error)


def test_an_expression_is_read_once_and_knows_its_names() -> None:
    parsed = parse_expression("min(s, 10) / 10 if s < 100 else 0.1", VARIABLES)
    assert parse_expression("min(s, 10) / 10 if s < 100 else 0.1", VARIABLES) is parsed
    assert (parsed.names, parsed.numbers) == ({"s"}, {10.0, 100.0, 0.1})
    assert pickle.loads(pickle.dumps(parsed)) is parsed
    assert parse_expression("0.5", VARIABLES).names == frozenset()


def test_comparisons_of_a_variable_with_a_fixed_value_are_known() -> None:
    def compared(text: str) -> list[bool]:
        return [holds(VALUES) for holds in parse_expression(text, VARIABLES).comparisons]

    assert compared("1 if u < 0.5 else 0.1") == [True]
    assert compared("(0.2 < u < 0.25) + (n / 2 <= s)") == [True, False, False]
    assert compared("u == 0.5") == []  # it does not turn once
    assert compared("s < 10 * u") == [] == compared("cos(u) < 0.5")  # both sides change; not a variable alone
