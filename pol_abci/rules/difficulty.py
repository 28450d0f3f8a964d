"""Difficulty of a generation, and how it falls while nobody meets it; protocol section 8.

All in 1/65,536 bit and in milliseconds of block headers, with floor division, of negatives too.
Genesis sees to it that intervals, tau and slope are at least 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.params import MAX_DIFFICULTY, SCORE_UNIT

if TYPE_CHECKING:
    from pol_abci.rules.params import DifficultyParams


def compute_next_difficulty(params: DifficultyParams, previous: int, interval_ms: int) -> int:
    """d_n from d_{n-1} and the time that generation n took: a bit for each tau of lateness."""
    tau_ms = params.tau_intervals * params.target_interval_ms
    change = SCORE_UNIT * (params.target_interval_ms - interval_ms) // tau_ms
    return min(max(0, previous + max(change, -params.max_fall)), MAX_DIFFICULTY)


def compute_difficulty(
    params: DifficultyParams, head_difficulty: int, head_time_ms: int, now_ms: int
) -> int:
    """d(now): what a ticket must score to be accepted in a block of time `now_ms`."""
    fall = params.slope * (now_ms - head_time_ms) // params.target_interval_ms
    return max(0, head_difficulty - fall)


def compute_good_time_ms(
    params: DifficultyParams, head_difficulty: int, head_time_ms: int, score: int
) -> int:
    """The first millisecond, from the head's time on, at which d(now) <= score."""
    missing = max(0, head_difficulty - score)
    return head_time_ms + -(-missing * params.target_interval_ms // params.slope)
