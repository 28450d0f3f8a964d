"""What a miner shows of itself, and what its chances are.

The only floats of the miner are here: they are for people.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.rules.params import SCORE_UNIT

if TYPE_CHECKING:
    from pol_abci.rules.params import Amount, DifficultyParams

_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Chances of one miner, if the others stay as they are.

    `chance_per_second` is that of a step within the next second to be good at once; `share` is
    this miner's part of all steps that the difficulty suggests, at most 1; `expected_s` is when a
    lone miner of this speed should have a good ticket, None while it does not step.
    """

    chance_per_second: float
    share: float
    expected_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MinerStatus:
    """A miner at one moment. Bits as floats, times in seconds, coins in base units.

    `connection` says in words how the node is reached, `note` is the last sentence worth a line.
    Fields are None before they are known.
    """

    is_connected: bool
    connection: str
    note: str
    chain_id: str | None = None
    generation: int | None = None
    steps: int = 0
    proofs_sent: int = 0
    disconnects: int = 0
    steps_per_second: float = 0.0
    best_score_bits: float | None = None
    best_good_in_s: float | None = None
    difficulty_bits: float | None = None
    odds: Odds | None = None
    blocks_won: int = 0
    coins_won: Amount
    balance: Amount | None = None


def compute_odds(
    difficulty: DifficultyParams,
    *,
    ticket_share: float,
    equilibrium_bits: float,
    head_difficulty: int,
    difficulty_now: int,
    steps_per_second: float,
) -> Odds:
    """Estimate a miner's chances from its speed; difficulties in 1/65,536 bit.

    `ticket_share` and `equilibrium_bits` are of the chain's scheme (`learning.scheme`). Progress is
    taken for granted: P(score >= d) = 2^-d of protocol section 5.
    """
    tickets_per_s = steps_per_second * ticket_share
    target_s = difficulty.target_interval_ms / 1_000
    all_per_s = 2.0 ** (head_difficulty / SCORE_UNIT - equilibrium_bits) / target_s
    return Odds(
        chance_per_second=min(1.0, tickets_per_s * 2.0 ** (-difficulty_now / SCORE_UNIT)),
        share=min(1.0, steps_per_second / all_per_s),
        expected_s=_compute_expected_s(
            tickets_per_s,
            difficulty_now / SCORE_UNIT,
            difficulty.slope / SCORE_UNIT / target_s,
        ),
    )


def _compute_expected_s(tickets_per_s: float, bits: float, fall_bits_per_s: float) -> float | None:
    """When one good ticket is expected: t * rate = 2^(bits - fall * t), by bisection.

    Tickets found before count too: they become good as the difficulty falls.
    """
    if tickets_per_s <= 0:
        return None
    low, high = 0.0, max(bits, 0.0) / fall_bits_per_s + 1 / tickets_per_s
    for _ in range(50):
        middle = (low + high) / 2
        if middle * tickets_per_s < 2.0 ** max(0.0, bits - fall_bits_per_s * middle):
            low = middle
        else:
            high = middle
    return high


class StepRate:
    """Steps per second over the last ten seconds, from a counter that only grows."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def compute(self, now_s: float, steps: int) -> float:
        """Note that `steps` were done by `now_s` of a monotonic clock, and return the rate."""
        self._samples.append((now_s, steps))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _WINDOW_S:  # noqa: PLR2004  # a rate needs two
            self._samples.popleft()
        first_s, first_steps = self._samples[0]
        return (steps - first_steps) / (now_s - first_s) if now_s > first_s else 0.0
