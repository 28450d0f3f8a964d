"""Whether and when a ticket may become the head; protocol sections 6 and 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pol_abci.rules.difficulty import compute_good_time_ms

if TYPE_CHECKING:
    from pol_abci.rules.params import DifficultyParams, Params, WalkParams
    from pol_abci.rules.proof import TrueWalk


def compute_progress_delay_ms(
    walk: WalkParams, difficulty: DifficultyParams, verdict: TrueWalk
) -> int | None:
    """Shortest time after the head's at which the walk's last model is good enough; None: never.

    Under "guard" the model may classify one image of the sample less than the head for each
    target interval that has passed, up to a quarter of the sample; under "strict", the paper's
    rule, it must classify more.
    """
    missing = verdict.correct_head - verdict.correct_ticket
    if walk.progress == "strict":
        return 0 if missing < 0 else None
    if missing > walk.evaluation_samples // 4:
        return None
    return max(0, missing) * difficulty.target_interval_ms


def is_progress(
    walk: WalkParams, difficulty: DifficultyParams, verdict: TrueWalk, elapsed_ms: int
) -> bool:
    """Whether the walk's last model is good enough `elapsed_ms` after the head's block time."""
    delay_ms = compute_progress_delay_ms(walk, difficulty, verdict)
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
    delay_ms = compute_progress_delay_ms(params.walk, params.difficulty, verdict)
    if delay_ms is None:
        return None
    score_time_ms = compute_good_time_ms(
        params.difficulty, head.difficulty, head.time_ms, verdict.score
    )
    return max(score_time_ms, head.time_ms + delay_ms)
