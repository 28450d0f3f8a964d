"""The consensus connection: proposals, blocks, commits.

Every method runs the same `rules.transition` on a fork of the committed state. Only the fork of a
finalized block is kept, and only Commit writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING

import structlog

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.abci.generated.types import validator_pb2
from pol_abci.app.retention import KEEP_ALL
from pol_abci.app.verifier import HeadMoved, OtherWeights
from pol_abci.rules.codec import ProofMessage
from pol_abci.rules.errors import CODE_FAILED, CODE_OK, GenesisError, InvalidTx, SecondProof
from pol_abci.rules.genesis import compute_genesis_digest, decode_genesis, process_genesis
from pol_abci.rules.merkle import encode_uvarint
from pol_abci.rules.params import PROTOCOL_VERSION
from pol_abci.rules.state import Overlay
from pol_abci.rules.transition import (
    BlockContext,
    BlockOutcome,
    CommitVote,
    check_claim,
    get_head,
    process_block,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from google.protobuf.timestamp_pb2 import Timestamp

    from pol_abci.app.replica import Replica
    from pol_abci.rules.codec import GenerationRecord, SignedTx
    from pol_abci.rules.proof import Claim, WalkVerdict
    from pol_abci.rules.transition import Event, ValidatorUpdate
    from pol_abci.store.versions import Pending

log = structlog.get_logger(__name__)

ACCEPTANCE_SHARE = 16
"""A proposal takes tickets accepted until this part of a target interval after its time."""


@dataclass(frozen=True, slots=True)
class _Executed:
    """A block run on a fork of the committed state, for the next call about the same block."""

    block: BlockContext
    raws: tuple[bytes, ...]
    txs: Sequence[SignedTx | InvalidTx]
    state: Overlay
    outcome: BlockOutcome


@dataclass(frozen=True, slots=True)
class _Decided:
    """A finalized block that waits for Commit."""

    height: int
    state: Overlay
    pending: Pending
    accepted: GenerationRecord | None
    weights: bytes | None


@dataclass(frozen=True, slots=True)
class _Genesis:
    """What InitChain made; the first Commit writes it together with its block."""

    changes: dict[bytes, bytes | None]
    weights: bytes


class Consensus:
    """Proposes, judges, executes and commits blocks."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._genesis: _Genesis | None = None
        self._decided: _Decided | None = None
        self._executed: _Executed | None = None

    # -- InitChain

    async def init_chain(self, request: abci.RequestInitChain) -> abci.ResponseInitChain:
        """Begin the chain that this node's home was made for.

        Raises
        ------
        GenesisError
            CometBFT's genesis is another one than the application's.
        """
        replica = self._replica
        self._check_genesis(request)
        weights = await replica.verifier.compute_initial_weights()
        state = Overlay(replica.store.state())
        updates = process_genesis(state, replica.chain.chain_id, replica.genesis)
        self._genesis = _Genesis(state.changes, weights)
        self._executed = None
        replica.begin(state, weights)
        log.info("the chain begins", chain_id=request.chain_id, height=request.initial_height)
        return abci.ResponseInitChain(
            validators=_encode_updates(updates),
            app_hash=replica.store.prepare(state.changes, weights).app_hash,
        )

    def _check_genesis(self, request: abci.RequestInitChain) -> None:
        replica = self._replica
        if request.chain_id != replica.chain.chain_id:
            raise GenesisError(
                f"CometBFT starts chain {request.chain_id!r}, this home is of "
                f"{replica.chain.chain_id!r}: give both the same genesis.json"
            )
        given = decode_genesis(request.app_state_bytes)
        if compute_genesis_digest(given) != compute_genesis_digest(replica.genesis):
            raise GenesisError(
                "the app_state of CometBFT's genesis.json is not the one of this home: give both "
                "the same genesis.json"
            )
        if request.initial_height != replica.initial_height:
            raise GenesisError(
                f"CometBFT starts at height {request.initial_height}, this home at "
                f"{replica.initial_height}: give both the same genesis.json"
            )
        version = request.consensus_params.version.app
        if version != PROTOCOL_VERSION:
            raise GenesisError(
                f"consensus_params.version.app of genesis.json is {version}, this program "
                f"speaks version {PROTOCOL_VERSION}"
            )

    # -- proposals

    def prepare_proposal(
        self, request: abci.RequestPrepareProposal
    ) -> abci.ResponsePrepareProposal:
        """Choose a block: the best ticket that is good now, then what else still holds.

        Nothing is verified here; a late proposal costs the whole network a round.
        """
        replica = self._replica
        block = self._get_context(request, request.local_last_commit.votes)
        replica.time_ms = max(replica.time_ms, block.time_ms)
        interval_ms = replica.chain.params.difficulty.target_interval_ms
        ticket = replica.tickets.get_best_accepted(
            block.time_ms, block.time_ms + interval_ms // ACCEPTANCE_SHARE
        )
        proofs = {} if ticket is None else {ticket.raw: ticket}
        verdicts = {} if ticket is None else {ticket.claim: ticket.verdict}
        raws: list[bytes] = []
        txs: list[SignedTx] = []
        room = request.max_tx_bytes
        for raw in (*proofs, *(raw for raw in request.txs if raw not in proofs)):
            size = _compute_encoded_size(raw)
            if size > room:
                continue
            try:
                tx = replica.authenticate(raw)
            except InvalidTx:
                continue
            if isinstance(tx.message, ProofMessage) and raw not in proofs:
                continue
            raws.append(raw)
            txs.append(tx)
            room -= size
        state = Overlay(replica.state)
        outcome = process_block(state, replica.chain, block, txs, verdicts)
        # What fails has changed nothing: without it the block comes out the same.
        holds = [result.error is None for result in outcome.txs]
        chosen = tuple(compress(raws, holds))
        outcome = replace(outcome, txs=tuple(compress(outcome.txs, holds)))
        txs = list(compress(txs, holds))
        self._executed = _Executed(block, chosen, txs, state, outcome)
        return abci.ResponsePrepareProposal(txs=chosen)

    async def process_proposal(
        self, request: abci.RequestProcessProposal
    ) -> abci.ResponseProcessProposal:
        """Accept a block in which every transaction holds, with at most one proof."""
        block = self._get_context(request, request.proposed_last_commit.votes)
        self._replica.time_ms = max(self._replica.time_ms, block.time_ms)
        raws = tuple(request.txs)
        if self._find_executed(block, raws) is not None:
            return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.ACCEPT)
        txs: list[SignedTx] = []
        for raw in raws:
            try:
                txs.append(self._replica.authenticate(raw))
            except InvalidTx as error:
                return _reject(block, raw, error)
        if sum(isinstance(tx.message, ProofMessage) for tx in txs) > 1:
            # told before any is walked: a proposer could send thousands
            return _reject(block, b"", SecondProof("a block holds at most one proof"))
        try:
            executed = await self._execute(block, raws, txs)
        except HeadMoved:  # the CometBFT that has asked is gone; another has gone on
            return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.REJECT)
        for raw, result in zip(raws, executed.outcome.txs, strict=True):
            if result.error is not None:
                return _reject(block, raw, result.error)
        self._executed = executed
        return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.ACCEPT)

    # -- blocks

    async def finalize_block(
        self, request: abci.RequestFinalizeBlock
    ) -> abci.ResponseFinalizeBlock:
        """Execute a decided block on a fork that Commit will write."""
        replica = self._replica
        block = self._get_context(request, request.decided_last_commit.votes)
        replica.time_ms = max(replica.time_ms, block.time_ms)
        raws = tuple(request.txs)
        executed = self._find_executed(block, raws)
        if executed is None:
            executed = await self._execute(block, raws, self._decode(raws), is_decided=True)
        outcome = executed.outcome
        for result in outcome.txs:
            if result.error is not None:
                # No proposal with such a transaction is accepted here: others see it otherwise,
                # or more than two thirds of the power are not honest.
                log.error("a decided block holds a failing transaction", reason=str(result.error))
        changes, weights = executed.state.changes, None
        if outcome.accepted is not None:
            claim = _get_claim(executed.txs, outcome.accepted.tx_hash)
            weights = await replica.verifier.compute_weights(claim)
        written = weights
        if self._genesis is not None and not replica.store.height:  # no snapshot came since
            changes = self._genesis.changes | changes
            written = weights or self._genesis.weights
        pending = replica.store.prepare(changes, written)
        # Verify the weights are the head's, before the chain hears of them
        if pending.weights_root != get_head(executed.state).weights_root:
            raise OtherWeights
        self._decided = _Decided(request.height, executed.state, pending, outcome.accepted, weights)
        response = abci.ResponseFinalizeBlock(
            tx_results=[_encode_result(result.error, result.events) for result in outcome.txs],
            validator_updates=_encode_updates(outcome.validator_updates),
            app_hash=pending.app_hash,
        )
        _add_events(response.events, outcome.events)
        return response

    def commit(self) -> abci.ResponseCommit:
        """Write the decided block's state: all of it, or none."""
        decided = self._decided
        assert decided is not None, "Commit without FinalizeBlock"
        self._replica.commit(
            decided.pending, decided.state, decided.height, decided.accepted, decided.weights
        )
        self._genesis = self._decided = self._executed = None
        if (accepted := decided.accepted) is not None:
            log.info(
                "a new generation",
                generation=accepted.generation,
                height=decided.height,
                miner=accepted.miner.hex(),
                steps=accepted.steps,
                interval_ms=accepted.interval_ms,
            )
        return abci.ResponseCommit(retain_height=self._compute_retain_height(accepted))

    def _compute_retain_height(self, accepted: GenerationRecord | None) -> int:
        """Blocks go when there is a new generation, several at once."""
        if accepted is None:
            return KEEP_ALL
        return self._replica.retention.compute_retain_height(self._replica.store, accepted)

    # -- shared by both

    def _decode(self, txs: Iterable[bytes]) -> list[SignedTx | InvalidTx]:
        decoded: list[SignedTx | InvalidTx] = []
        for raw in txs:
            try:
                decoded.append(self._replica.authenticate(raw))
            except InvalidTx as error:
                decoded.append(error)
        return decoded

    async def _execute(
        self,
        block: BlockContext,
        raws: tuple[bytes, ...],
        txs: Sequence[SignedTx | InvalidTx],
        *,
        is_decided: bool = False,
    ) -> _Executed:
        """Have the block's proofs walked, then run the block on a fork."""
        replica = self._replica
        verdicts: dict[Claim, WalkVerdict] = {}
        for tx in txs:
            if isinstance(tx, InvalidTx) or not isinstance(tx.message, ProofMessage):
                continue
            try:
                claim = check_claim(replica.state, replica.chain, tx)
            except InvalidTx:
                continue  # process_block finds the same, before it asks for a verdict
            verdicts[claim] = await replica.verifier.verify(claim, is_decided=is_decided)
        state = Overlay(replica.state)
        outcome = process_block(state, replica.chain, block, txs, verdicts)
        return _Executed(block, raws, txs, state, outcome)

    def _find_executed(self, block: BlockContext, raws: tuple[bytes, ...]) -> _Executed | None:
        """Give what was made of this very block, if it was the last to hold."""
        last = self._executed
        is_same = last is not None and (last.block, last.raws) == (block, raws)
        return last if is_same else None

    def _get_context(
        self,
        request: abci.RequestPrepareProposal
        | abci.RequestProcessProposal
        | abci.RequestFinalizeBlock,
        votes: Iterable[abci.VoteInfo | abci.ExtendedVoteInfo],
    ) -> BlockContext:
        return BlockContext(
            height=request.height,
            initial_height=self._replica.initial_height,
            time_ms=_compute_time_ms(request.time),
            proposer=request.proposer_address,
            votes=tuple(
                CommitVote(
                    vote.validator.address,
                    vote.block_id_flag != validator_pb2.BLOCK_ID_FLAG_ABSENT,
                )
                for vote in votes
            ),
            misbehaviour=tuple(each.validator.address for each in request.misbehavior),
        )


def _compute_time_ms(time: Timestamp) -> int:
    """Header time in whole milliseconds, protocol section 8."""
    return time.seconds * 1_000 + time.nanos // 1_000_000


def _compute_encoded_size(raw: bytes) -> int:
    """Bytes that a transaction takes in a block: a field's tag, its length, itself."""
    return 1 + len(encode_uvarint(len(raw))) + len(raw)


def _get_claim(txs: Iterable[SignedTx | InvalidTx], tx_hash: bytes) -> Claim:
    """Find the walk that one of these transactions proves."""
    for tx in txs:
        if not isinstance(tx, InvalidTx) and tx.hash == tx_hash:
            assert isinstance(tx.message, ProofMessage)
            return tx.message.claim
    raise AssertionError("the accepted proof is not in the block")


def _reject(block: BlockContext, raw: bytes, error: InvalidTx) -> abci.ResponseProcessProposal:
    """Refuse a block for what one of its transactions is, or empty where it is all of them."""
    log.warning(
        "a proposal is refused",
        height=block.height,
        proposer=block.proposer.hex(),
        size=len(raw),
        code=error.code,
        reason=str(error),
    )
    return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.REJECT)


def _encode_result(error: InvalidTx | None, events: Sequence[Event]) -> abci.ExecTxResult:
    """Code, data and gas are hashed by CometBFT: every failure looks alike there."""
    if error is not None:
        return abci.ExecTxResult(code=CODE_FAILED, log=f"code {error.code}: {error}")
    result = abci.ExecTxResult(code=CODE_OK)
    _add_events(result.events, events)
    return result


def _add_events(
    encoded: RepeatedCompositeFieldContainer[abci.Event], events: Sequence[Event]
) -> None:
    """Write events where they belong: what is made elsewhere is copied there."""
    for event in events:
        attributes = encoded.add(type=event.type).attributes
        for key, value in event.attributes:
            attributes.add(key=key, value=value, index=True)


def _encode_updates(updates: Iterable[ValidatorUpdate]) -> list[abci.ValidatorUpdate]:
    encoded = []
    for update in updates:
        message = abci.ValidatorUpdate(power=update.power)
        message.pub_key.ed25519 = update.consensus_key
        encoded.append(message)
    return encoded
