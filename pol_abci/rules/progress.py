"""Whether and when a ticket may become the head; protocol sections 6, 8 and 14."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pol_abci.rules.difficulty import compute_good_time_ms
from pol_abci.rules.scheme import get_scheme

if TYPE_CHECKING:
    from pol_abci.rules.params import DifficultyParams, Params
    from pol_abci.rules.proof import TrueWalk
    from pol_abci.rules.scheme import Scheme


def is_progress(
    scheme: Scheme, difficulty: DifficultyParams, verdict: TrueWalk, elapsed_ms: int
) -> bool:
    """Whether the new model is good enough `elapsed_ms` after the head's block time."""
    delay_ms = scheme.compute_progress_delay_ms(difficulty, verdict)
    return delay_ms is not None and elapsed_ms >= delay_ms


class TimedHead(Protocol):
    """What waiting for a ticket depends on: d_n in 1/65,536 bit and t_n."""

    @property
    def difficulty(self) -> int:
        """d_n."""

    @property
    def time_ms(self) -> int:
        """t_n."""


def compute_ticket_time_ms(params: Params, head: TimedHead, verdict: TrueWalk) -> int | None:
    """First block time at which a ticket wins: difficulty and progress both allow it.

    None when no time makes up for the images that it classifies less.
    """
    delay_ms = get_scheme(params).compute_progress_delay_ms(params.difficulty, verdict)
    if delay_ms is None:
        return None
    score_time_ms = compute_good_time_ms(
        params.difficulty, head.difficulty, head.time_ms, verdict.score
    )
    return max(score_time_ms, head.time_ms + delay_ms)
