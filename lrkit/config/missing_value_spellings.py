"""What stands in a table where a value is missing, by the spellings of pandas, R, ARFF and spreadsheets."""

from __future__ import annotations

from lrkit.base.validation import one_of

__all__ = ["POLICIES", "SPELLINGS", "is_missing", "missing_policy"]

SPELLINGS = frozenset(
    ("", "?", "-", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "missing")
)

POLICIES = ("refuse", "drop", "keep")


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value.

    >>> is_missing("NA"), is_missing(" "), is_missing("0"), is_missing("Nantes")
    (True, True, False, False)
    """
    return cell.strip().lower() in SPELLINGS


def missing_policy(value: str) -> str:
    """What to do with samples that miss a value: refuse them, drop them, or keep the words as names of classes."""
    one_of(*POLICIES).check("data.missing", value)
    return value
