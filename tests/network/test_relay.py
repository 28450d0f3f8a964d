"""The relays that network faults are made with: they carry, hold, cut and delay."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.network.relay import CHUNK_BYTES, HOST, Line, Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOMENT_S = 0.2


@asynccontextmanager
async def run_relay() -> AsyncIterator[Relay]:
    """A relay to a server that sends back what it gets."""
    ends = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
        writer.transport.abort()
        ends.set()

    server = await asyncio.start_server(echo, HOST, 0)
    relay = Relay(server.sockets[0].getsockname()[1], Line(random.Random(1)))
    await relay.start()
    try:
        yield relay
    finally:
        await relay.close()
        await ends.wait()
        server.close()


@asynccontextmanager
async def connect(
    relay: Relay,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, relay.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_bytes_arrive_whole_and_in_order() -> None:
    sent = random.Random(2).randbytes(40 * CHUNK_BYTES)
    async with run_relay() as relay, connect(relay) as (reader, writer):
        relay.line.delay_s, relay.line.loss = 0.001, 0.01
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


async def test_what_is_held_arrives_when_mended_on_the_same_connection() -> None:
    async with run_relay() as relay, connect(relay) as (reader, writer):
        relay.hold()
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(4), MOMENT_S)
        relay.mend()
        assert await reader.readexactly(4) == b"held"


async def test_a_cut_ends_connections_and_lets_none_be_made_until_mended() -> None:
    async with run_relay() as relay:
        async with connect(relay) as (reader, writer):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            relay.cut()
            assert await read_end(reader)
        async with connect(relay) as (reader, writer):
            assert await read_end(reader)
        relay.mend()
        async with connect(relay) as (reader, writer):
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"


async def test_a_delay_and_a_loss_make_what_is_sent_late() -> None:
    async with run_relay() as relay, connect(relay) as (reader, writer):
        relay.line.delay_s = MOMENT_S
        start = asyncio.get_running_loop().time()
        writer.write(b"late")
        assert await reader.readexactly(4) == b"late"
        assert asyncio.get_running_loop().time() - start >= 2 * MOMENT_S
    certain = Line(random.Random(3), delay_s=1.0, loss=0.9)
    assert max(certain.draw_delay_s(b"x") for _ in range(20)) >= 3.0


async def read_end(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True
