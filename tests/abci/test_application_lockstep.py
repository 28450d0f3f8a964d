"""Nodes that execute the same blocks stay equal, wherever one of them dies on the way."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pol_abci.rules import keys
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.ledger import get_account
from tests.abci.digits_chain import make_consensus_key, make_key
from tests.abci.digits_driver import run_chain, transfer
from tests.abci.digits_story import (
    STORY_INTERVAL_MS,
    STORY_PROOFS,
    make_story_genesis,
    tell_story,
)
from tests.abci.driver import CrashPoint

if TYPE_CHECKING:
    from pathlib import Path


async def test_two_nodes_agree_on_proofs_ledger_validators_and_punishment(tmp_path: Path) -> None:
    async with run_chain(
        tmp_path, nodes=2, genesis=make_story_genesis(), block_interval_ms=STORY_INTERVAL_MS
    ) as chain:
        await tell_story(chain)
        one, two = (node.replica for node in chain.nodes)
        assert one.store.app_hash == two.store.app_hash
        assert one.store.weights() == two.store.weights()
        assert one.get_head() == two.get_head()
        assert one.get_head().generation == STORY_PROOFS
        # the driver asserts equal answers; these are what the story was about
        kinds = [event.type for block in chain.driver.blocks for event in block.reply.events]
        assert kinds == ["jail", "bar"]
        assert get_account(one.state, make_key(2).address).barred
        assert not get_account(one.state, make_key(3).address).jailed
        powers = chain.driver.validators
        assert make_consensus_key(2).public_key not in powers
        assert powers[make_consensus_key(4).public_key] >= 2
        for node in chain.nodes:
            node.replica.store.verify()


@pytest.mark.parametrize("crash", CrashPoint)
@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_crash_at_any_point_of_any_block_changes_nothing(
    tmp_path: Path, crash: CrashPoint, nodes: int
) -> None:
    async with run_chain(tmp_path / "crashing", nodes=nodes) as chain:
        # before the first Commit, before t_0 is set, at a proof, at coins, at nothing
        await chain.driver.make_block(crash=crash)
        await chain.driver.make_block(crash=crash, crashing_node=nodes - 1)
        proof = chain.mine(5)
        await chain.driver.make_block([proof], crash=crash)
        await chain.driver.make_block(
            [transfer(1, 1, recipient=5), chain.mine(1)], crash=crash, crashing_node=nodes - 1
        )
        await chain.driver.make_block(crash=crash)
        blocks = chain.driver.blocks
        assert [block.codes for block in blocks] == [(), (), (0,), (0, 0), ()]
        crashed = [node.replica.store.app_hash for node in chain.nodes]
    async with run_chain(tmp_path / "calm") as chain:
        for block in blocks:
            await chain.driver.make_block(block.txs)
        replica = chain.nodes[0].replica
        assert crashed == [replica.store.app_hash] * nodes
        records = [GenerationRecord.decode(data) for _, data in replica.store.records(0, 10)]
        assert [record.height for record in records] == [3, 4]


async def test_a_node_that_misses_heights_or_loses_its_folder_replays_them(tmp_path: Path) -> None:
    async with run_chain(tmp_path, nodes=2) as chain:
        await chain.begin()
        await chain.driver._crash_node(chain.driver.nodes[1])
        for height in (3, 4, 5):  # node 1 is down
            block = chain.make_block_request([chain.mine(1), transfer(1, height - 2)])
            await chain.driver._execute(block, chain.driver.nodes[0], None)
        assert [block.codes for block in chain.driver.blocks[2:]] == [(0, 0)] * 3
        await chain.driver.start()
        assert chain.nodes[1].replica.store.app_hash == chain.nodes[0].replica.store.app_hash
        assert chain.nodes[1].verifier.walks == 3

        await chain.driver._crash_node(chain.driver.nodes[1])
        chain.nodes[1].close()
        shutil.rmtree(chain.nodes[1].path)
        await chain.driver.start()  # from block 1
        one, two = (node.replica for node in chain.nodes)
        assert two.store.app_hash == one.store.app_hash
        assert two.store.records(0, 10) == one.store.records(0, 10)
        assert two.state.get(keys.supply()) == one.state.get(keys.supply())
