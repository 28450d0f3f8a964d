"""Floods of worthless transactions and proofs: blocks go on, and nothing piles up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import RpcError
from pol_abci.client.transactions import build_transfer
from pol_abci.rules import errors
from pol_abci.rules.params import Amount
from tests.e2e.flood import RPC_ERROR, flood, make_bad_transactions, make_false_proofs
from tests.e2e.quick_home import (
    APP,
    find_child,
    make_quick_home,
    read_chain,
    read_memory_bytes,
    run_program,
    stop_program,
    wait_for,
    wait_for_generation,
    wait_for_status,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

SENT = 200
"""Of each kind, at least; a generation's queue holds 256 walks."""
GENERATIONS = 3
MEMORY_BYTES = 64 * 2**20
"""What the app may grow by: the kept signatures' 32 MiB, and as much again."""
LOG_BYTES, LOG_BYTES_A_GENERATION = 5_000, 400
"""What the app may say meanwhile, whatever is sent."""
REFUSALS = {
    RPC_ERROR,
    errors.MalformedTx.code,
    errors.InvalidSignature.code,
    errors.InsufficientFunds.code,
    errors.InvalidSequence.code,
}


async def is_paid(light: LightClient, key: AccountKey, sequence: int) -> bool | None:
    try:
        account = await light.get_account(key.address)
    except RpcError:
        return None  # blocks come faster than this machine reads
    return (account is not None and account.sequence == sequence) or None


@pytest.mark.timeout(600)
async def test_generations_and_transfers_go_on_through_floods(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    key, friend = AccountKey.load(home.account_file), AccountKey.generate()
    log = home.path / "logs" / "app.log"
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url) as rpc,
    ):
        light = LightClient(rpc, home.settings.chain_id)
        await wait_for_generation(rpc, 1)
        app = await find_child(up, APP)
        memory, log_bytes = read_memory_bytes(app), log.stat().st_size
        for sequence, make in enumerate((make_bad_transactions, make_false_proofs), start=1):
            async with flood(home.settings.rpc_url, make(home)) as running:
                await running.wait_for_sent(SENT // 4)
                reached = (await get_chain_status(rpc)).generation
                transfer = build_transfer(
                    key,
                    home.settings.chain_id,
                    sequence=sequence,
                    fee=Amount(2_000),
                    recipient=friend.address,
                    amount=Amount(100_000),
                )
                assert (await rpc.broadcast_tx_sync(transfer)).is_accepted
                await wait_for(partial(is_paid, light, key, sequence))
                await wait_for_generation(rpc, reached + GENERATIONS)
                await running.wait_for_sent(SENT)
            if make is make_bad_transactions:
                assert set(running.codes) <= REFUSALS, running.codes
            else:
                assert running.codes[errors.PendingProof.code] > SENT // 4, running.codes
        status = await wait_for_status(rpc, lambda status: status.verifier.false > 0)
        assert await find_child(up, APP) == app, "the app has been restarted"
        assert read_memory_bytes(app) < memory + MEMORY_BYTES
        said_bytes = log.stat().st_size - log_bytes
        assert said_bytes < LOG_BYTES + LOG_BYTES_A_GENERATION * status.generation
        await stop_program(up)
    assert "Traceback" not in log.read_text()
    read_chain(home)
