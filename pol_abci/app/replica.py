"""What the four connections share: the committed state, the mempool's fork of it, the clock."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from pol_abci.app.retention import Retention
from pol_abci.app.tickets import TICKET_BYTES, Ticket, Tickets
from pol_abci.rules import keys
from pol_abci.rules.codec import GenerationRecord, ValidatorSet
from pol_abci.rules.ledger import find_account
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.signing import authenticate
from pol_abci.rules.state import Overlay, RememberedState
from pol_abci.rules.transition import ChainContext, get_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pol_abci.app.verifier import Verifier
    from pol_abci.rules.codec import Account, Head, SignedTx
    from pol_abci.rules.genesis import Genesis
    from pol_abci.rules.params import Address
    from pol_abci.rules.proof import Claim, TrueWalk
    from pol_abci.rules.state import StateReader
    from pol_abci.store.store import Store
    from pol_abci.store.versions import Pending

log = structlog.get_logger(__name__)

AUTHENTICATED_BYTES = 32 * 2**20
"""Memory for transactions whose signature is known to be right."""
AUTHENTICATED_OVERHEAD_BYTES = 1_024
"""What an entry of theirs takes beside the transaction's own bytes, rounded up."""


def read_clock_ms() -> int:
    """Return this machine's time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Replica:
    """One node's copy of the chain's state machine, and what it knows beside the state.

    `state` is the newest committed state (after InitChain and before the first Commit: genesis);
    `mempool_state` a fork of it that CheckTx applies transfers to; `head` the newest generation;
    `time_ms` the newest header time that this node has seen; `started_ms` when it came up, and
    `committed_ms` when it last committed a block, or came up, both by its own clock.
    """

    def __init__(
        self,
        *,
        chain_id: str,
        genesis: Genesis,
        initial_height: int,
        store: Store,
        verifier: Verifier,
        retention: Retention = Retention(),  # noqa: B008 (it is frozen)
        clock_ms: Callable[[], int] = read_clock_ms,
    ) -> None:
        self.chain = ChainContext(chain_id, genesis.params)
        self.genesis = genesis
        self.initial_height = initial_height
        self.store = store
        self.verifier = verifier
        self.retention = retention
        self.tickets = Tickets(max(1, TICKET_BYTES // self.chain.scheme.max_tx_bytes))
        self.time_ms = 0
        self.on_change: Callable[[], None] = lambda: None
        self._clock_ms = clock_ms
        self.started_ms = self.committed_ms = clock_ms()
        self._authenticated: OrderedDict[bytes, SignedTx] = OrderedDict()
        self._authenticated_bytes = 0
        verifier.on_true_walk = self.keep_ticket
        self._stand_at_store()

    # -- state

    def _stand_at_store(self) -> None:
        """Go on from what the store has, which may be nothing."""
        self.state = RememberedState(self.store.state())
        self.mempool_state = Overlay(self.state)
        if self.store.height:
            self.time_ms = self.get_head().time_ms
            self._follow_head(self.store.weights())

    def begin(self, state: StateReader, weights: bytes) -> None:
        """Stand at genesis: `state` is what InitChain made, `weights` are W_0."""
        self.state = RememberedState(state)
        self.mempool_state = Overlay(self.state)
        self._follow_head(weights)

    def commit(
        self,
        pending: Pending,
        state: Overlay,
        height: int,
        accepted: GenerationRecord | None,
        weights: bytes | None,
    ) -> None:
        """Write a decided block's state and go on from it. Nothing is written if this raises.

        `pending` is `state`, an overlay of this one, as the store has prepared it.
        """
        assert (accepted is None) == (weights is None)
        record = None if accepted is None else (accepted.generation, accepted.encode())
        self.store.commit(pending, height, record)
        self.committed_ms = self.get_now_ms()
        self.state = self.state.advance(self.store.state(), state)
        self.mempool_state = Overlay(self.state)
        if weights is not None:
            self._follow_head(weights)
        self.on_change()

    def restore(
        self, height: int, app_hash: bytes, read_chunks: Callable[[], Iterable[bytes]]
    ) -> None:
        """Stand at a snapshot's height; see `Store.restore`. Nothing changes if this raises."""
        self.store.restore(height, app_hash, read_chunks)
        self.committed_ms = self.get_now_ms()
        self._stand_at_store()
        self.on_change()

    def get_head(self) -> Head:
        """Return the newest generation's record."""
        return get_head(self.state)

    def get_account(self, address: Address) -> Account | None:
        """Return an account, or None for one that nothing was ever sent to."""
        return find_account(self.state, address)

    def get_validator_keys(self) -> frozenset[bytes]:
        """Return the consensus keys of the validators last given to CometBFT."""
        data = self.state.get(keys.validators())
        validators = () if data is None else ValidatorSet.decode(data).validators
        return frozenset(validator.consensus_key for validator in validators)

    def _follow_head(self, weights: bytes) -> None:
        head = self.get_head()
        self.tickets.clear()
        self.verifier.set_head(head.generation, head.seed, weights)
        self.verifier.measure_accuracy(head.generation, weights, self._record_accuracy)

    def _record_accuracy(self, generation: int, correct: int, size: int) -> None:
        data = self.store.get_record(generation)
        if data is None:  # of generation 0, or made before this node joined by a snapshot
            return
        record = replace(
            GenerationRecord.decode(data), has_accuracy=True, correct_all=correct, size_all=size
        )
        self.store.put_record(generation, record.encode())

    def find_accuracy(self) -> GenerationRecord | None:
        """Return the newest generation whose accuracy is known, if one of the last three is."""
        generation = self.get_head().generation
        for candidate in range(generation, max(0, generation - 3), -1):
            data = self.store.get_record(candidate)
            record = None if data is None else GenerationRecord.decode(data)
            if record is not None and record.has_accuracy:
                return record
        return None

    # -- transactions

    def authenticate(self, raw: bytes) -> SignedTx:
        """Decode a transaction and check its signature, once for each that is right.

        Raises
        ------
        InvalidTx
            It is malformed, too long, or not signed by its key for this chain.
        """
        key = hashlib.sha256(raw).digest()
        known = self._authenticated.get(key)
        if known is not None:
            self._authenticated.move_to_end(key)
            return known
        tx = authenticate(self.chain.chain_id, raw, self.chain.scheme.max_tx_bytes)
        self._authenticated[key] = tx
        self._authenticated_bytes += _compute_entry_bytes(tx)
        while self._authenticated_bytes > AUTHENTICATED_BYTES:
            _, dropped = self._authenticated.popitem(last=False)
            self._authenticated_bytes -= _compute_entry_bytes(dropped)
        return tx

    def get_now_ms(self) -> int:
        """Return the time that CheckTx goes by: the clock's, never before the newest header's."""
        return max(self._clock_ms(), self.time_ms)

    def keep_ticket(self, claim: Claim, raw: bytes, verdict: TrueWalk) -> None:
        """Keep a true walk until it is good, if waiting makes it good."""
        head, params = self.get_head(), self.chain.params
        if claim.generation != head.generation:
            return
        good_time_ms = compute_ticket_time_ms(params, head, verdict)
        if good_time_ms is None:
            log.info("a true walk makes too little progress", miner=claim.address.hex())
            return
        if self.tickets.keep(Ticket(raw, claim.key, verdict, good_time_ms)):
            self.on_change()


def _compute_entry_bytes(tx: SignedTx) -> int:
    """Memory that a cached transaction is taken to need: a body may be as short as 2 bytes."""
    return len(tx.body_bytes) + AUTHENTICATED_OVERHEAD_BYTES
