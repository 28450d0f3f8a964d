"""Whether a ticket's model is good enough to become the head; protocol section 6."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pol_abci.rules.params import DifficultyParams, WalkParams
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
