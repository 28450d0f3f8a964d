"""kill -9 at random moments: the chain ends up as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.chain import get_chain_status
from pol_abci.client.rpc import NodeUnreachable, RpcClient, RpcError
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.ledger import compute_supply_gap
from pol_abci.rules.merkle import BUCKETS
from pol_abci.store.store import Store
from tests.e2e.quick_home import Program, make_quick_home, run_program, wait_for

if TYPE_CHECKING:
    from pol_abci.node.home import Home

pytestmark = pytest.mark.e2e

KILLS = 10


def find_process(ancestor: int, part: str) -> int | None:
    """A process below `ancestor` whose command line holds `part`."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    for pid, command in commands.items():
        line, parent = command.decode(errors="replace"), pid
        while parent in parents and parent != ancestor:
            parent = parents[parent]
        if parent == ancestor and pid != ancestor and part in line:
            return pid
    return None


async def wait_for_generation(rpc: RpcClient, generation: int) -> int:
    """The newest generation, once it is at least this one."""

    async def ask() -> int | None:
        try:
            status = await get_chain_status(rpc)
        except (NodeUnreachable, RpcError):
            return None
        return status.generation if status.generation >= generation else None

    return await wait_for(ask)


async def stop(program: Program) -> None:
    program.process.send_signal(signal.SIGTERM)
    assert await program.wait() == 0, "\n".join(program.lines)


def read_chain(home: Home) -> tuple[bytes, list[GenerationRecord]]:
    """App hash and generations on disk, the coins counted."""
    digest = compute_genesis_digest(home.genesis)
    store = Store.open(home.store_folder, chain_id=home.settings.chain_id, genesis_digest=digest)
    try:
        store.verify()
        state = store.state()
        entries = [entry for bucket in range(BUCKETS) for entry in state.bucket(bucket)]
        assert compute_supply_gap(state, entries) == 0
        records = [GenerationRecord.decode(data) for _, data in store.records(1, 1_000)]
        return store.app_hash, records
    finally:
        store.close()


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
            part = "start --home" if kill % 2 else "cometbft node"
            pid = find_process(up.process.pid, part)
            if pid is not None:  # it may not have come back from the last kill yet
                os.kill(pid, signal.SIGKILL)
            reached = await wait_for_generation(rpc, reached + 1)
        await stop(up)
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
        await stop(again)
    replayed_hash, replayed = read_chain(home)
    assert replayed_hash == app_hash
    assert strip_accuracy(replayed) == strip_accuracy(records)
