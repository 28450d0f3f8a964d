"""What Query answers, how a client verifies it, and that nothing asked can end the application."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.app.info import (
    QUERY_CODESPACE,
    HeightNotServed,
    MalformedQuery,
    QueryError,
    UnknownPath,
)
from pol_abci.client.holdings import HOLDINGS_PATH, Holdings, MaturingReward
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, GenerationRecord
from pol_abci.rules.merkle import CHUNK_BYTES, compute_weights_root, encode_value
from pol_abci.rules.merkle_proofs import InvalidProof, ProofOp, verify_chunk, verify_state
from tests.abci.digits_chain import CHAIN_ID, FUNDS, DigitsNode, make_key, make_test_params
from tests.abci.digits_driver import run_chain, transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.abci.digits_driver import DigitsChain

STATE, WEIGHTS, HISTORY, STATUS = "/store/state/key", "/store/weights/key", "/history", "/status"
ACCOUNT = "/account"
PATHS = (STATE, WEIGHTS, ACCOUNT, HOLDINGS_PATH, HISTORY, STATUS)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[DigitsChain]:
    """Five blocks, of which the third and the fourth made generations; the fifth moved coins."""
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        await chain.driver.make_block([chain.mine(1)])
        await chain.driver.make_block([chain.mine(5)])
        await chain.driver.make_block([transfer(1, 1, amount=7)])
        yield chain


async def query(
    chain: DigitsChain,
    path: str | bytes,
    data: bytes = b"",
    *,
    height: int = 0,
    prove: bool = False,
) -> pb.ResponseQuery:
    raw_path = path.encode() if isinstance(path, str) else path
    request = pb.RequestQuery(path=raw_path, data=data, height=height, prove=prove)
    return await chain.app.query(request)


def get_ops(reply: pb.ResponseQuery) -> list[ProofOp]:
    return [ProofOp(op.type, op.key, op.data) for op in reply.proof_ops.ops]


def get_app_hash(chain: DigitsChain, height: int) -> bytes:
    """As the header of the next height has it."""
    return chain.driver.get_app_hash(height)


def index(number: int) -> bytes:
    return number.to_bytes(8, "big")


async def test_a_state_entry_is_proved_at_the_version_that_a_header_follows(
    chain: DigitsChain,
) -> None:
    key = keys.account(make_key(1).address)
    newest = await query(chain, STATE, key)
    assert (newest.code, newest.height) == (0, 5)
    burn = make_test_params().ledger.account_burn
    assert Account.decode(newest.value).balance == FUNDS - 7 - burn
    assert not newest.proof_ops.ops
    proved = await query(chain, STATE, key, prove=True)
    assert (proved.code, proved.height, proved.key) == (0, 4, key)
    before = Account(balance=FUNDS, consensus_key=Account.decode(newest.value).consensus_key)
    assert proved.value == encode_value(before.encode())  # as it is hashed
    verify_state(get_ops(proved), get_app_hash(chain, 4), key, before.encode())
    with pytest.raises(InvalidProof):
        verify_state(get_ops(proved), get_app_hash(chain, 5), key, before.encode())
    asked = await query(chain, STATE, key, height=5, prove=True)
    verify_state(get_ops(asked), get_app_hash(chain, 5), key, newest.value)
    assert asked.height == 5


async def test_absence_is_proved(chain: DigitsChain) -> None:
    for key in (keys.account(make_key(77).address), b"no such key", b""):
        for height in (4, 5):
            reply = await query(chain, STATE, key, height=height, prove=True)
            assert (reply.code, reply.value) == (0, b"")
            verify_state(get_ops(reply), get_app_hash(chain, height), key, None)
    # account 9 is paid in block 5
    paid = keys.account(make_key(9).address)
    verify_state(
        get_ops(await query(chain, STATE, paid, prove=True)), get_app_hash(chain, 4), paid, None
    )
    assert Account.decode((await query(chain, STATE, paid)).value).balance == 7


async def test_the_heads_weights_are_proved_chunk_by_chunk(chain: DigitsChain) -> None:
    replica = chain.nodes[0].replica
    chunks = []
    for number in range(100):
        reply = await query(chain, WEIGHTS, index(number), prove=True)
        assert (reply.code, reply.height) == (0, 4)
        if not reply.value:
            assert not reply.proof_ops.ops
            break
        chunk = (await query(chain, WEIGHTS, index(number), height=4)).value
        assert reply.value == encode_value(chunk)
        verify_chunk(get_ops(reply), get_app_hash(chain, 4), number, chunk)
        chunks.append(chunk)
    weights = b"".join(chunks)
    assert len(chunks) == -(-len(weights) // CHUNK_BYTES)
    assert compute_weights_root(weights) == replica.get_head().weights_root
    assert weights == replica.store.weights()
    assert (await query(chain, WEIGHTS, b"\xff" * 8)).value == b""


async def test_history_tells_of_each_generation_once(chain: DigitsChain) -> None:
    value = (await query(chain, HISTORY, index(0))).value
    records = []
    while value:
        (length,) = struct.unpack_from(">I", value)
        records.append(GenerationRecord.decode(value[4 : 4 + length]))
        value = value[4 + length :]
    assert [record.generation for record in records] == [1, 2]
    assert [record.height for record in records] == [3, 4]
    assert [record.miner for record in records] == [make_key(1).address, make_key(5).address]
    assert all(record.has_accuracy and record.size_all == 360 for record in records)
    assert (await query(chain, HISTORY, index(3))).value == b""
    second = (await query(chain, HISTORY, index(2))).value
    assert GenerationRecord.decode(second[4:]) == records[1]


async def test_holdings_are_the_rewards_that_mature_and_the_slots_of_an_account(
    chain: DigitsChain,
) -> None:
    params = chain.nodes[0].replica.chain.params
    held = {
        owner: Holdings.decode((await query(chain, HOLDINGS_PATH, make_key(owner).address)).value)
        for owner in (1, 5, 6)
    }
    matures = params.ledger.maturity_generations
    assert held[1].rewards == (MaturingReward(amount=params.ledger.reward, generation=1 + matures),)
    assert held[5].rewards == (MaturingReward(amount=params.ledger.reward, generation=2 + matures),)
    assert held[6] == Holdings(generation=2, rewards=(), slots=0)
    slots = [
        (await query(chain, STATE, keys.slot(slot))).value for slot in range(params.shares.slots)
    ]
    assert held[1].slots == slots.count(make_key(1).address) > 0


async def test_status_is_json_with_everything_that_a_terminal_shows(chain: DigitsChain) -> None:
    status = json.loads((await query(chain, STATUS)).value)
    head = chain.nodes[0].replica.get_head()
    assert status["chain_id"] == CHAIN_ID
    assert (status["height"], status["generation"]) == (5, 2)
    assert status["seed"] == head.seed.hex()
    assert status["weights_root"] == head.weights_root.hex()
    assert status["head_difficulty"] == head.difficulty
    assert 0 <= status["difficulty_now"] <= head.difficulty
    assert status["verifier"]["alive"]
    assert status["tickets"] == {"kept": 0, "best_score": None, "best_good_time_ms": None}
    assert status["accuracy"]["generation"] == 2
    assert 0 < status["accuracy"]["correct"] <= status["accuracy"]["size"] == 360
    assert status["standstill"] is None
    await chain.submit(chain.mine(6))
    ticket = chain.nodes[0].replica.tickets.get_soonest()
    assert ticket is not None
    assert json.loads((await query(chain, STATUS)).value)["tickets"] == {
        "kept": 1,
        "best_score": ticket.verdict.score,
        "best_good_time_ms": ticket.good_time_ms,
    }


@pytest.mark.parametrize(
    ("path", "data", "height", "error", "sentence"),
    [
        (
            "/store",
            b"",
            0,
            UnknownPath,
            f"there are {', '.join(PATHS)}",
        ),
        ("", b"", 0, UnknownPath, "no path ''"),
        ("/p2p/filter/addr/1", b"", 0, UnknownPath, "no path"),
        (WEIGHTS, b"", 0, MalformedQuery, "not 0 bytes"),
        (WEIGHTS, b"\0" * 9, 0, MalformedQuery, "8 bytes big-endian"),
        (HISTORY, b"1", 0, MalformedQuery, "not 1 bytes"),
        (HOLDINGS_PATH, bytes(21), 0, MalformedQuery, "an address, 20 bytes"),
        (STATE, b"head", 3, HeightNotServed, "height 3 is not kept: this node answers at 5 and 4"),
        (STATE, b"head", 6, HeightNotServed, "5 and 4"),
        (STATE, b"head", -1, HeightNotServed, "5 and 4"),
        (WEIGHTS, b"\0" * 8, 2**63 - 1, HeightNotServed, "5 and 4"),
    ],
)
async def test_bad_queries_are_answered_in_words(
    *,
    chain: DigitsChain,
    path: str,
    data: bytes,
    height: int,
    error: type[QueryError],
    sentence: str,
) -> None:
    for prove in (False, True):
        reply = await query(chain, path, data, height=height, prove=prove)
        assert (reply.code, reply.codespace) == (error.code, QUERY_CODESPACE)
        assert sentence in reply.log
        assert (reply.value, reply.key) == (b"", data)


async def test_before_the_first_block_there_is_nothing_to_prove(tmp_path: Path) -> None:
    node = DigitsNode(tmp_path)  # InitChain has not come
    for path in (STATE, WEIGHTS):
        reply = await node.application.query(pb.RequestQuery(path=path.encode(), data=bytes(8)))
        assert reply.code == HeightNotServed.code
        assert "ask again after the first block" in reply.log
    reply = await node.application.query(pb.RequestQuery(path=HISTORY.encode(), data=bytes(8)))
    assert (reply.code, reply.value) == (0, b"")
    reply = await node.application.query(pb.RequestQuery(path=STATUS.encode()))
    assert "no block is committed yet" in json.loads(reply.value)["standstill"]
    node.close()


async def test_the_first_block_of_a_chain_that_starts_higher_up_is_served(tmp_path: Path) -> None:
    async with run_chain(tmp_path, initial_height=100) as chain:
        await chain.driver.make_block()
        reply = await query(chain, STATE, keys.head(), prove=True)
        assert (reply.code, reply.height) == (0, 100)
        assert (await query(chain, STATE, keys.head(), height=99)).code == HeightNotServed.code


async def test_after_a_rollback_the_version_before_is_not_served(chain: DigitsChain) -> None:
    node = chain.nodes[0]
    node.replica.store.rollback()
    node.restart()

    async def ask(*, height: int = 0, prove: bool = False) -> pb.ResponseQuery:
        request = pb.RequestQuery(path=STATE.encode(), data=keys.head(), height=height, prove=prove)
        return await node.application.query(request)

    assert ((await ask()).code, (await ask()).height) == (0, 4)
    for reply in (await ask(prove=True), await ask(height=3)):
        assert reply.code == HeightNotServed.code
        assert "answers for: 4" in reply.log


async def test_an_account_is_told_as_the_mempool_would_leave_it(chain: DigitsChain) -> None:
    sender = make_key(1).address
    before = Account.decode((await query(chain, ACCOUNT, sender)).value)
    nobody = await query(chain, ACCOUNT, bytes(20))
    assert (nobody.code, nobody.value) == (0, b"")
    raw = transfer(1, before.sequence + 1, amount=9)
    await chain.app.check_tx(pb.RequestCheckTx(tx=raw))
    waiting = Account.decode((await query(chain, ACCOUNT, sender)).value)
    assert waiting.sequence == before.sequence + 1
    assert waiting.balance < before.balance
    committed = Account.decode((await query(chain, STATE, keys.account(sender))).value)
    assert committed == before
    await chain.driver.make_block([raw])
    assert (await query(chain, ACCOUNT, sender)).value == (
        await query(chain, STATE, keys.account(sender))
    ).value
    assert (await query(chain, ACCOUNT, sender[1:])).code == MalformedQuery.code


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    path=st.one_of(
        st.sampled_from(PATHS),
        st.text(st.characters(codec="utf-8"), max_size=30),
        st.binary(max_size=30),  # CometBFT passes on what is not UTF-8
    ),
    data=st.one_of(
        st.binary(max_size=700),
        st.binary(min_size=8, max_size=8),
        st.sampled_from([keys.head(), keys.account(make_key(1).address), bytes(8)]),
    ),
    height=st.one_of(st.integers(-2, 7), st.integers(-(2**63), 2**63 - 1)),
    prove=st.booleans(),
)
async def test_nothing_asked_raises(
    chain: DigitsChain, path: str | bytes, data: bytes, height: int, prove: bool
) -> None:
    reply = await query(chain, path, data, height=height, prove=prove)
    assert (reply.code == 0) == (not reply.log)
    assert pb.ResponseQuery.FromString(reply.SerializeToString()) == reply
