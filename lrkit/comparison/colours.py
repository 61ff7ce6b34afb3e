"""The colour of each setting, the same in every figure and table of a comparison.

There are ten colours. If families are compared at their own best rates, each family has a colour, in the plots over
the steps and over the rate. Else the settings with the first ranks have the colours. All other settings are grey.
"""

from __future__ import annotations

from lrkit.comparison.ranking import Comparison

__all__ = ["COLOURS", "GREY", "family_colours", "setting_colours"]

GREY = "#9498a0"
#: Ten colours that a reader can distinguish on white and on black.
COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#3ca951",
    "#a463f2",
    "#6cc5b0",
    "#ff8ab7",
    "#9c6b4e",
    "#97bbf5",
    "#b8a800",
)


def setting_colours(comparison: Comparison) -> list[str]:
    """Return the colour of each setting, in the order of the ranking."""
    tuned, ids = comparison.best_rates, [id(setting) for setting in comparison.settings]
    first = [id(choice.setting) for choice in tuned.choices] if tuned else []
    few = len(ids) <= len(COLOURS) or not first
    palette = COLOURS if few else COLOURS[: len(first)]
    by_id = dict(zip([*first, *(i for i in ids if i not in first)], palette, strict=False))
    return [by_id.get(i, GREY) for i in ids]


def family_colours(comparison: Comparison) -> dict[str, str]:
    """Return family -> colour: the colour of the family's setting at its best rate."""
    by_id = dict(zip(map(id, comparison.settings), setting_colours(comparison), strict=True))
    return {name: by_id[id(at[0][1])] for name, at in comparison.families().items()}
