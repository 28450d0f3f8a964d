from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from pol_abci.client.chain import ChainNotBegun
from pol_abci.client.light import LightClient
from pol_abci.learning import weights as canonical
from pol_abci.miner.follow import MAX_REPLAYED, Follower
from pol_abci.rules.merkle_proofs import InvalidProof
from pol_abci.rules.params import (
    SCORE_UNIT,
)
from tests.unit.miner.fake_chain import CHAIN_ID, MINER, FakeChain, make_task


def make_follower(chain: FakeChain) -> Follower:
    rpc = chain.client()
    light = LightClient(rpc, CHAIN_ID)
    return Follower(rpc, light, make_task(), threading.Lock(), lambda: None)


def assert_follows(follower: Follower, chain: FakeChain) -> None:
    head = follower.head
    assert head is not None
    assert canonical.to_bytes(head.model.weights) == chain.weights
    record = chain.head
    assert (head.generation, head.model.seed) == (record.generation, record.seed)
    assert (head.difficulty, head.time_ms) == (record.difficulty, record.time_ms)
    assert head.weights_root == record.weights_root


async def test_a_miner_begins_with_the_proven_head() -> None:
    chain = FakeChain()
    chain.begin()
    chain.win()
    follower = make_follower(chain)
    update = await follower.catch_up()
    assert update.is_new_head
    assert update.is_current
    assert update.note is not None
    assert "downloaded" in update.note
    assert_follows(follower, chain)
    assert not (await follower.catch_up()).is_new_head


async def test_missed_generations_are_redone_from_history() -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    await follower.catch_up()
    for _ in range(3):
        chain.win()
    update = await follower.catch_up()
    assert [record.generation for record in update.records] == [1, 2, 3]
    assert update.note is None
    assert_follows(follower, chain)


async def test_a_head_that_no_header_proves_yet_is_followed_by_its_walk() -> None:
    chain = FakeChain()
    chain.begin()
    chain.add_block(*chain.find_win())  # nothing after it
    follower = make_follower(chain)
    first = await follower.catch_up()
    assert not first.is_current
    second = await follower.catch_up()
    assert second.is_current
    assert [record.generation for record in second.records] == [1]
    assert_follows(follower, chain)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": 999_999},
        {"steps": 3},
        {"steps": 2**31},
        {"weights_root": bytes(32)},
        {"score": 40 * SCORE_UNIT},
        {"miner": MINER.address},
        {"time_ms": 0},
        {"time_ms": 2_000_000_000},
        {"generation": 2},
    ],
)
async def test_a_false_history_is_refused_and_the_head_downloaded(change: dict[str, Any]) -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    await follower.catch_up()
    chain.win()
    chain.records[0] = replace(chain.records[0], **change)
    update = await follower.catch_up()
    assert update.records == ()
    assert update.note is not None
    assert "history" in update.note
    assert "downloaded" in update.note
    assert_follows(follower, chain)


async def test_a_win_below_the_difficulty_is_refused() -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    await follower.catch_up()
    assert follower.head is not None
    chain.win()
    follower.head = replace(follower.head, difficulty=200 * SCORE_UNIT)
    update = await follower.catch_up()
    assert update.note is not None
    assert "below the difficulty" in update.note


async def test_a_node_without_that_history_gives_the_proven_head() -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    await follower.catch_up()
    chain.win()
    chain.records.clear()
    update = await follower.catch_up()
    assert update.note is not None
    assert "does not have the history" in update.note
    assert_follows(follower, chain)


async def test_far_behind_the_head_is_downloaded() -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    await follower.catch_up()
    for _ in range(MAX_REPLAYED + 1):
        chain.win()
    update = await follower.catch_up()
    assert update.note is not None
    assert f"{MAX_REPLAYED + 1} generations behind" in update.note
    assert_follows(follower, chain)


async def test_false_weights_are_refused() -> None:
    chain = FakeChain()
    chain.begin()
    follower = make_follower(chain)
    entries, weights = chain.versions[chain.height - 1]
    chain.versions[chain.height - 1] = (entries, weights[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(InvalidProof):
        await follower.catch_up()
    assert follower.head is None


@pytest.mark.parametrize("blocks", [0, 1, 2])
async def test_a_chain_that_takes_no_proofs_yet_is_waited_for(blocks: int) -> None:
    chain = FakeChain()
    for _ in range(blocks):
        chain.add_block(1_000_000)
    follower = make_follower(chain)
    with pytest.raises(ChainNotBegun):
        await follower.catch_up()
    while chain.height < 3:
        chain.add_block(1_000_000)
    assert (await follower.catch_up()).is_current
