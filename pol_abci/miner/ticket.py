"""A ticket worth keeping, the head that it extends, and the time as the chain counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.task import Head
    from pol_abci.rules.proof import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningHead:
    """The newest generation as the miner holds it: the model, and what its difficulty falls from.

    `difficulty` is d_n in 1/65,536 bit, `time_ms` is t_n.
    """

    model: Head
    weights_root: bytes
    difficulty: int
    time_ms: int

    @property
    def generation(self) -> int:
        """The generation's number."""
        return self.model.generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A true walk that is good, or becomes so at `good_time_ms` if the head stays.

    `seed` is s_n of the generation that it extends, which its stamp covers.
    """

    claim: Claim
    seed: bytes
    score: int
    good_time_ms: int

    def is_better_than(self, other: Ticket | None) -> bool:
        """Whether it is good sooner; of those good at once, whether its score goes first."""
        return is_better(self.good_time_ms, self.score, other)


def is_better(good_time_ms: int, score: int, other: Ticket | None) -> bool:
    """Whether a ticket of that time and score would be better than another one, or none."""
    return other is None or (good_time_ms, -score) < (other.good_time_ms, -other.score)


class ChainClock:
    """Now, as far as difficulty is concerned: the own clock, or the newest header's if later.

    A machine whose clock is behind still sees the chain's time pass, block by block.
    """

    def __init__(self, read_own_ms: Callable[[], int] | None = None) -> None:
        self._read_own_ms = read_own_ms or _read_own_ms
        self._newest_header_ms = 0

    def observe(self, header_time_ms: int) -> None:
        """Take note of a header's time."""
        self._newest_header_ms = max(self._newest_header_ms, header_time_ms)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return max(self._read_own_ms(), self._newest_header_ms)


def _read_own_ms() -> int:
    return time.time_ns() // 10**6
