"""The mempool connection: CheckTx.

Nothing is walked here: CometBFT waits for each answer before it commits. A proof is answered
from the verifier's results, or with PENDING, which queues it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.app.walk_queue import Standing
from pol_abci.rules.codec import ProofMessage
from pol_abci.rules.errors import (
    CODE_OK,
    CODESPACE,
    DifficultyNotMet,
    InvalidTx,
    NoProgress,
    PendingProof,
)
from pol_abci.rules.proof import TrueWalk
from pol_abci.rules.transition import check_tx

if TYPE_CHECKING:
    from pol_abci.app.replica import Replica
    from pol_abci.rules.codec import SignedTx
    from pol_abci.rules.params import Address


class Mempool:
    """Answers whether a transaction may wait for a block."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def check_tx(self, request: abci.RequestCheckTx) -> abci.ResponseCheckTx:
        """Check a new transaction, or one that waits again after a block."""
        replica = self._replica
        try:
            tx = replica.authenticate(request.tx)
            self._check(tx, request.tx)
        except InvalidTx as error:
            return abci.ResponseCheckTx(code=error.code, codespace=CODESPACE, log=str(error))
        return abci.ResponseCheckTx(code=CODE_OK)

    def _check(self, tx: SignedTx, raw: bytes) -> None:
        replica = self._replica
        now_ms = replica.get_now_ms()
        try:
            check_tx(replica.mempool_state, replica.chain, tx, now_ms, replica.verifier.verdicts)
        except PendingProof:
            assert isinstance(tx.message, ProofMessage)
            standing = self._get_standing(tx.address)
            replica.tickets.mark_refused(tx.address, raw)
            replica.verifier.enqueue(tx.message.claim, raw, standing)
            raise
        except InvalidTx as error:
            if isinstance(error, (DifficultyNotMet, NoProgress)):
                self._keep_ticket(tx, raw)
            replica.tickets.mark_refused(tx.address, raw)
            raise
        if isinstance(tx.message, ProofMessage):
            self._keep_ticket(tx, raw)
            replica.tickets.mark_accepted(tx.address, raw, now_ms)

    def _keep_ticket(self, tx: SignedTx, raw: bytes) -> None:
        """Keep a true proof whose walk a proposal had redone before these bytes came here."""
        assert isinstance(tx.message, ProofMessage)
        claim = tx.message.claim
        verdict = self._replica.verifier.verdicts[claim]
        assert isinstance(verdict, TrueWalk)
        self._replica.keep_ticket(claim, raw, verdict)

    def _get_standing(self, address: Address) -> Standing:
        account = self._replica.get_account(address)
        if account is None:
            return Standing.UNKNOWN
        if account.consensus_key in self._replica.get_validator_keys():
            return Standing.HAS_SLOTS
        return Standing.HAS_BALANCE if account.balance else Standing.UNKNOWN
