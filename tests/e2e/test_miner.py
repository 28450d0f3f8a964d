"""`pol-abci mine` with an account of its own, against a node that comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from tests.e2e.quick_home import (
    COMETBFT,
    kill_child,
    make_quick_home,
    run_program,
    stop_program,
    wait_for_generation,
    wait_for_status,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

MATURITY = 10
REWARD = 50_000_000


@pytest.mark.timeout(600)
async def test_a_miner_earns_over_a_restarted_node(tmp_path: Path) -> None:
    home, key_file = make_quick_home(tmp_path / "home"), tmp_path / "miner.json"
    async with run_program("keys", "new", key_file) as keys:
        assert await keys.wait() == 0
    key = AccountKey.load(key_file)
    node = home.settings.rpc_url
    async with (
        run_program("mine", "--node", node, "--key", key_file, "--json") as miner,
        run_program("up", "--home", home.path, "--no-mine") as up,  # the miner waits for it
        RpcClient(node, timeout_s=2.0) as rpc,
    ):
        reached = await wait_for_generation(rpc, 2)
        await kill_child(up, COMETBFT)
        reached = await wait_for_generation(rpc, max(reached, MATURITY) + 2)
        # One block more, whose header proves the rewards that have matured.
        height = (await wait_for_status(rpc, lambda _: True)).height
        await wait_for_status(rpc, lambda status: status.height > height)
        account = await LightClient(rpc, home.settings.chain_id).get_account(key.address)
        await stop_program(miner)
        await stop_program(up)
    assert account is not None, "nothing has matured"
    assert account.balance >= REWARD * (reached - MATURITY)
    assert account.balance % REWARD == 0
    assert "Traceback" not in "\n".join(miner.lines + up.lines)
