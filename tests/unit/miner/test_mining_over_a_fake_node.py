from __future__ import annotations

import asyncio
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.rpc import RpcClient
from pol_abci.miner.miner import MinerSettings, WrongChain, run_miner
from pol_abci.rules import errors, keys
from pol_abci.rules.codec import Account
from tests.unit.miner.fake_chain import MINER, FakeChain, serve_node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.miner.status import MinerStatus


class Mining:
    """A running miner and all that it reported."""

    def __init__(self, port: int) -> None:
        self.statuses: list[MinerStatus] = []
        settings = MinerSettings(node_url=f"http://127.0.0.1:{port}", key=MINER)
        self.task = asyncio.create_task(run_miner(settings, self.statuses.append))

    async def wait_for(self, is_reached: Callable[[MinerStatus], bool]) -> MinerStatus:
        async with asyncio.timeout(60):
            while not (self.statuses and is_reached(self.statuses[-1])):
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.02)
        return self.statuses[-1]

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


def make_chain_now() -> FakeChain:
    chain = FakeChain()
    chain.begin(time.time_ns() // 10**6)
    return chain


async def test_a_miner_wins_and_earns(unused_tcp_port: int, tmp_path: Path) -> None:
    chain = make_chain_now()
    async with serve_node(chain, unused_tcp_port, tmp_path):
        mining = Mining(unused_tcp_port)
        status = await mining.wait_for(lambda status: bool(status.balance))
        await mining.stop()
    assert status.blocks_won >= 2  # the first matures two generations later
    assert status.coins_won == status.blocks_won * 50_000_000
    payload = chain.state.get(keys.account(MINER.address))
    assert payload is not None
    assert status.balance is not None
    assert 0 < status.balance <= Account.decode(payload).balance
    assert status.steps_per_second > 0
    assert status.odds is not None
    assert status.is_connected
    assert {code for _, code in chain.broadcasts} <= {
        errors.CODE_OK,
        errors.PendingProof.code,
        errors.StaleProof.code,
    }


async def test_a_miner_waits_for_a_node_and_outlives_its_restart(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    chain = make_chain_now()
    mining = Mining(unused_tcp_port)
    status = await mining.wait_for(lambda _: True)
    assert (
        "no node answers"
        in (await mining.wait_for(lambda s: s.connection != "connecting")).connection
    )
    async with serve_node(chain, unused_tcp_port, tmp_path):
        await mining.wait_for(lambda status: status.blocks_won >= 1)
    status = await mining.wait_for(lambda status: not status.is_connected)
    assert "trying again" in status.connection
    chain.win()  # while nobody listens
    missed = chain.head.generation
    async with serve_node(chain, unused_tcp_port, tmp_path):
        won = status.blocks_won
        await mining.wait_for(
            lambda status: status.blocks_won > won and (status.generation or 0) > missed
        )
        await mining.stop()


async def test_a_node_that_accepts_and_never_answers_is_told_and_outlived(
    unused_tcp_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain_now()
    monkeypatch.setattr("pol_abci.miner.miner.RpcClient", partial(RpcClient, timeout_s=0.3))
    # The system completes the connections, and nobody ever reads from them.
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        mining = Mining(unused_tcp_port)
        status = await mining.wait_for(lambda status: status.connection != "connecting")
        assert "did not answer genesis_chunked within 0.3 s; trying again" in status.connection
    async with serve_node(chain, unused_tcp_port, tmp_path):
        await mining.wait_for(lambda status: status.blocks_won >= 1)
        await mining.stop()


async def test_a_ticket_is_sent_again_to_a_node_that_lost_it(
    unused_tcp_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain_now()
    async with serve_node(chain, unused_tcp_port, tmp_path):
        mining = Mining(unused_tcp_port)
        # The node says PENDING and forgets, so nothing gets in.
        with monkeypatch.context() as patch:
            patch.setattr(chain, "judge", lambda *_: errors.PendingProof.code)
            await mining.wait_for(lambda _: was_repeated(chain))
            assert chain.head.generation == 0
        await mining.wait_for(lambda status: status.blocks_won >= 1)
        await mining.stop()


def was_repeated(chain: FakeChain) -> bool:
    sent = [tx.hash for tx, _ in chain.broadcasts]
    return len(sent) > len(set(sent))


async def test_a_node_that_comes_back_with_another_chain_ends_the_miner_in_words(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    chain = make_chain_now()
    async with serve_node(chain, unused_tcp_port, tmp_path):
        mining = Mining(unused_tcp_port)
        await mining.wait_for(lambda status: status.generation is not None)
    other = FakeChain(balance=1)  # the same name, another genesis
    other.begin(time.time_ns() // 10**6)
    async with serve_node(other, unused_tcp_port, tmp_path):
        with pytest.raises(WrongChain, match="another genesis"):
            await asyncio.wait_for(mining.task, 60)


async def test_a_node_of_another_name_ends_the_miner_in_words(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    chain = make_chain_now()
    async with serve_node(chain, unused_tcp_port, tmp_path):
        mining = Mining(unused_tcp_port)
        await mining.wait_for(lambda status: status.generation is not None)
        chain.chain_id = "other"
        with pytest.raises(WrongChain, match="now a node of other"):
            await asyncio.wait_for(mining.task, 60)


async def test_a_hanging_rpc_is_told_and_outlived(
    unused_tcp_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pol_abci.miner.miner.RpcClient", partial(RpcClient, timeout_s=0.3))
    chain = make_chain_now()
    async with serve_node(chain, unused_tcp_port, tmp_path) as node:
        mining = Mining(unused_tcp_port)
        await mining.wait_for(lambda status: status.blocks_won >= 1)
        node.is_answering.clear()
        status = await mining.wait_for(lambda status: "within 0.3 s" in status.note)
        node.is_answering.set()
        won = status.blocks_won
        await mining.wait_for(lambda status: status.blocks_won > won)
        await mining.stop()
