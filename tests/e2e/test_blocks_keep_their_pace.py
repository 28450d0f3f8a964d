"""Blocks do not wait for the verifier: transfers get in while a walk of seconds is redone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.client.transactions import build_proof, build_transfer
from pol_abci.learning.task import Head, load_task
from pol_abci.learning.walk import Walk
from pol_abci.learning.weights import from_bytes
from pol_abci.rules.errors import PendingProof
from pol_abci.rules.params import Amount, Params
from pol_abci.rules.proof import WalkClaim
from tests.e2e.quick_home import make_quick_home, run_program, wait_for_status

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

pytestmark = pytest.mark.e2e

LONG_WALK_STEPS = 5_000
TRANSFERS = 4


def allow_long_walks(params: Params) -> Params:
    return replace(params, scheme=replace(params.walk, max_steps=LONG_WALK_STEPS))


async def wait_for_height(rpc: RpcClient, height: int) -> None:
    await wait_for_status(rpc, lambda status: status.height >= height)


async def walk_long(home: Home, rpc: RpcClient, key: AccountKey) -> bytes:
    """A true proof of the longest walk allowed."""
    params, chain_id = home.genesis.params, home.settings.chain_id
    task = load_task(params, home.genesis.weights_root, chain_id)
    light = LightClient(rpc, chain_id)
    head = await light.get_head()
    data = await light.get_weights(head.weights_root, 4 * task.model.size)
    assert data is not None
    weights = from_bytes(task.model, data)
    walk = Walk(task, Head(head.generation, head.seed, weights), key.address, 1)
    for _ in range(LONG_WALK_STEPS):
        walk.step()
    claim = WalkClaim(
        generation=head.generation,
        address=key.address,
        nonce=1,
        steps=LONG_WALK_STEPS,
        step_digests=walk.digests,
        weights_root=walk.root(),
    )
    bits = params.walk.stamp_bits
    return build_proof(key, chain_id, claim, seed=head.seed, stamp_bits=bits)


@pytest.mark.timeout(600)
async def test_transfers_are_committed_while_a_long_walk_is_verified(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home", difficulty_bits=0.0, change=allow_long_walks)
    key, friend = AccountKey.load(home.account_file), AccountKey.generate()
    async with (
        run_program("up", "--home", home.path, "--no-mine"),
        RpcClient(home.settings.rpc_url) as rpc,
    ):
        await wait_for_status(rpc, lambda status: status.head_time_ms > 0)
        proof = await walk_long(home, rpc, key)
        assert (await rpc.broadcast_tx_sync(proof)).code == PendingProof.code
        await wait_for_status(rpc, lambda status: status.verifier.walking)
        for sequence in range(1, TRANSFERS + 1):
            transfer = build_transfer(
                key,
                home.settings.chain_id,
                sequence=sequence,
                fee=Amount(1_000),
                recipient=friend.address,
                amount=Amount(5),
            )
            height = (await get_chain_status(rpc)).height
            assert (await rpc.broadcast_tx_sync(transfer)).is_accepted
            await wait_for_height(rpc, height + 1)
        status = await get_chain_status(rpc)
        assert status.verifier.walking, "the walk was over before the transfers were in"
        assert status.generation == 0
        done = await wait_for_status(rpc, lambda status: status.generation == 1)
        await wait_for_height(rpc, done.height + 1)  # whose header proves the state
        light = LightClient(rpc, home.settings.chain_id)
        received = await light.get_account(friend.address)
        assert received is not None
        assert received.balance == 5 * TRANSFERS
        assert done.verifier.false == 0
