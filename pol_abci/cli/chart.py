"""A bar chart made of block characters, an eighth of a row fine."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"
FULL = 8


def draw_bar(share: float, width: int) -> str:
    """Draw a horizontal bar of `width` columns, filled to `share` in 0 .. 1, clipped."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "━" * filled + " " * (width - filled)


def compute_columns(shares: Sequence[float], width: int) -> list[float]:
    """Fit a series to at most `width` columns: neighbours are averaged where it is longer."""
    if len(shares) <= width:
        return list(shares)
    edges = [column * len(shares) // width for column in range(width + 1)]
    return [statistics.fmean(shares[first:end]) for first, end in pairwise(edges)]


def draw_columns(shares: Sequence[float], width: int, height: int) -> list[str]:
    """Draw shares in 0 .. 1, oldest first, as `height` lines of `width` columns, top first.

    A short series is drawn with wider columns, at most three characters each.
    """
    columns = compute_columns(shares, width)
    column_width = min(3, max(1, width // max(len(columns), 1)))
    levels = [round(min(max(share, 0.0), 1.0) * height * FULL) for share in columns]
    lines = []
    for row in range(height):
        floor = (height - 1 - row) * FULL
        cells = (EIGHTHS[min(max(level - floor, 0), FULL)] * column_width for level in levels)
        lines.append("".join(cells).ljust(width))
    return lines
