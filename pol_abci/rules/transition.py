"""The only way in which state changes: `process_block`, protocol sections 9 to 11.

CheckTx, PrepareProposal, ProcessProposal and FinalizeBlock all come here, so a rule is written
once. What a proof's walk is worth comes in as `verdicts`: redoing walks is the learning's part.
Invalid input is an `InvalidTx`; anything else that is raised here is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pol_abci.rules import keys
from pol_abci.rules.block import (
    BlockContext,
    BlockOutcome,
    ChainContext,
    CommitVote,
    Event,
    TxOutcome,
    ValidatorUpdate,
)
from pol_abci.rules.codec import (
    Chain,
    GenerationRecord,
    Head,
    ProofMessage,
    RegisterValidator,
    SignedTx,
    Transfer,
    Unjail,
)
from pol_abci.rules.difficulty import compute_difficulty, compute_next_difficulty
from pol_abci.rules.errors import (
    ChainNotStarted,
    DifficultyNotMet,
    FalseProof,
    FutureProof,
    InvalidTx,
    NoProgress,
    OtherScheme,
    PendingProof,
    SecondProof,
    StaleProof,
)
from pol_abci.rules.ledger import (
    get_owner,
    is_supply_conserved,
    process_charge,
    process_fee,
    process_reward,
    process_transfer,
)
from pol_abci.rules.liveness import process_liveness
from pol_abci.rules.misbehaviour import process_misbehaviour
from pol_abci.rules.progress import is_progress
from pol_abci.rules.proof import FalseWalk
from pol_abci.rules.shares import (
    process_register,
    process_share,
    process_unjail,
    process_validator_set,
)
from pol_abci.rules.state import Overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pol_abci.rules.proof import Claim, TrueWalk, WalkVerdict
    from pol_abci.rules.state import StateReader

__all__ = [
    "BlockContext",
    "BlockOutcome",
    "ChainContext",
    "CommitVote",
    "Event",
    "TxOutcome",
    "ValidatorUpdate",
    "check_claim",
    "check_tx",
    "check_verdict",
    "get_head",
    "get_stage",
    "process_block",
    "process_tx",
]

STARTED_STAGE = 2
"""`Chain.stage` from which proofs are taken: t_0 is set."""


def process_block(
    state: Overlay,
    chain: ChainContext,
    block: BlockContext,
    txs: Sequence[SignedTx | InvalidTx],
    verdicts: Mapping[Claim, WalkVerdict],
) -> BlockOutcome:
    """Apply a block: evidence, transactions in order, liveness, validator set, stage.

    Parameters
    ----------
    txs
        What `signing.authenticate` made of each transaction: read, or why it could not be.
    verdicts
        Holds the walk of each proof that `check_claim` finds nothing wrong with, up to the
        first that is accepted.

    Raises
    ------
    KeyError
        When a verdict is missing, a bug of the caller. The state is then unchanged.
    """
    draft = Overlay(state)
    shares = chain.params.shares
    generation = get_head(draft).generation

    events = process_misbehaviour(draft, chain.params, generation, block.misbehaviour)
    outcomes, accepted = _process_txs(draft, chain, block, txs, verdicts)
    if accepted is not None:
        events += process_liveness(draft, shares, block.votes)
    updates = process_validator_set(draft, shares)
    _process_stage(draft, block)

    assert is_supply_conserved(state, draft), "coins were made or lost"
    draft.merge_into_base()
    return BlockOutcome(txs=outcomes, validator_updates=updates, accepted=accepted, events=events)


def check_tx(
    state: Overlay,
    chain: ChainContext,
    tx: SignedTx,
    now_ms: int,
    verdicts: Mapping[Claim, WalkVerdict],
) -> None:
    """Decide whether a transaction may enter the mempool, whose overlay `state` is.

    A proof is judged as of `now_ms` and changes nothing; other transactions are applied, so that
    a sender's next one is judged after it. Fees are nobody's: who will propose is not known.

    Raises
    ------
    PendingProof
        When the cheap checks find nothing wrong and the walk has no verdict yet.
    InvalidTx
        When it could not be applied.
    """
    if isinstance(tx.message, ProofMessage):
        claim = check_claim(state, chain, tx)
        verdict = verdicts.get(claim)
        if verdict is None:
            raise PendingProof("the walk is still to be redone; the node submits what is good")
        check_verdict(chain, get_head(state), verdict, now_ms)
        return
    draft = Overlay(state)
    _process_message(draft, chain, tx)
    draft.merge_into_base()


def check_claim(state: StateReader, chain: ChainContext, tx: SignedTx) -> Claim:
    """Check what can be told of a proof without redoing its walk; what it claims.

    Raises
    ------
    OtherScheme, ChainNotStarted, StaleProof, FutureProof
    InvalidSteps, InvalidStamp, InvalidBatch
        As the chain's scheme has it.
    """
    assert isinstance(tx.message, ProofMessage), "only a proof claims a walk"
    claim = tx.message.claim
    # Verify it is a proof of this chain's scheme
    if not isinstance(claim, chain.scheme.claim_type):
        raise OtherScheme("the chain's genesis has another scheme: mine with its own")
    # Verify the chain has its t_0
    if get_stage(state) < STARTED_STAGE:
        raise ChainNotStarted("proofs are taken from the third block on")
    # Verify the walk starts from the head
    head = get_head(state)
    if claim.generation < head.generation:
        raise StaleProof(f"extends generation {claim.generation}: the head is {head.generation}")
    if claim.generation > head.generation:
        raise FutureProof(f"extends generation {claim.generation}: the head is {head.generation}")
    # Verify what else the scheme can tell at once
    chain.scheme.check_claim(head, tx.message)
    return claim


def check_verdict(chain: ChainContext, head: Head, verdict: WalkVerdict, now_ms: int) -> TrueWalk:
    """Decide whether a redone walk is good enough in a block of time `now_ms`.

    Raises
    ------
    FalseProof, DifficultyNotMet, NoProgress
    """
    if isinstance(verdict, FalseWalk):
        raise FalseProof(verdict.reason)
    params = chain.params.difficulty
    difficulty = compute_difficulty(params, head.difficulty, head.time_ms, now_ms)
    if verdict.score < difficulty:
        raise DifficultyNotMet(f"score {verdict.score}: the difficulty is now {difficulty}")
    if not is_progress(chain.scheme, params, verdict, now_ms - head.time_ms):
        raise NoProgress(
            f"{verdict.correct_ticket} of the images right: before there were "
            f"{max(verdict.correct_head, verdict.correct_anchor)}"
        )
    return verdict


def get_head(state: StateReader) -> Head:
    """The newest generation."""
    head = state.get_record(keys.head(), Head)
    assert head is not None, "genesis writes the head"
    return head


def get_stage(state: StateReader) -> int:
    """How far the chain has started: 0, 1, or 2 when proofs are taken."""
    chain = state.get_record(keys.chain(), Chain)
    assert chain is not None, "genesis writes the stage"
    return chain.stage


@dataclass(frozen=True, slots=True)
class AppliedTx:
    """What a transaction did: events, and the generation that it made if it was a proof."""

    events: tuple[Event, ...]
    accepted: GenerationRecord | None = None


def _process_txs(
    state: Overlay,
    chain: ChainContext,
    block: BlockContext,
    txs: Sequence[SignedTx | InvalidTx],
    verdicts: Mapping[Claim, WalkVerdict],
) -> tuple[tuple[TxOutcome, ...], GenerationRecord | None]:
    """Apply transactions in order. A failing one changes nothing and stops nothing."""
    accepted: GenerationRecord | None = None
    outcomes: list[TxOutcome] = []
    for tx in txs:
        if isinstance(tx, InvalidTx):
            outcomes.append(TxOutcome(tx))
            continue
        try:
            if accepted is not None and isinstance(tx.message, ProofMessage):
                raise SecondProof("the block has its proof")
            applied = process_tx(state, chain, block, tx, verdicts)
        except InvalidTx as error:
            outcomes.append(TxOutcome(error))
        else:
            outcomes.append(TxOutcome(None, applied.events))
            accepted = applied.accepted or accepted
    return tuple(outcomes), accepted


def process_tx(
    state: Overlay,
    chain: ChainContext,
    block: BlockContext,
    tx: SignedTx,
    verdicts: Mapping[Claim, WalkVerdict],
) -> AppliedTx:
    """Apply one transaction of a block.

    Raises
    ------
    InvalidTx
        When it can't be applied. The state is then unchanged.
    KeyError
        When a proof's verdict is missing, a bug of the caller.
    """
    draft = Overlay(state)
    if isinstance(tx.message, ProofMessage):
        applied = _process_proof(draft, chain, block, tx, verdicts)
    else:
        applied = AppliedTx(_process_message(draft, chain, tx))
        # Paid when all is taken: a proposer can't spend the fee of his own transaction in it.
        process_fee(draft, get_owner(state, block.proposer), tx.fee)
    draft.merge_into_base()
    return applied


def _process_message(state: Overlay, chain: ChainContext, tx: SignedTx) -> tuple[Event, ...]:
    """Apply a transaction that pays a fee, which is taken and still to be given."""
    ledger = chain.params.ledger
    match tx.message:
        case Transfer() as transfer:
            return process_transfer(state, ledger, tx, transfer)
        case RegisterValidator() as register:
            process_charge(state, ledger, tx)
            return process_register(state, chain.chain_id, tx.address, register)
        case Unjail():
            process_charge(state, ledger, tx)
            return process_unjail(state, tx.address)
        case ProofMessage():
            raise AssertionError("a proof pays no fee and comes by another way")


def _process_proof(
    state: Overlay,
    chain: ChainContext,
    block: BlockContext,
    tx: SignedTx,
    verdicts: Mapping[Claim, WalkVerdict],
) -> AppliedTx:
    """Make the next generation, reward its miner and give it its share."""
    params = chain.params
    claim = check_claim(state, chain, tx)
    head = get_head(state)
    verdict = check_verdict(chain, head, verdicts[claim], block.time_ms)

    record = _record_generation(head, block, tx, claim, verdict)
    next_head = Head(
        generation=record.generation,
        seed=chain.scheme.compute_next_seed(head.seed, record),
        difficulty=compute_next_difficulty(params.difficulty, head.difficulty, record.interval_ms),
        time_ms=block.time_ms,
        weights_root=claim.weights_root,
    )
    state.set(keys.head(), next_head)
    process_reward(state, params.ledger, head.generation, tx.address)
    process_share(state, params.shares, tx.address)
    return AppliedTx((_describe_generation(record),), record)


def _record_generation(
    head: Head, block: BlockContext, tx: SignedTx, claim: Claim, verdict: TrueWalk
) -> GenerationRecord:
    return GenerationRecord(
        generation=head.generation + 1,
        height=block.height,
        time_ms=block.time_ms,
        interval_ms=block.time_ms - head.time_ms,
        difficulty=head.difficulty,
        score=verdict.score,
        correct_head=verdict.correct_head,
        correct_ticket=verdict.correct_ticket,
        miner=claim.address,
        nonce=claim.nonce,
        steps=claim.steps,
        weights_root=claim.weights_root,
        tx_hash=tx.hash,
        batch=claim.batch,
    )


def _describe_generation(record: GenerationRecord) -> Event:
    attributes = (
        ("generation", str(record.generation)),
        ("miner", record.miner.hex()),
        ("steps", str(record.steps)),
        ("score", str(record.score)),
        ("correct_head", str(record.correct_head)),
        ("correct_ticket", str(record.correct_ticket)),
        ("interval_ms", str(record.interval_ms)),
        ("difficulty", str(record.difficulty)),
        ("nonce", str(record.nonce)),
    )
    return Event("proof", attributes)


def _process_stage(state: Overlay, block: BlockContext) -> None:
    """Start the chain: its second block's time is t_0, from which the first proof is timed.

    The first block changes the state too, so that CometBFT makes the second at once.
    """
    stage = get_stage(state)
    if stage == STARTED_STAGE:
        return
    assert block.height == block.initial_height + stage, "the first two blocks are in order"
    state.set(keys.chain(), Chain(stage=stage + 1))
    if stage + 1 == STARTED_STAGE:
        state.set(keys.head(), replace(get_head(state), time_ms=block.time_ms))
