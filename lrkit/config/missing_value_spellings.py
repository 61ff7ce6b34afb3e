"""The spellings of a missing value in a table: those of pandas, R, ARFF and spreadsheets."""

from __future__ import annotations

from lrkit.base.validation import one_of

__all__ = ["POLICIES", "SPELLINGS", "is_missing", "missing_policy"]

SPELLINGS = frozenset(
    ("", "?", "-", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "missing")
)

POLICIES = ("refuse", "drop", "keep")


def is_missing(cell: str) -> bool:
    """Return whether a cell has the spelling of a missing value.

    >>> is_missing("NA"), is_missing(" "), is_missing("0"), is_missing("Nantes")
    (True, True, False, False)
    """
    return cell.strip().lower() in SPELLINGS


def missing_policy(value: str) -> str:
    """Return the policy for samples with a missing value: refuse them, drop them, or keep the texts as class names."""
    one_of(*POLICIES).check("data.missing", value)
    return value
