"""Whatever a block contains, no call raises and all calls agree on it.

An exception out of FinalizeBlock would end every node, and again at every replay.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pol_abci.rules.codec import encode_tx
from pol_abci.rules.generated import tx_pb2
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.seed import compute_first_seed, find_stamp
from pol_abci.rules.signing import sign_possession
from tests.abci.blocks import get_hashed
from tests.abci.digits_chain import (
    CHAIN_ID,
    FUNDS,
    make_consensus_key,
    make_genesis,
    make_key,
    make_test_params,
)
from tests.abci.digits_driver import run_chain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pol_abci.client.keys import AccountKey
    from pol_abci.rules.genesis import Genesis
    from tests.abci.digits_driver import DigitsChain

U64 = 2**64 - 1
MAX_STEPS = make_test_params().walk.max_steps


T = TypeVar("T")


def usually(likely: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Seldom the other: enough that something is wrong with many transactions, not with all."""
    return st.integers(1, 20).flatmap(lambda number: other if number == 13 else likely)


def pick(*likely: int, most: int = U64) -> st.SearchStrategy[int]:
    return usually(st.sampled_from(likely), st.integers(0, most))


def pick_bytes(*likely: bytes) -> st.SearchStrategy[bytes]:
    return usually(st.sampled_from(likely), st.binary(max_size=70))


KINDS = [*["transfer", "proof"] * 4, "register", "register", "unjail", "nothing"]
ADDRESSES = [make_key(number).address for number in (1, 2, 3, 9)]
CONSENSUS_KEYS = [make_consensus_key(number).public_key for number in (1, 2, 3)]
POSSESSIONS = [
    sign_possession(make_consensus_key(3).seed, CHAIN_ID, make_key(number).address)
    for number in (2, 3)
]


@functools.cache
def make_two_validators() -> Genesis:
    return make_genesis(validators=((1, 50), (2, 50)), funded=(3,))


@st.composite
def draw_signed(draw: st.DrawFn) -> bytes:
    """A transaction of some account, rightly signed, whatever it says."""
    key = make_key(draw(st.sampled_from([1, 2, 3])))
    body = tx_pb2.TxBody(sequence=draw(pick(1, 1, 1, 2)), fee=draw(pick(1_000, 1_000, 999, FUNDS)))
    match draw(st.sampled_from(KINDS)):
        case "transfer":
            body.transfer.recipient = draw(pick_bytes(*ADDRESSES))
            body.transfer.amount = draw(pick(0, 1, FUNDS - 1_000, FUNDS))
        case "register":
            body.register_validator.consensus_key = draw(pick_bytes(*CONSENSUS_KEYS))
            body.register_validator.possession = draw(pick_bytes(*POSSESSIONS))
        case "unjail":
            body.unjail.SetInParent()
        case "proof":
            body = tx_pb2.TxBody(proof=draw(draw_proof(key)))
    data = body.SerializeToString(deterministic=True)
    return encode_tx(data, key.public_key, key.sign_body(CHAIN_ID, data))


@st.composite
def draw_proof(draw: st.DrawFn, key: AccountKey) -> tx_pb2.Proof:
    steps = draw(pick(2, MAX_STEPS, most=MAX_STEPS + 1))
    proof = tx_pb2.Proof(
        generation=draw(pick(0, 0, 0, 1)),
        nonce=draw(pick(0)),
        steps=steps,
        step_digests=draw(pick_bytes(bytes(8 * min(steps, MAX_STEPS)))),
        weights_root=draw(pick_bytes(bytes(32))),
        stamp=draw(pick(0)),
    )
    if draw(st.integers(0, 4)) and len(proof.weights_root) == len(bytes(32)):
        unstamped = tx_pb2.TxBody(proof=proof)
        unstamped.proof.stamp = 0
        proof.stamp = find_stamp(
            compute_first_seed(CHAIN_ID, compute_genesis_digest(make_two_validators())),
            key.address,
            unstamped.SerializeToString(deterministic=True),
            make_test_params().walk.stamp_bits,
        )
    return proof


@st.composite
def draw_bent(draw: st.DrawFn) -> bytes:
    """A transaction with a byte changed, left out or put in."""
    raw = draw(draw_signed())
    start = draw(st.integers(0, len(raw)))
    return raw[:start] + draw(st.binary(max_size=2)) + raw[start + draw(st.integers(0, 2)) :]


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[DigitsChain]:
    async with run_chain(tmp_path, nodes=2, genesis=make_two_validators()) as chain:
        await chain.begin()
        yield chain


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    txs=st.lists(
        usually(draw_signed(), st.one_of(draw_bent(), st.binary(max_size=300))), max_size=4
    )
)
async def test_all_calls_agree_on_any_block(chain: DigitsChain, txs: list[bytes]) -> None:
    for raw in txs:
        reply = await chain.check(raw)
        assert (reply.code == 0) == (not reply.log)
    accepted = await chain.is_accepted(txs)
    ours = await chain.finalize(txs)
    theirs = await chain.finalize(txs, index=1)  # which has no verdicts yet
    assert get_hashed(ours) == get_hashed(theirs)
    assert accepted == (not any(result.code for result in ours.tx_results))
    event(f"accepted: {accepted}, proofs walked: {bool(chain.nodes[0].verifier.verdicts)}")
    for result in ours.tx_results:
        event(result.log.partition(":")[0] or "code 0")
    prepared = await chain.prepare(txs)
    assert await chain.is_accepted(prepared, index=1)
