"""The line styles of all figures can be told apart: by colour, with any colour vision, and by marker."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from colour_vision import VISIONS, contrast, difference, seen

from lrkit.base.figure_style import GREY, LINE_STYLES

#: Mode of the page -> background, the colours of the lines, and their least contrast with the background.
MODES = {
    "light": ("#ffffff", [style.light for style in LINE_STYLES], 2.2),
    "dark": ("#14171c", [style.dark for style in LINE_STYLES], 4.0),
}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [  # Sharma, Wu and Dalal 2005, table 1: pairs 1, 4, 9, 17, 25, 34
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_of_colours(
    one: tuple[float, float, float], other: tuple[float, float, float], expected: float
) -> None:
    assert difference(one, other) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("mode", MODES)
def test_colours_stay_apart_with_any_colour_vision(mode: str, vision: str) -> None:
    _, colours, _ = MODES[mode]
    of = {colour: seen(colour, vision) for colour in [*colours, GREY]}
    closest = min(combinations(of, 2), key=lambda pair: difference(of[pair[0]], of[pair[1]]))
    assert difference(of[closest[0]], of[closest[1]]) >= 11, closest
    for one, other in pairwise(colours):
        assert difference(of[one], of[other]) >= 20, (one, other)


@pytest.mark.parametrize("mode", MODES)
def test_colours_can_be_seen_on_their_background(mode: str) -> None:
    background, colours, least = MODES[mode]
    assert min(contrast(colour, background) for colour in [*colours, GREY]) >= least


def test_a_grey_print_has_markers() -> None:
    assert len({style.marker for style in LINE_STYLES}) == len({style.path for style in LINE_STYLES}) == 8
    drawn = [style.line(place) for place, style in enumerate(LINE_STYLES)]
    assert len({line["markevery"] for line in drawn}) == 8  # those of two lines that meet do not cover each other
