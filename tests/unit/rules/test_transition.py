"""Proofs and blocks: what makes a generation, and that nothing else changes the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pol_abci.rules import errors, keys
from pol_abci.rules.ledger import get_account
from pol_abci.rules.proof import TrueWalk
from pol_abci.rules.seed import compute_next_seed
from pol_abci.rules.state import Overlay
from pol_abci.rules.transition import (
    check_claim,
    check_tx,
    check_verdict,
    get_head,
    get_stage,
    process_block,
    process_tx,
)
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from pol_abci.rules.block import ChainContext
    from pol_abci.rules.codec import SignedTx
    from tests.unit.rules.build_chain import Plain

T0 = 1_000_000
CHAIN = make.chain_context()


def run_block(state: Overlay, height: int, time_ms: int, *txs: Plain, **block: Any) -> Any:
    return process_block(
        state,
        CHAIN,
        make.block_context(make.plain_block(height, time_ms, **block)),
        [make.build_tx(tx, get_head(state).seed) for tx in txs],
        make.build_verdicts(list(txs)),
    )


def started_state() -> Overlay:
    state = make.first_state()
    run_block(state, 1, T0 - 5)
    run_block(state, 2, T0)
    return state


def check(state: Overlay, tx: Plain, now_ms: int = T0 + 1, chain: ChainContext = CHAIN) -> None:
    raw = make.build_tx(tx, get_head(state).seed)
    check_tx(state, chain, raw, now_ms, make.build_verdicts([tx]))


def test_chain_starts_with_its_second_block() -> None:
    state = make.first_state()
    run_block(state, 1, T0 - 5)
    assert (get_stage(state), get_head(state).time_ms) == (1, 0)
    run_block(state, 2, T0)
    assert (get_stage(state), get_head(state).time_ms) == (2, T0)
    run_block(state, 3, T0 + 5)
    assert (get_stage(state), get_head(state).time_ms) == (2, T0)


def test_chain_may_start_at_any_height() -> None:
    state = make.first_state()
    run_block(state, 100, T0 - 5, initial_height=100)
    run_block(state, 101, T0, initial_height=100)
    assert get_head(state).time_ms == T0


def test_empty_block_changes_nothing() -> None:
    state = started_state()
    draft = Overlay(state)
    run_block(draft, 3, T0 + 500)
    assert draft.changes == {}


def test_accepted_proof_makes_the_next_generation() -> None:
    state = started_state()
    before = get_head(state)
    tx = make.proof("alice", 0, 7)
    outcome = run_block(state, 3, T0 + 1_500, tx)
    head = get_head(state)
    assert head.generation == 1
    assert head.seed == compute_next_seed(
        before.seed, make.address("alice"), 7, 3, bytes.fromhex(tx["root"])
    )
    assert head.weights_root.hex() == tx["root"]
    assert head.time_ms == T0 + 1_500
    # Half an interval late and a bit for each four intervals: an eighth of a bit less.
    assert head.difficulty == before.difficulty - 65_536 // 8
    record = outcome.accepted
    assert (record.generation, record.height, record.interval_ms) == (1, 3, 1_500)
    assert (record.difficulty, record.score) == (before.difficulty, 100 * 65_536)
    assert record.tx_hash == make.build_tx(tx).hash
    assert not record.has_accuracy
    (event,) = outcome.txs[0].events
    assert event.type == "proof"
    assert dict(event.attributes) == {
        "generation": "1",
        "miner": make.address("alice").hex(),
        "steps": "3",
        "score": str(100 * 65_536),
        "correct_head": "64",
        "correct_ticket": "64",
        "interval_ms": "1500",
        "difficulty": str(before.difficulty),
        "nonce": "7",
    }


def test_difficulty_falls_with_time_until_a_ticket_is_good() -> None:
    state = started_state()
    tx = make.proof("alice", 0, verdict=[5 * 65_536 - 1, 64, 64])
    with pytest.raises(errors.DifficultyNotMet):
        check(state, tx, T0)
    check(state, tx, T0 + 1)


def test_progress_is_forgiven_an_image_for_each_interval() -> None:
    state = started_state()
    tx = make.proof("alice", 0, verdict=[100 * 65_536, 64, 62])
    with pytest.raises(errors.NoProgress):
        check(state, tx, T0 + 1_999)
    check(state, tx, T0 + 2_000)


INVALID_PROOFS: list[tuple[Plain, type[errors.InvalidTx]]] = [
    (make.proof("alice", 1), errors.FutureProof),
    (make.proof("alice", 0, steps=1), errors.InvalidSteps),
    (make.proof("alice", 0, steps=5), errors.InvalidSteps),
    (make.proof("alice", 0, digest_bytes=25), errors.InvalidSteps),
    (make.proof("alice", 0, stamped=False), errors.InvalidStamp),
    (make.proof("alice", 0, verdict=None), errors.FalseProof),
    (make.proof("alice", 0, verdict=[0, 64, 64]), errors.DifficultyNotMet),
    (make.proof("alice", 0, verdict=[100 * 65_536, 64, 63]), errors.NoProgress),
]


@pytest.mark.parametrize(("tx", "error"), INVALID_PROOFS)
def test_invalid_proof_changes_nothing(tx: Plain, error: type[errors.InvalidTx]) -> None:
    state = started_state()
    before = make.entries(state)
    with pytest.raises(error):
        check(state, tx)
    outcome = run_block(state, 3, T0 + 1, tx)
    assert type(outcome.txs[0].error) is error
    assert outcome.accepted is None
    assert make.entries(state) == before


def test_stamps_cannot_be_made_before_the_generation_that_they_are_for() -> None:
    state = started_state()
    first_seed = get_head(state).seed
    run_block(state, 3, T0 + 1, make.proof("alice", 0))
    early = make.proof("bob", 1, stamp_seed=first_seed.hex())
    with pytest.raises(errors.InvalidStamp, match="for the head's seed"):
        check(state, early, T0 + 2)
    outcome = run_block(state, 4, T0 + 2, early)
    assert isinstance(outcome.txs[0].error, errors.InvalidStamp)
    check(state, make.proof("bob", 1), T0 + 2)


def test_stale_proof() -> None:
    state = started_state()
    run_block(state, 3, T0 + 1, make.proof("alice", 0))
    with pytest.raises(errors.StaleProof):
        check(state, make.proof("alice", 0, 1))


def test_proofs_are_not_taken_before_the_start() -> None:
    state = make.first_state()
    with pytest.raises(errors.ChainNotStarted):
        check(state, make.proof("alice", 0))


def test_unwalked_proof_is_pending_in_check_tx_and_a_bug_in_a_block() -> None:
    state = started_state()
    before = make.entries(state)
    tx = make.build_tx(make.proof("alice", 0))
    with pytest.raises(errors.PendingProof):
        check_tx(state, CHAIN, tx, T0, {})
    block = make.block_context(make.plain_block(3, T0 + 1))
    with pytest.raises(KeyError):
        process_block(state, CHAIN, block, [tx], {})
    assert make.entries(state) == before


def test_a_proof_that_fails_cheaply_needs_no_verdict() -> None:
    state = started_state()
    tx = make.build_tx(make.proof("alice", 9))
    outcome = process_block(state, CHAIN, make.block_context(make.plain_block(3, T0 + 1)), [tx], {})
    assert isinstance(outcome.txs[0].error, errors.FutureProof)


def test_checking_a_proof_changes_nothing() -> None:
    state = started_state()
    before = make.entries(state)
    check(state, make.proof("alice", 0))
    assert make.entries(state) == before


def test_claim_carries_the_signer_s_address() -> None:
    claim = check_claim(started_state(), CHAIN, make.build_tx(make.proof("carol", 0, 3)))
    assert (claim.address, claim.nonce) == (make.address("carol"), 3)


def test_score_equal_to_the_difficulty_wins() -> None:
    head = get_head(started_state())
    verdict = TrueWalk(head.difficulty, 64, 64)
    assert check_verdict(CHAIN, head, verdict, head.time_ms) is verdict


def test_mempool_applies_a_sender_s_transactions_in_turn() -> None:
    state = started_state()
    check(state, make.transfer("carol", 1, "dave", 500))
    check(state, make.transfer("dave", 1, "carol", 400))
    with pytest.raises(errors.InvalidSequence):
        check(state, make.transfer("carol", 3, "dave", 1))
    with pytest.raises(errors.InsufficientFunds):
        check(state, make.transfer("carol", 2, "dave", 841))
    check(state, make.transfer("carol", 2, "dave", 840))
    assert get_account(state, make.address("carol")).balance == 0


def test_failing_transaction_leaves_no_trace_of_its_fee() -> None:
    """Register and unjail pay first and fail after."""
    state = started_state()
    before = make.entries(state)
    block = make.block_context(make.plain_block(3, T0 + 1))
    for tx in (make.register("alice", 1), make.unjail("alice", 1)):
        with pytest.raises(errors.InvalidTx):
            process_tx(state, CHAIN, block, make.build_tx(tx), {})
        with pytest.raises(errors.InvalidTx):
            check(state, tx)
    assert make.entries(state) == before


def test_block_keeps_order_and_goes_on_after_a_failure() -> None:
    state = started_state()
    unreadable = errors.MalformedTx("x")
    txs: list[SignedTx | errors.InvalidTx] = [
        make.build_tx(make.transfer("carol", 1, "dave", 100)),
        unreadable,
        make.build_tx(make.transfer("carol", 3, "dave", 100)),
        make.build_tx(make.transfer("dave", 1, "erin", 50)),
    ]
    outcome = process_block(state, CHAIN, make.block_context(make.plain_block(3, T0 + 1)), txs, {})
    kinds = [type(each.error) for each in outcome.txs]
    assert kinds == [type(None), errors.MalformedTx, errors.InvalidSequence, type(None)]
    assert outcome.txs[1].error is unreadable


def test_evidence_comes_before_the_proof_of_the_same_block() -> None:
    state = started_state()
    outcome = run_block(
        state,
        3,
        T0 + 1,
        make.proof("bob", 0),
        misbehaviour=[make.consensus_address("bob").hex()],
    )
    assert outcome.accepted is not None
    assert state.get(keys.slot(3)) is None
    assert state.get(keys.slot(4)) is None, "a barred account takes no slot"
    assert [event.type for event in outcome.events] == ["bar"]


def test_registering_gives_power_in_the_block_of_the_next_proof() -> None:
    state = started_state()
    outcome = run_block(state, 3, T0 + 1, make.register("carol", 1), make.proof("carol", 0))
    told = {each.consensus_key: each.power for each in outcome.validator_updates}
    assert told == {make.consensus_key("carol"): 1}


def test_blocks_check_that_no_coin_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def forge(state: Overlay, *_: Any) -> tuple[()]:
        state.set(keys.account(make.address("eve")), b"\x08\x01")
        return ()

    monkeypatch.setattr("pol_abci.rules.transition.process_misbehaviour", forge)
    with pytest.raises(AssertionError, match="coins"):
        run_block(started_state(), 3, T0 + 1)
