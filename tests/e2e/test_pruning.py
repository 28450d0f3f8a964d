"""A node that keeps its newest blocks only goes on as others do, and says what it lacks."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.chain import get_history
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.node.binary import find_cometbft
from pol_abci.node.layout import SETTINGS_FILE
from tests.e2e.quick_home import (
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.params import Params

pytestmark = pytest.mark.e2e

KEPT = 8


def shorten_maturity(params: Params) -> Params:
    """Evidence may then reach `KEPT` blocks and two seconds back."""
    return replace(params, ledger=replace(params.ledger, maturity_generations=KEPT // 4))


async def find_oldest_block(rpc: RpcClient) -> int | None:
    """The lowest height that the node has, once the first proof is in a block below it."""
    try:
        sync = (await rpc.call("status")).at("sync_info")
        records = await get_history(rpc, 1)
    except (NodeUnreachable, RpcError):
        return None
    oldest = sync.integer("earliest_block_height")
    return oldest if records and oldest > records[0].height else None


async def test_a_pruned_node_starts_goes_back_goes_on_and_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    home = make_quick_home(tmp_path / "home", change=shorten_maturity)
    settings = home.path / SETTINGS_FILE
    settings.write_text(settings.read_text().replace("keep_blocks = 0", f"keep_blocks = {KEPT}"))
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        oldest = await wait_for(lambda: find_oldest_block(rpc))
        newest = (await rpc.status()).latest_height
        assert newest - oldest + 1 >= KEPT
        async with run_program("history", "--home", home.path, "--limit", "1000") as history:
            assert await history.wait() == 0
        assert any(line.startswith("time unknown ") for line in history.lines)
        assert "generation 1," in "\n".join(history.lines)
        await stop_program(up)
    _, records = read_chain(home)
    assert [each.generation for each in records] == list(range(1, len(records) + 1))

    async with run_program("replay", "--home", home.path) as replay:
        assert await replay.wait() == 1
    assert "error: " in replay.lines[-1]
    assert "has no block 1 any more" in replay.lines[-1]
    assert "Ask a node that keeps them all" in replay.lines[-1]

    async with run_program("rollback", "--home", home.path) as back:
        assert await back.wait() == 0, "\n".join(back.lines)
    subprocess.run(  # noqa: ASYNC221  (nothing else runs here)
        [find_cometbft(print), "rollback", "--home", home.cometbft_folder],
        check=True,
        capture_output=True,
    )
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, len(records) + 2)
        await stop_program(up)
    _, after = read_chain(home)
    assert [each.tx_hash for each in after[: len(records)]] == [each.tx_hash for each in records]

    # Without its store it would need all blocks; CometBFT's own words say so.
    shutil.rmtree(home.store_folder)
    async with run_program("up", "--home", home.path, "--no-mine") as up:
        assert await up.wait() == 1
    assert "is too far below block store base" in "\n".join(up.lines)
