"""Sends the best ticket when its time has come; protocol section 7, "On a node".

A node walks a proof before it lets it travel, so a ticket is sent one verification time before it
is good, and each better one likewise. PENDING means that the node has it. A node forgets its
tickets when it restarts, and says nothing when it drops one, so a ticket is sent again as long as
the head stays: that costs the node microseconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pol_abci.client.refusals import explain_refusal
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError, TxInCache
from pol_abci.client.transactions import build_proof
from pol_abci.rules import errors
from pol_abci.rules.scheme import get_scheme

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.client.keys import AccountKey
    from pol_abci.client.rpc import RpcClient
    from pol_abci.miner.ticket import ChainClock, Ticket
    from pol_abci.rules.params import Params
    from pol_abci.rules.proof import Claim

MAX_FALSE = 3
"""Walks in a row that the node calls false before the miner gives up."""

_MARGIN_MS = 200
_STAMP_HASHES_PER_MS = 500
_RETRY_MS = 500
_MIN_RESEND_MS = 1_000


class WalksDisagree(errors.PolError):
    """The node's verifier finds other weights than this machine."""


class Reception(Enum):
    """What the node did with a ticket."""

    RECEIVED = "the node has it"
    AGAIN = "it could not take it now"
    STALE = "the head has moved"
    FALSE = "it found another walk"
    REFUSED = "it never takes it"


_RECEPTIONS: dict[int, Reception] = {
    errors.CODE_OK: Reception.RECEIVED,
    errors.PendingProof.code: Reception.RECEIVED,
    # True, and kept by the node until it is good.
    errors.DifficultyNotMet.code: Reception.RECEIVED,
    errors.NoProgress.code: Reception.RECEIVED,
    errors.SecondProof.code: Reception.RECEIVED,
    errors.ChainNotStarted.code: Reception.AGAIN,
    errors.FutureProof.code: Reception.AGAIN,  # the node is a block behind the one followed
    errors.ProofRefused.code: Reception.AGAIN,
    errors.StaleProof.code: Reception.STALE,
    errors.FalseProof.code: Reception.FALSE,
}


@dataclass(slots=True)
class Outbox:
    """The best ticket of the head and when to send it. All times in ms of the chain's clock.

    `steps_per_second` is the verifier's, 0 when it has not said.
    """

    params: Params
    steps_per_second: float = 0.0
    ticket: Ticket | None = None
    _received_ms: int | None = None
    _not_before_ms: int = 0

    def offer(self, ticket: Ticket) -> bool:
        """Take a ticket if it is better than the one held; whether it was taken."""
        if not ticket.is_better_than(self.ticket):
            return False
        self.ticket = ticket
        self._received_ms = None
        return True

    def drop(self) -> None:
        """Forget the ticket: its head is no longer the newest, or it is worthless."""
        self.ticket = None
        self._received_ms = None
        self._not_before_ms = 0

    def forget_reception(self) -> None:
        """The node may have lost what it had: it was away."""
        self._received_ms = None
        self._not_before_ms = 0

    def compute_due_ms(self) -> int | None:
        """When to send the ticket next; None without one."""
        if self.ticket is None:
            return None
        if self._received_ms is None:
            return max(
                self.ticket.good_time_ms - self.compute_lead_ms(self.ticket), self._not_before_ms
            )
        resend_ms = max(_MIN_RESEND_MS, self.params.difficulty.target_interval_ms // 4)
        return max(self.ticket.good_time_ms, self._received_ms) + resend_ms

    def compute_lead_ms(self, ticket: Ticket) -> int:
        """How long before it is good a ticket is sent: stamp, verification, and a margin."""
        target_ms = self.params.difficulty.target_interval_ms
        stamp_ms = (1 << get_scheme(self.params).stamp_bits) // _STAMP_HASHES_PER_MS
        if self.steps_per_second <= 0:
            return target_ms // 4 + stamp_ms
        walk_ms = int(1_000 * ticket.claim.steps / self.steps_per_second)
        return min(walk_ms + stamp_ms + _MARGIN_MS, target_ms)

    def process_reception(self, ticket: Ticket, reception: Reception, now_ms: int) -> None:
        """Take note of the answer to `ticket`, unless a better one or another head came since."""
        if self.ticket is not ticket:
            return
        if reception is Reception.RECEIVED:
            self._received_ms = now_ms
        elif reception is Reception.AGAIN:
            self._not_before_ms = now_ms + _RETRY_MS
        else:
            self.drop()


class Submitter:
    """Sends what the outbox holds, when it is due.

    `note` is called with sentences for people; `on_reception` with each final answer, so that
    the follower looks again when the head has moved or the walks disagree. `sent` counts what was
    offered to the node.
    """

    def __init__(
        self,
        rpc: RpcClient,
        key: AccountKey,
        *,
        chain_id: str,
        params: Params,
        clock: ChainClock,
        note: Callable[[str], None],
        on_reception: Callable[[Reception], None],
    ) -> None:
        self.outbox = Outbox(params)
        self.sent = 0
        self._rpc, self._key, self._chain_id = rpc, key, chain_id
        self._params, self._clock = params, clock
        self._note, self._on_reception = note, on_reception
        self._changed = asyncio.Event()
        self._raw: tuple[Claim, bytes] | None = None
        self._false_in_a_row = 0

    def offer(self, ticket: Ticket) -> None:
        """Send this ticket when it is due, if it is better than the one held."""
        if self.outbox.offer(ticket):
            self._changed.set()

    def drop(self) -> None:
        """Forget the ticket, since the head has moved."""
        self.outbox.drop()

    def reconnect(self) -> None:
        """Send the ticket again: the node was away."""
        self.outbox.forget_reception()
        self._changed.set()

    async def run(self) -> None:
        """Send tickets until cancelled.

        Raises
        ------
        WalksDisagree
            The node called several walks in a row false.
        """
        while True:
            self._changed.clear()
            due_ms = self.outbox.compute_due_ms()
            wait_ms = None if due_ms is None else due_ms - self._clock.now_ms()
            ticket = self.outbox.ticket
            if ticket is None or wait_ms is None or wait_ms > 0:
                await self._wait(wait_ms)
                continue
            reception = await self._send(ticket)
            self.outbox.process_reception(ticket, reception, self._clock.now_ms())

    async def _wait(self, wait_ms: int | None) -> None:
        try:
            async with asyncio.timeout(None if wait_ms is None else wait_ms / 1_000):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _send(self, ticket: Ticket) -> Reception:
        raw = await self._build(ticket)
        self.sent += 1
        try:
            broadcast = await self._rpc.broadcast_tx_sync(raw)
        except TxInCache:
            return Reception.RECEIVED
        except NodeUnreachable:
            return Reception.AGAIN  # the follower says so
        except RpcError as error:
            self._note(f"could not send the ticket: {error}")
            return Reception.AGAIN
        reception = _RECEPTIONS.get(broadcast.code, Reception.REFUSED)
        if reception is Reception.RECEIVED:
            self._false_in_a_row = 0
        elif reception is Reception.FALSE:
            self._count_false(broadcast.log)
        elif reception is not Reception.STALE:
            refusal = explain_refusal(broadcast.code, broadcast.log)
            self._note(f"the node refused the ticket: {refusal}")
        self._on_reception(reception)
        return reception

    async def _build(self, ticket: Ticket) -> bytes:
        """Stamp and sign a ticket once, off the event loop: a stamp takes a while."""
        if self._raw is None or self._raw[0] is not ticket.claim:
            raw = await asyncio.to_thread(
                build_proof,
                self._key,
                self._chain_id,
                ticket.claim,
                seed=ticket.seed,
                stamp_bits=get_scheme(self._params).stamp_bits,
            )
            self._raw = (ticket.claim, raw)
        return self._raw[1]

    def _count_false(self, log: str) -> None:
        self._false_in_a_row += 1
        if self._false_in_a_row == MAX_FALSE:
            raise WalksDisagree(
                f"the node called {MAX_FALSE} of this machine's walks false, lastly: {log}; "
                f"this machine does not compute exactly, or the node does not: run `make test` on "
                f"both"
            )
        self._note(f"the node calls the ticket false ({log}); starting from a proven head again")
