"""True tickets of this generation, kept until they are good; protocol section 7.

A peer sends a transaction once and never again, and a mempool forgets what it refused. So a
node keeps the best ticket of each address, and hands it to its own mempool when its time comes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pol_abci.rules.params import Address
    from pol_abci.rules.proof import Claim, TrueWalk

TICKET_BYTES = 256 * 2**20
"""Of tickets that are kept: 256 of the walk scheme's longest, and fewer where a proof carries a
model. The last to become good gives way."""


@dataclass(slots=True)
class Ticket:
    """A true proof: the bytes of its transaction, its claim, what walking it found.

    `good_time_ms` is the first block time at which it is valid; `accepted_time_ms` is when
    CheckTx first said yes to it, None while it says no; `hash` is the transaction's.
    """

    raw: bytes
    claim: Claim
    verdict: TrueWalk
    good_time_ms: int
    accepted_time_ms: int | None = None
    hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.hash = hashlib.sha256(self.raw).digest()

    @property
    def rank(self) -> tuple[int, bytes]:
        """Among good tickets: the higher score, then the lower transaction hash, comes first."""
        return -self.verdict.score, self.hash

    @property
    def order(self) -> tuple[int, int, bytes]:
        """Among all: the sooner good comes first, then by rank."""
        return self.good_time_ms, *self.rank


class Tickets:
    """The best true ticket of each address, of at most `limit` addresses."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Address, Ticket] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, ticket: Ticket) -> bool:
        """Keep a ticket if it is its address's best and there is room; whether it was kept."""
        address = ticket.claim.address
        known = self._kept.get(address)
        if known is not None and known.order <= ticket.order:
            return False
        if known is None and len(self._kept) >= self._limit:
            last = max(self._kept, key=lambda kept: self._kept[kept].order)
            if self._kept[last].order <= ticket.order:
                return False
            del self._kept[last]
        self._kept[address] = ticket
        return True

    def mark_accepted(self, address: Address, raw: bytes, time_ms: int) -> None:
        """Remember that CheckTx said yes to these bytes."""
        ticket = self._get(address, raw)
        if ticket is not None and ticket.accepted_time_ms is None:
            ticket.accepted_time_ms = time_ms

    def mark_refused(self, address: Address, raw: bytes) -> None:
        """Remember that CheckTx said no: the mempool does not hold these bytes (any more)."""
        ticket = self._get(address, raw)
        if ticket is not None:
            ticket.accepted_time_ms = None

    def _get(self, address: Address, raw: bytes) -> Ticket | None:
        ticket = self._kept.get(address)
        return ticket if ticket is not None and ticket.raw == raw else None

    def get_soonest(self) -> Ticket | None:
        """Return the ticket that is good first, or None."""
        return min(self._kept.values(), key=lambda ticket: ticket.order, default=None)

    def get_best(self, time_ms: int) -> Ticket | None:
        """Return the first in rank of those that are good at a time, or None."""
        good = [ticket for ticket in self._kept.values() if ticket.good_time_ms <= time_ms]
        return min(good, key=lambda ticket: ticket.rank, default=None)

    def get_best_accepted(self, time_ms: int, accepted_until_ms: int) -> Ticket | None:
        """Return the first in rank of those good at `time_ms` and accepted by then, or None."""
        good = [
            ticket
            for ticket in self._kept.values()
            if ticket.good_time_ms <= time_ms
            and ticket.accepted_time_ms is not None
            and ticket.accepted_time_ms <= accepted_until_ms
        ]
        return min(good, key=lambda ticket: ticket.rank, default=None)

    def clear(self) -> None:
        """Drop all: their head is no longer the newest."""
        self._kept.clear()
