"""kill -9 at random moments: the chain ends up as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.rpc import RpcClient
from tests.e2e.quick_home import (
    APP,
    COMETBFT,
    kill_child,
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.codec import GenerationRecord

pytestmark = pytest.mark.e2e

KILLS = 10


def strip_accuracy(records: list[GenerationRecord]) -> list[tuple[int, int, int, bytes, bytes]]:
    """What consensus decided of each generation."""
    return [
        (each.generation, each.height, each.score, each.weights_root, each.tx_hash)
        for each in records
    ]


@pytest.mark.timeout(900)
async def test_ten_kills_of_app_and_cometbft_lose_and_double_nothing(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    moments = random.Random(20)
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        reached = await wait_for_generation(rpc, 2)
        for kill in range(KILLS):
            await asyncio.sleep(moments.uniform(0.0, 1.5))
            await kill_child(up, APP if kill % 2 else COMETBFT)
            reached = await wait_for_generation(rpc, reached + 1)
        await stop_program(up)
    app_hash, records = read_chain(home)
    assert [each.generation for each in records] == list(range(1, len(records) + 1))
    assert len({each.tx_hash for each in records}) == len(records) >= reached

    # CometBFT replays all blocks into an app without a store, and stops at the first difference.
    shutil.rmtree(home.store_folder)
    async with (
        run_program("up", "--home", home.path, "--no-mine") as again,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, reached)
        await stop_program(again)
    replayed_hash, replayed = read_chain(home)
    assert replayed_hash == app_hash
    assert strip_accuracy(replayed) == strip_accuracy(records)
