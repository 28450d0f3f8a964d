"""The chain's state in short sentences, the same ones in `status` and in the live picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.cli.pace import compute_pace
from pol_abci.cli.words import format_bits, format_pauses, format_seconds, format_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pol_abci.client.chain import Accuracy, TicketsStatus, VerifierStatus
    from pol_abci.rules.codec import GenerationRecord


def describe_interval(
    records: Sequence[GenerationRecord], target_interval_ms: int | None = None
) -> str:
    """Tell the last interval, the pace, and the interval that the chain aims at."""
    if target_interval_ms is None or not records:
        return "no generation yet"
    parts = [f"last {format_seconds(records[-1].interval_ms)}"]
    pace = compute_pace([record.interval_ms for record in records], target_interval_ms)
    if pace is not None:
        parts.append(f"mean of {pace.count} {format_seconds(pace.mean_ms)}")
        if pace.coefficient_of_variation is not None:
            parts.append(f"CV {pace.coefficient_of_variation:.2f}")
        if pace.pauses:
            parts.append(f"{format_pauses(pace.pauses)} left out")
    parts.append(f"target {format_seconds(target_interval_ms)}")
    return " · ".join(parts)


def describe_difficulty(now: int, head: int) -> str:
    """Tell a difficulty's fall since the head was new; both in 1/65,536 bit."""
    return f"{format_bits(now)} bits now, {format_bits(head)} when the head was new"


def describe_accuracy(accuracy: Accuracy) -> str:
    """Tell how good the newest measured model is."""
    share = format_share(accuracy.correct, accuracy.size)
    return f"{share} ({accuracy.correct} of {accuracy.size}), generation {accuracy.generation}"


def describe_verifier(verifier: VerifierStatus) -> str:
    """Tell what the verifier does and has done."""
    if not verifier.alive:
        return "not running, or not ready yet"
    doing = "walking" if verifier.walking else "idle"
    parts = [doing, f"{verifier.queued} queued", f"{verifier.walked} walked"]
    parts.append(f"{verifier.false} false")
    if verifier.steps_per_second:
        parts.append(f"{verifier.steps_per_second:,.0f} steps/s")
    return " · ".join(parts)


def describe_tickets(tickets: TicketsStatus) -> str:
    """Tell which true proofs wait for the difficulty to fall to them."""
    if tickets.best_score is None:
        return "none kept"
    return f"{tickets.kept} kept, best {format_bits(tickets.best_score)} bits"
