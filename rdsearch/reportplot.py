"""The report's plot: false positives that were observed against those that an e-value expects."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["calibration_plot"]

_WIDTH, _HEIGHT = 430, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 50


def calibration_plot(points: Sequence[tuple[float, float]]) -> str:
    """An SVG, both axes logarithmic; made of numbers alone.

    Parameters
    ----------
    points : sequence of (float, float)
        Expected, observed: e-values, and false positives a query below each. What is not above 0
        and finite has no place on the axes and is left out.

    Returns
    -------
    str
    """
    drawn = sorted(
        (x, y) for x, y in points if x > 0 and y > 0 and math.isfinite(x) and math.isfinite(y)
    )
    logs = [math.log10(value) for point in drawn for value in point] or [-1.0, 1.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)

    def x_of(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    left, right, top, bottom = x_of(low), x_of(high), y_of(high), y_of(low)
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-labelledby="plot-title">',
        '<title id="plot-title">False positives per query, observed against expected '
        "(e-value)</title>",
    ]
    # Within a factor of two, clipped at the frame.
    two = math.log10(2)
    band = [
        (low, low),
        (low, low + two),
        (high - two, high),
        (high, high),
        (high, high - two),
        (low + two, low),
    ]
    corners = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in band)
    parts.append(f'<polygon class="band" points="{corners}"/>')
    step = max(1, math.ceil((high - low) / 7))
    for power in range(low, high + 1, step):
        x, y, label = x_of(power), y_of(power), _power(power)
        parts += [
            f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>',
            f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>',
            f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{label}</text>',
            f'<text x="{left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    parts += [
        f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}"/>',
        f'<line class="diagonal" x1="{left:.1f}" y1="{bottom:.1f}" x2="{right:.1f}" '
        f'y2="{top:.1f}"/>',
    ]
    places = [(x_of(math.log10(x)), y_of(math.log10(y))) for x, y in drawn]
    if places:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" points="{line}"/>')
    for (x, y), (expected, observed) in zip(places, drawn, strict=True):
        parts.append(
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            f"<title>expected {expected:.3g}, observed {observed:.3g}</title></circle>"
        )
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    parts += [
        f'<text class="axis" x="{middle_x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">'
        "expected (e-value)</text>",
        f'<text class="axis" transform="translate(14 {middle_y:.1f}) rotate(-90)" '
        'text-anchor="middle">observed per query</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _power(power: int) -> str:
    """10 to a power, in words of a label."""
    if -3 <= power <= 3:
        return f"{10.0**power:.{max(0, -power)}f}"
    return f'10<tspan dy="-5" font-size="9">{power:+d}</tspan>'.replace("+", "")
