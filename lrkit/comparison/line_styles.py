"""The line style of each setting, the same in every figure and table of a comparison.

There are eight styles, each with its own colour and marker. If families are compared at their own best rates, each
family has a style, in the plots over the steps and over the rate. Else the settings with the first ranks have the
styles. All other settings are grey.
"""

from __future__ import annotations

from lrkit.base.figure_style import LINE_STYLES, OTHER, LineStyle
from lrkit.comparison.ranking import Comparison

__all__ = ["family_styles", "setting_styles"]


def setting_styles(comparison: Comparison) -> list[LineStyle]:
    """Return the line style of each setting, in the order of the ranking."""
    tuned, ids = comparison.best_rates, [id(setting) for setting in comparison.settings]
    first = [id(choice.setting) for choice in tuned.choices] if tuned else []
    few = len(ids) <= len(LINE_STYLES) or not first
    styles = LINE_STYLES if few else LINE_STYLES[: len(first)]
    by_id = dict(zip([*first, *(i for i in ids if i not in first)], styles, strict=False))
    return [by_id.get(i, OTHER) for i in ids]


def family_styles(comparison: Comparison) -> dict[str, LineStyle]:
    """Return family -> line style: that of the family's setting at its best rate."""
    by_id = dict(zip(map(id, comparison.settings), setting_styles(comparison), strict=True))
    return {name: by_id[id(at[0][1])] for name, at in comparison.families().items()}
