"""Tables from files: read once, within limits; an error names the key, the file and the line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.schedules.shapes import Table
from lrkit.schedules.table_file import MOST_ROWS, read_table

ROWS = ((0, 1.0), (5, 0.5), ("50%", 0.25), (0.75, 0.1))

GOOD = [
    # file        text                                                                column
    ("a.csv",     "0,1\n5,0.5\n50%,.25\n0.75,1e-1\n",                                 None),
    ("a.csv",     "\ufeffstep, lr\r\n0, 1\r\n\r\n5, 0.5\r\n50%, .25\r\n.75, 0.1",     None),
    ("a.CSV",     'place,loss,"the rate"\n0,9,1\n5,9,0.5\n50%,,0.25\n0.75,x,0.1\n',   "the rate"),
    ("a.json",    '[[0, 1], [5, 0.5], ["50%", 0.25], [0.75, 0.1]]',                   None),
]  # fmt: skip

BAD = [
    # file        text                         options            the sentence
    ("a.csv",     "",                          {},                "table must have at least one row. Received: "),
    ("a.csv",     "step,lr\n",                 {},                "table must be a .csv or .json file, or a list"),
    ("a.csv",     "0\n1\n",                    {},                "table (a.csv, line 1) must have two columns: pl"),
    ("a.csv",     "0,1\n\n5,-1\n",             {},                "table (a.csv, line 3) must have a value >= 0"),
    ("a.csv",     "0,1\n5,nan\n",              {},                "table (a.csv, line 2) must have a value >= 0"),
    ("a.csv",     "0,1\n5,inf\n",              {},                "table (a.csv, line 2) must have a value >= 0"),
    ("a.csv",     "0,1\n5,x\n",                {},                "table (a.csv, line 2) must have 2 cells, and a n"),
    ("a.csv",     "0,1\n5,\n",                 {},                "table (a.csv, line 2) must have 2 cells, and a n"),
    ("a.csv",     "0,1\n5,1,1\n",              {},                "table (a.csv, line 2) must have 2 cells, and a n"),
    ("a.csv",     "0,1\n5,1\n5,2\n",           {},                "table (a.csv, line 3) must have a place after 5"),
    ("a.csv",     "9,1\n5,1\n",                {},                "table (a.csv, line 2) must have a place after 9"),
    ("a.csv",     "0,1\n5x,1\n",               {},                "table (a.csv, line 2) must be a length: 500 (op"),
    ("a.csv",     "0,1\n-5,1\n",               {},                "table (a.csv, line 2) must not be negative"),
    ("a.csv",     "0,1\n1.0,1\n",              {},                "table (a.csv, line 2) must be 1 for one step"),
    ("a.csv",     "0,1\n" + "9" * 5000 + ",1", {},                "table (a.csv, line 2) must be a length: 500 (op"),
    ("a.csv",     '0,"1\n',                    {},                "table must be a CSV file (unexpected end of data"),
    ("a.csv",     "0," + "1" * 200_000,        {},                "table must be a CSV file (field larger than fiel"),
    ("a.csv",     "s,a,b\n0,1,2\n",            {},                "column must be set: a.csv has the columns a, b"),
    ("a.csv",     "s,a,b\n0,1,2\n",            {"column": "aa"},  "column is not in a.csv. Did you mean 'a'? Accept"),
    ("a.csv",     "0,1,2\n",                   {},                "table (a.csv, line 1) must begin with a row of n"),
    ("a.csv",     "0,1\n",                     {"column": "a"},   "table (a.csv, line 1) must begin with a row of n"),
    ("a.csv",     "step,lr/all\n0,1\n",        {},                "table has learning rates in lr/all, and must hav"),
    ("a.json",    "[[0, 1]",                   {},                "table must be a JSON file (Expecting ',' delimit"),
    ("a.json",    "[" * 100_000,               {},                "table must be a JSON file ("),
    ("a.json",    '{"0": 1}',                  {},                "table must be a JSON list of pairs, such as [[0,"),
    ("a.json",    "[[0, 1], [5]]",             {},                "table (a.json, row 2) must be a place and a valu"),
    ("a.json",    "[[0, 1], [5, NaN]]",        {},                "table (a.json, row 2) must have a value >= 0"),
    ("a.json",    "[[0, 1], [5, true]]",       {},                "table (a.json, row 2) must have a value >= 0"),
    ("a.json",    '[[0, 1], [5, "1"]]',        {},                "table (a.json, row 2) must have a value >= 0"),
    ("a.json",    "[[0, 1], [null, 1]]",       {},                "table (a.json, row 2) must be a length: 500 (op"),
    ("a.json",    "[[0, 1]]",                  {"column": "a"},   "column must be null for a .json file, whose val"),
    ("a.txt",     "0,1\n",                     {},                "table must be a .csv or .json file, or a list"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "text", "column"), GOOD)
def test_the_rows_of_a_file(name: str, text: str, column: str | None) -> None:
    Path(name).write_text(text, newline="")
    assert read_table(name, column) == ROWS
    assert Table(table=name, column=column) == Table(table=ROWS)  # it holds the rows, and no path


@pytest.mark.parametrize(("name", "text", "options", "sentence"), BAD)
def test_a_wrong_file(name: str, text: str, options: dict[str, Any], sentence: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        Table(table=name, **options)
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_is_read_only_if_it_is_a_regular_file_of_a_bounded_size() -> None:
    for name, why in (("no.csv", "No such file or directory"), ("f.csv", "it is not a regular file"),
                      ("big.csv", "it is larger than"), ("latin.csv", "invalid"), ("\0.csv", "null")):  # fmt: skip
        if name == "f.csv":
            os.mkfifo(name)
            assert stat.S_ISFIFO(os.stat(name).st_mode)
        if name == "big.csv":
            with open(name, "wb") as file:
                file.truncate(2**40)  # sparse
        if name == "latin.csv":
            Path(name).write_bytes(b"0,1\n5,\xe9\n")
        with pytest.raises(ConfigError, match=f"^table must be a file that can be read .*{why}"):
            read_table(name)


def test_a_table_has_a_largest_number_of_rows() -> None:
    Path("a.json").write_text(json.dumps([[i, 1] for i in range(MOST_ROWS + 1)]))
    with pytest.raises(ConfigError, match="table must have at most 10000 rows, and has 10001"):
        read_table("a.json")


def test_learning_rates_are_divided_by_the_peak_or_the_first() -> None:
    Path("a.csv").write_text("step,lr/default\n0,0.0625\n10,0.125\n20,0.25\n")
    assert Table(table="a.csv", normalise="peak").table == ((0, 0.25), (10, 0.5), (20, 1.0))
    assert Table(table="a.csv", normalise="first").table == ((0, 1.0), (10, 2.0), (20, 4.0))
