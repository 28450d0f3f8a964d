from __future__ import annotations

import asyncio
import json
import socket
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import serve

from pol_abci.client.answers import BlockHeader
from pol_abci.client.events import Connected, Disconnected, Patience, follow_blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.server import ServerConnection

QUICK = Patience(
    connect_s=1, ping_s=0.05, pong_s=0.05, idle_s=5, first_retry_s=0.01, last_retry_s=0.05
)


def make_event(height: int) -> str:
    header = {
        "chain_id": "c",
        "height": str(height),
        "time": "2026-11-23T06:21:42.8Z",
        "app_hash": "",
        "proposer_address": "",
    }
    return json.dumps({"id": 1, "result": {"data": {"value": {"header": header}}}})


class FakeNode:
    """CometBFT's WebSocket: answers a subscription, then sends what it is told to."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.subscriptions: list[Any] = []
        self.subscribed = asyncio.Event()
        self.answer: dict[str, Any] = {"id": 1, "result": {}}

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        async for message in connection:
            self.subscriptions.append(json.loads(message))
            await connection.send(json.dumps(self.answer))
            self.subscribed.set()

    @asynccontextmanager
    async def listen(self, port: int) -> AsyncIterator[None]:
        self.subscribed.clear()
        async with serve(self.handle, "127.0.0.1", port):
            yield

    async def send(self, text: str) -> None:
        await self.subscribed.wait()
        await self.connections[-1].send(text)


async def test_blocks_are_followed_over_a_restart_of_the_node(unused_tcp_port: int) -> None:
    node = FakeNode()
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with aclosing(follow_blocks(url, QUICK)) as events:
        async with node.listen(unused_tcp_port):
            assert await anext(events) == Connected()
            await node.send(make_event(5))
            header = await anext(events)
            assert isinstance(header, BlockHeader)
            assert header.height == 5
        lost = await anext(events)
        assert isinstance(lost, Disconnected)
        assert url in lost.reason
        refused = await anext(events)
        assert isinstance(refused, Disconnected)
        assert "no node answers" in refused.reason
        async with node.listen(unused_tcp_port):
            event = await anext(events)
            while isinstance(event, Disconnected):
                event = await anext(events)
            assert event == Connected()
            await node.send(make_event(9))
            assert isinstance(await anext(events), BlockHeader)
    assert len(node.subscriptions) == 2
    assert node.subscriptions[0]["params"]["query"] == "tm.event='NewBlockHeader'"


async def test_a_node_that_accepts_and_then_hangs_is_noticed() -> None:
    # The system completes the connection, and nobody ever reads from it.
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    limits = Patience(connect_s=0.05, first_retry_s=0.01)
    with server:
        async with aclosing(follow_blocks(f"http://127.0.0.1:{port}", limits)) as events:
            event = await anext(events)
    assert isinstance(event, Disconnected)
    assert "in time" in event.reason


async def test_half_an_event_and_then_nothing_is_noticed(unused_tcp_port: int) -> None:
    node = FakeNode()
    async with (
        node.listen(unused_tcp_port),
        aclosing(follow_blocks(f"http://127.0.0.1:{unused_tcp_port}", QUICK)) as events,
    ):
        assert await anext(events) == Connected()
        await node.subscribed.wait()
        hung = node.connections[-1].transport
        hung.pause_reading()  # answers no ping either
        # A text frame of 100 bytes is announced, and 5 of them come.
        hung.write(bytes([0x81, 100]) + b'{"id"')
        lost = await anext(events)
        assert isinstance(lost, Disconnected)
        assert await anext(events) == Connected()
        hung.abort()


async def test_a_connection_without_blocks_is_made_anew(unused_tcp_port: int) -> None:
    node = FakeNode()
    limits = Patience(idle_s=0.05, first_retry_s=0.01)
    async with (
        node.listen(unused_tcp_port),
        aclosing(follow_blocks(f"http://127.0.0.1:{unused_tcp_port}", limits)) as events,
    ):
        kinds = [type(await anext(events)) for _ in range(3)]
    assert kinds == [Connected, Disconnected, Connected]


@pytest.mark.parametrize(
    "message",
    [
        json.dumps({"id": 1, "error": {"code": -32603, "data": "subscription was cancelled"}}),
        json.dumps({"id": 1, "result": {"data": {}}}),
        "{",
    ],
)
async def test_a_subscription_that_ends_or_goes_wrong_is_made_anew(
    unused_tcp_port: int, message: str
) -> None:
    node = FakeNode()
    async with (
        node.listen(unused_tcp_port),
        aclosing(follow_blocks(f"http://127.0.0.1:{unused_tcp_port}", QUICK)) as events,
    ):
        assert await anext(events) == Connected()
        await node.send(message)
        assert isinstance(await anext(events), Disconnected)
        assert await anext(events) == Connected()


async def test_pauses_grow_while_the_node_is_away(unused_tcp_port: int) -> None:
    limits = Patience(first_retry_s=0.001, last_retry_s=0.1)
    events = follow_blocks(f"http://127.0.0.1:{unused_tcp_port}", limits)
    pauses = []
    async with aclosing(events):
        for _ in range(7):
            event = await anext(events)
            assert isinstance(event, Disconnected)
            pauses.append(event.retry_s)
    for number, pause_s in enumerate(pauses):
        assert 0.0005 * 2**number <= pause_s <= 0.001 * 2**number
