"""Which walk the verifier redoes next: policy of this node, protocol section 7.

Bounded; one waiting walk an address. Addresses with fewer walks done in this generation go first,
so that nobody's second walk goes before another's first; among those, addresses with slots, then
with a balance, then unknown ones, each in order of arrival. An address whose walk was false is not
walked again in that generation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from pol_abci.rules.errors import ProofRefused

if TYPE_CHECKING:
    from pol_abci.rules.params import Address
    from pol_abci.rules.proof import Claim

QUEUE_BYTES = 256 * 2**20
"""Of proofs that wait: 256 of the walk scheme's longest, and fewer where a proof carries a model.
A full queue gives up its last one for a better address."""


class Standing(IntEnum):
    """What an address has at stake, the best first."""

    HAS_SLOTS = 0
    HAS_BALANCE = 1
    UNKNOWN = 2


@dataclass(slots=True)
class _Waiting:
    claim: Claim
    raw: bytes
    rank: tuple[int, Standing, int]


@dataclass(slots=True)
class WalkQueue:
    """Walks of one generation that wait for the verifier, at most `limit`."""

    limit: int
    _waiting: dict[Address, _Waiting] = field(default_factory=dict)
    _refused: set[Address] = field(default_factory=set)
    _walked: Counter[Address] = field(default_factory=Counter)
    _arrivals: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, claim: Claim, raw: bytes, standing: Standing) -> None:
        """Take a walk in; a newer one of its address takes the older one's place in line.

        Raises
        ------
        ProofRefused
            The address has been false in this generation, or the queue is full of others as good.
        """
        if claim.address in self._refused:
            raise ProofRefused(
                "a walk of this address was false in this generation: this node walks it again "
                "from the next generation on"
            )
        known = self._waiting.get(claim.address)
        if known is not None:
            known.claim, known.raw = claim, raw
            return
        self._arrivals += 1
        rank = (self._walked[claim.address], standing, self._arrivals)
        if len(self._waiting) >= self.limit:
            last = max(self._waiting.values(), key=lambda waiting: waiting.rank)
            if rank > last.rank:
                raise ProofRefused(
                    f"{self.limit} walks wait for verification at this node: send it again later"
                )
            del self._waiting[last.claim.address]
        self._waiting[claim.address] = _Waiting(claim, raw, rank)

    def pop(self) -> tuple[Claim, bytes] | None:
        """Take out the next walk, or None when nothing waits."""
        if not self._waiting:
            return None
        best = min(self._waiting.values(), key=lambda waiting: waiting.rank)
        del self._waiting[best.claim.address]
        self._walked[best.claim.address] += 1
        return best.claim, best.raw

    def refuse(self, address: Address) -> None:
        """Walk nothing more of an address until `clear`."""
        self._refused.add(address)
        self._waiting.pop(address, None)

    def clear(self) -> None:
        """Begin a new generation: what waits starts from an old head."""
        self._waiting.clear()
        self._refused.clear()
        self._walked.clear()
