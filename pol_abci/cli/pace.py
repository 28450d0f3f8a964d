"""How evenly generations come: mean interval and coefficient of variation, for people."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PACE_WINDOW = 30
"""Generations that a pace is taken over; fewer while the chain is younger."""
PAUSE_INTERVALS = 5
"""An interval of more than this many target intervals is a pause: nobody mined. The difficulty's
fall within a generation leaves a running chain no such wait."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Mean interval in ms and standard deviation / mean, over `count` generations.

    `pauses` more in the same window are left out.
    """

    count: int
    mean_ms: float
    coefficient_of_variation: float | None
    pauses: int


def compute_pace(
    intervals_ms: Sequence[int], target_interval_ms: int, window: int = PACE_WINDOW
) -> Pace | None:
    """Compute the pace of the last `window` intervals, oldest first; None when there is none.

    The deviation is the sample's (n - 1), None for a single interval or a mean of zero.
    """
    last = intervals_ms[-window:]
    running = [each for each in last if each <= PAUSE_INTERVALS * target_interval_ms]
    if not running:
        return None
    mean_ms, pauses = statistics.fmean(running), len(last) - len(running)
    if len(running) == 1 or mean_ms == 0:
        return Pace(len(running), mean_ms, None, pauses)
    return Pace(len(running), mean_ms, statistics.stdev(running) / mean_ms, pauses)
