"""Figures as people read them: bits, seconds, shares, durations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.client.keys import format_address
from pol_abci.rules.params import SCORE_UNIT, Address

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord


def format_bits(amount: int) -> str:
    """Show a score or difficulty, given in 1/65,536 bit, as bits with two decimals."""
    return f"{amount / SCORE_UNIT:.2f}"


def format_seconds(milliseconds: float) -> str:
    """Show milliseconds as seconds with one decimal."""
    return f"{milliseconds / 1_000:.1f} s"


def format_duration(seconds: float) -> str:
    """Show seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def format_pauses(count: int) -> str:
    """Show a number of pauses."""
    return "1 pause" if count == 1 else f"{count} pauses"


def format_share(correct: int, size: int) -> str:
    """Show correct of size as a percentage with one decimal."""
    return f"{100 * correct / size:.1f}%"


def format_proof(record: GenerationRecord) -> str:
    """Tell of a generation in one line: what an accepted proof was and made."""
    accuracy = (
        f"accuracy {format_share(record.correct_all, record.size_all)}"
        if record.has_accuracy
        else f"sample {record.correct_head} -> {record.correct_ticket}"
    )
    return (
        f"generation {record.generation}: {accuracy}, "
        f"after {format_seconds(record.interval_ms)}, "
        f"score {format_bits(record.score)} bits against {format_bits(record.difficulty)} "
        f"at its start, {record.steps} steps, height {record.height}, "
        f"miner {format_address(Address(record.miner))}"
    )
