"""The paper's scheme in the rules: what its proofs look like, and what becomes of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pol_abci.rules import errors
from pol_abci.rules.block import ChainContext
from pol_abci.rules.codec import (
    ProofMessage,
    SignedTx,
    decode_tx,
    encode_body,
    encode_tx,
)
from pol_abci.rules.genesis import Genesis, process_genesis
from pol_abci.rules.params import MAX_TX_BYTES, SCORE_UNIT, Augmentation, PaperParams
from pol_abci.rules.proof import PaperClaim, TrueWalk
from pol_abci.rules.seed import compute_next_paper_seed
from pol_abci.rules.signing import authenticate, sign_body
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import check_claim, check_verdict, get_head, process_block
from tests.unit.rules import build_chain as make
from tests.unit.rules.plain_chain import binary, integer

if TYPE_CHECKING:
    from pol_abci.rules.codec import Head

T0 = 1_800_000_000_000
W = b"a frame, as far as the rules know"
P = (70_000, 0, 2, 5)


def make_genesis(*, anchor: bool = False, weights_bytes: int = 29_384) -> Genesis:
    genesis = make.genesis()
    task = replace(
        genesis.params.task,
        batch_size=4,
        augmentation=Augmentation(shift=0, flip=False, cutout=0),
    )
    scheme = PaperParams(anchor=anchor, weights_bytes=weights_bytes)
    return replace(genesis, params=replace(genesis.params, scheme=scheme, task=task))


def make_chain(**changes: Any) -> ChainContext:
    return ChainContext(make.CHAIN_ID, make_genesis(**changes).params)


CHAIN = make_chain()


def start() -> Overlay:
    state = Overlay(DictState())
    process_genesis(state, make.CHAIN_ID, make_genesis())
    for height in (1, 2):
        process_block(state, CHAIN, make.block_context(make.plain_block(height, T0)), [], {})
    return state


def make_claim(name: str = "carol", **changes: Any) -> PaperClaim:
    claim = PaperClaim(
        generation=0,
        address=make.address(name),
        ordinals=P,
        weights=W,
        weights_digest=hashlib.sha256(W).digest(),
        weights_root=b"\x44" * 32,
    )
    return replace(claim, **changes)


def sign(claim: PaperClaim, name: str = "carol", chain: ChainContext = CHAIN) -> SignedTx:
    body = encode_body(0, 0, ProofMessage(claim, 0))
    raw = encode_tx(
        body, make.public_key(name), sign_body(make.account_seed(name), make.CHAIN_ID, body)
    )
    return authenticate(make.CHAIN_ID, raw, chain.scheme.max_tx_bytes)


def test_a_proof_is_encoded_field_by_field() -> None:
    packed = b"\xf0\xa2\x04" + b"\x00\x02\x05"
    message = binary(2, packed) + binary(3, W) + binary(4, b"\x44" * 32)
    assert encode_body(0, 0, ProofMessage(make_claim(), 0)) == binary(7, message)
    tx = sign(make_claim(generation=3))
    assert tx.body_bytes == binary(7, integer(1, 3) + message)
    assert tx.message == ProofMessage(make_claim(generation=3), 0)
    assert isinstance(tx.message, ProofMessage)
    assert isinstance(tx.message.claim, PaperClaim)
    assert tx.message.claim.weights == W


def test_ordinals_that_are_not_packed_are_malformed() -> None:
    loose = b"".join(integer(2, ordinal) for ordinal in (7, 1, 2, 5))
    body = binary(7, loose + binary(3, W) + binary(4, b"\x44" * 32))
    with pytest.raises(errors.MalformedTx, match="canonically"):
        decode_tx(encode_tx(body, make.public_key("carol"), bytes(64)))


def test_claims_are_the_same_by_the_digest_of_their_weights() -> None:
    claim = make_claim()
    assert claim.key == claim
    assert hash(claim.key) == hash(claim)
    assert claim.key.weights == b""
    assert make_claim(weights_digest=bytes(32)) != claim


def test_a_proof_may_be_as_long_as_the_model_of_its_chain_needs() -> None:
    assert CHAIN.scheme.max_tx_bytes == MAX_TX_BYTES
    large = make_chain(weights_bytes=17_000_000)
    claim = make_claim(weights=bytes(17_000_000 + 66_470))  # what zstd makes of what it can't pack
    tx = sign(claim, chain=large)
    assert len(tx.body_bytes) > 17_000_000
    with pytest.raises(errors.OversizeTx, match=f"at most {MAX_TX_BYTES}"):
        sign(claim)
    with pytest.raises(errors.OversizeTx, match=f"at most {large.scheme.max_tx_bytes}"):
        sign(make_claim(weights=bytes(large.scheme.max_tx_bytes)), chain=large)


@pytest.mark.parametrize(
    ("ordinals", "message"),
    [
        (P[:3], "3 ordinals: a batch has 4"),
        ((*P, 9), "5 ordinals: a batch has 4"),
        ((), "0 ordinals"),
        ((1, 2, 3, 1), "each ordinal of a batch once"),
    ],
)
def test_a_batch_has_different_ordinals_as_many_as_its_size(
    ordinals: tuple[int, ...], message: str
) -> None:
    with pytest.raises(errors.InvalidBatch, match=message):
        check_claim(start(), CHAIN, sign(make_claim(ordinals=ordinals)))


def test_a_proof_of_one_scheme_is_refused_on_a_chain_of_the_other() -> None:
    walk = make.build_tx(make.proof("carol", 0, 3))
    with pytest.raises(errors.OtherScheme):
        check_claim(start(), CHAIN, walk)
    with pytest.raises(errors.OtherScheme):
        check_claim(make.first_state(), make.chain_context(), sign(make_claim()))


@pytest.mark.parametrize(
    ("generation", "error"), [(1, errors.FutureProof), (2**64 - 1, errors.FutureProof)]
)
def test_a_proof_extends_the_head_and_no_other(
    generation: int, error: type[errors.InvalidTx]
) -> None:
    with pytest.raises(error):
        check_claim(start(), CHAIN, sign(make_claim(generation=generation)))


def judge(verdict: TrueWalk, late_ms: int = 0, chain: ChainContext = CHAIN) -> str:
    head: Head = get_head(start())
    try:
        check_verdict(chain, head, verdict, head.time_ms + late_ms)
    except errors.InvalidTx as error:
        return type(error).__name__
    return "good"


def test_all_requirements_of_the_moment_must_hold() -> None:
    # The difficulty is 5 bits and falls by 2.5 in a second: R is its ceiling.
    assert judge(TrueWalk(5 * SCORE_UNIT, 100, 101)) == "good"
    assert judge(TrueWalk(4 * SCORE_UNIT, 100, 101)) == "DifficultyNotMet"
    assert judge(TrueWalk(4 * SCORE_UNIT, 100, 101), 399) == "DifficultyNotMet"
    assert judge(TrueWalk(4 * SCORE_UNIT, 100, 101), 400) == "good"


def test_accuracy_must_rise_however_late_it_is() -> None:
    assert judge(TrueWalk(9 * SCORE_UNIT, 100, 100), 10**9) == "NoProgress"
    assert judge(TrueWalk(9 * SCORE_UNIT, 100, 99), 10**9) == "NoProgress"


def test_with_the_anchor_it_may_not_fall_below_the_head_s() -> None:
    chain = make_chain(anchor=True)
    assert judge(TrueWalk(9 * SCORE_UNIT, 100, 101, 102), chain=chain) == "NoProgress"
    assert judge(TrueWalk(9 * SCORE_UNIT, 100, 101, 101), chain=chain) == "good"


def test_an_accepted_proof_makes_the_next_generation_and_its_seed() -> None:
    state = start()
    seed = get_head(state).seed
    tx = sign(make_claim())
    assert isinstance(tx.message, ProofMessage)
    verdicts = {tx.message.claim.key: TrueWalk(5 * SCORE_UNIT, 100, 101)}
    block = make.block_context(make.plain_block(3, T0 + 500))
    outcome = process_block(state, CHAIN, block, [tx], verdicts)
    assert outcome.txs[0].error is None
    record, head = outcome.accepted, get_head(state)
    assert record is not None
    assert (record.generation, record.steps, record.nonce) == (1, 1, 0)
    batch = b"".join(ordinal.to_bytes(4, "big") for ordinal in P)
    assert record.batch == batch
    assert head.weights_root == b"\x44" * 32
    assert head.seed == compute_next_paper_seed(seed, make.address("carol"), batch, b"\x44" * 32)
    # Another order of the batch is another step, and another seed
    again = compute_next_paper_seed(seed, make.address("carol"), batch[::-1], b"\x44" * 32)
    assert head.seed != again
