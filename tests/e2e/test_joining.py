"""Nodes join a chain that runs: by a snapshot, and by executing its blocks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import tomlkit

from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.transactions import build_transfer
from pol_abci.node.home import Home, load_home
from pol_abci.node.presets import load_preset
from pol_abci.rules.params import Address, Amount
from tests.e2e.quick_home import (
    get_free_port,
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for_generation,
    wait_for_status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pol_abci.rules.params import Params

pytestmark = pytest.mark.e2e

INTERVAL = 60
FEE, AMOUNT = Amount(1_000), Amount(7)
RECIPIENT = Address(bytes(range(20)))


async def test_a_node_joins_by_a_snapshot_while_transfers_go_on(tmp_path: Path) -> None:
    async with run_first_node(tmp_path / "first") as (_, rpc):
        await wait_for_status(rpc, lambda status: status.snapshot_height is not None)
        home, said = await join(tmp_path / "second", rpc.url)
        assert any("Trusting" in line for line in said), said
        async with run_program("up", "--home", home.path, "--no-mine") as up:
            await watch_it_verify(home, rpc)
            assert count_restored(home) == 1
            await stop_program(up)
        _, records = read_chain(home)
        assert records[0].generation > 1  # what was before the snapshot it does not know
        # state sync is still switched on, and not asked for again
        async with run_program("up", "--home", home.path, "--no-mine") as up:
            await watch_it_verify(home, rpc)
            await stop_program(up)
        assert count_restored(home) == 1
        _, later = read_chain(home)
        assert later[: len(records)] == records


async def test_a_node_joins_by_blocks_and_walks_every_generation(tmp_path: Path) -> None:
    async with run_first_node(tmp_path / "first") as (_, rpc):
        await wait_for_generation(rpc, 8)
        home, _ = await join(tmp_path / "second", rpc.url, "--blocks")
        async with run_program("up", "--home", home.path, "--no-mine") as up:
            await watch_it_verify(home, rpc)
            await stop_program(up)
        assert count_restored(home) == 0
        _, records = read_chain(home)
        assert [each.generation for each in records] == list(range(1, len(records) + 1))


@asynccontextmanager
async def run_first_node(path: Path) -> AsyncIterator[tuple[Home, RpcClient]]:
    """A chain with a miner, of which snapshots are taken and whose account pays without end."""
    home = make_quick_home(path, change=restore_stamps)
    file = home.path / "pol.toml"
    settings = tomlkit.parse(file.read_text())
    settings["app"]["snapshot_interval"] = INTERVAL
    file.write_text(tomlkit.dumps(settings))
    async with run_program("up", "--home", home.path), RpcClient(home.settings.rpc_url) as rpc:
        await wait_for_generation(rpc, 1)
        paying = asyncio.create_task(pay_without_end(home, rpc))
        try:
            yield home, rpc
            assert not paying.done(), paying
        finally:
            paying.cancel()
            await asyncio.gather(paying, return_exceptions=True)


def restore_stamps(params: Params) -> Params:
    """Parameters of the preset, which a home that joins is made by."""
    stamp_bits = load_preset("digits").params.walk.stamp_bits
    return replace(params, scheme=replace(params.walk, stamp_bits=stamp_bits))


async def pay_without_end(home: Home, rpc: RpcClient) -> None:
    key = AccountKey.load(home.account_file)
    sequence = 1
    while True:
        raw = build_transfer(
            key,
            home.settings.chain_id,
            sequence=sequence,
            fee=FEE,
            recipient=RECIPIENT,
            amount=AMOUNT,
        )
        assert (await rpc.broadcast_tx_sync(raw)).is_accepted
        sequence += 1
        await asyncio.sleep(0.5)


async def join(path: Path, url: str, *options: str) -> tuple[Home, list[str]]:
    """Make a home by `join`; what it said."""
    ports = ("--rpc-port", str(get_free_port()), "--p2p-port", str(get_free_port()))
    async with run_program("join", "--from", url, "--home", path, *ports, *options) as program:
        assert await program.wait() == 0, "\n".join(program.lines)
    return load_home(path), program.lines


async def watch_it_verify(home: Home, rpc: RpcClient) -> None:
    """Wait until a node has verified new generations, and hold it against the first one."""
    async with RpcClient(home.settings.rpc_url) as joined:
        now = (await wait_for_status(rpc, lambda _: True)).generation
        status = await wait_for_status(
            joined,
            lambda status: status.generation > now + 1 and status.verifier.walked > 0,
        )
        there, here = [await each.commit(status.height) for each in (rpc, joined)]
        assert there == here


def count_restored(home: Home) -> int:
    """How often this node's app took a snapshot over."""
    return (home.path / "logs" / "app.log").read_text().count("the state is the snapshot's")
