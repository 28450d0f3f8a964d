"""Whatever happens to a node's processes and its disk, nothing is lost and nothing is doubled."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.rpc import RpcClient
from pol_abci.store.environment import DATA_FILE
from tests.e2e.faults import PARTS, Victim
from tests.e2e.quick_home import (
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    strip_accuracy,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(900)
async def test_kills_stops_and_a_full_disk_lose_and_double_nothing(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, 2)
        victim = Victim(home, up, rpc, random.Random(20))
        for process in PARTS:
            await victim.kill(process)
        for process in PARTS:
            await victim.stop(process)
        await victim.refuse_writes()
        assert all(outcome.lost == 0 for outcome in victim.outcomes.values())
        await stop_program(up)
    log = (home.path / "logs" / "app.log").read_text()
    assert "The store stays as it was at the last commit; make room and start again" in log
    assert "Traceback" not in log
    app_hash, records = read_chain(home)
    assert [each.generation for each in records] == list(range(1, len(records) + 1))
    assert len({each.tx_hash for each in records}) == len(records)

    # A damaged store is refused in words, which say what helps: to delete it.
    data = home.store_folder / DATA_FILE
    os.truncate(data, data.stat().st_size // 2)
    async with run_program("start", "--home", home.path) as start:
        assert await start.wait() == 1
    said = "\n".join(start.lines)
    assert "is damaged" in said
    assert "let the node replay the chain" in said
    assert "Traceback" not in said

    # CometBFT replays all blocks into an app without a store, and stops at the first difference.
    shutil.rmtree(home.store_folder)
    async with (
        run_program("up", "--home", home.path, "--no-mine") as again,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, len(records))
        await stop_program(again)
    replayed_hash, replayed = read_chain(home)
    assert replayed_hash == app_hash
    assert strip_accuracy(replayed) == strip_accuracy(records)
