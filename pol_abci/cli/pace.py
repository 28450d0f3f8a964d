"""How evenly generations come: mean interval and coefficient of variation, for people."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PACE_WINDOW = 30
"""Generations that a pace is taken over; fewer while the chain is younger."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Mean interval in ms and standard deviation / mean, over `count` generations."""

    count: int
    mean_ms: float
    coefficient_of_variation: float | None


def compute_pace(intervals_ms: Sequence[int], window: int = PACE_WINDOW) -> Pace | None:
    """Compute the pace of the last `window` intervals, oldest first; None when there is none.

    The deviation is the sample's (n - 1), None for a single interval or a mean of zero.
    """
    last = intervals_ms[-window:]
    if not last:
        return None
    mean_ms = statistics.fmean(last)
    if len(last) == 1 or mean_ms == 0:
        return Pace(len(last), mean_ms, None)
    return Pace(len(last), mean_ms, statistics.stdev(last) / mean_ms)
