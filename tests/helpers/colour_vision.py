"""Colours as seen with a colour vision deficiency, and the difference of two colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Triple = tuple[float, float, float]

#: Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: matrices on linear RGB. Normal vision changes nothing.
VISIONS: Mapping[str, Sequence[Triple]] = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
#: Linear sRGB to XYZ, and the white point D65 (IEC 61966-2-1).
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


def _multiply(matrix: Sequence[Triple], vector: Triple) -> Triple:
    a, b, c = (sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def linear(colour: str) -> Triple:
    """Return a colour such as ``#1551fa`` as linear RGB from 0 to 1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return red, green, blue


def seen(colour: str, vision: str) -> Triple:
    """Return a colour as CIELAB, as it is seen with a vision."""
    red, green, blue = (min(1.0, max(0.0, part)) for part in _multiply(VISIONS[vision], linear(colour)))
    x, y, z = (part / white for part, white in zip(_multiply(_XYZ, (red, green, blue)), _WHITE, strict=True))
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def contrast(colour: str, background: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1, relative luminance)."""
    a, b = sorted(_multiply(_XYZ, linear(each))[1] for each in (colour, background))
    return (b + 0.05) / (a + 0.05)


def difference(one: Triple, other: Triple) -> float:
    """Return CIEDE2000 of two CIELAB colours (Sharma, Wu and Dalal 2005, equations 2 to 22)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    a1, a2 = (a * (1 + 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))) for a in (a1, a2))
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    apart = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = h1 + h2 if c1 * c2 == 0 else (h1 + h2) / 2 + (180 * (h1 + h2 < 360) - 180 * (h1 + h2 >= 360)) * (
        abs(h1 - h2) > 180
    )  # fmt: skip
    cosines = zip((-0.17, 0.24, 0.32, -0.20), (1, 2, 3, 4), (-30, 0, 6, -63), strict=True)
    t = 1 + sum(part * math.cos(math.radians(times * hue + more)) for part, times, more in cosines)
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / math.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = -math.sin(math.radians(60 * math.exp(-(((hue - 275) / 25) ** 2))))
    rotation *= 2 * math.sqrt(chroma**7 / (chroma**7 + 25**7))
    x, y, z = (l2 - l1) / s_l, (c2 - c1) / s_c, apart / s_h
    return math.sqrt(x * x + y * y + z * z + rotation * y * z)
