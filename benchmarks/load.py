"""A load of transactions for a CometBFT, light enough not to be what is measured.

Requests are written out before the clock runs. Each connection has one `broadcast_tx_sync` under
way at a time and sends its transactions in order. So that no mempool overflows, at most
`MAX_WAITING` transactions are sent and not yet in a block.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httpx
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WAITING = 3_000
"""CometBFT's mempool has room for 5,000."""
POLL_S = 0.05
PATIENCE_S = 60.0
"""For anything to happen."""
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"


class Load:
    """Transactions on their way, shared by the connections that send them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.answered = 0
        self.committed = 0
        self.parked: list[Line] = []
        self.failure: str | None = None

    def note_committed(self, count: int) -> None:
        """Let the connections go on that waited for room."""
        self.committed = count
        parked, self.parked = self.parked, []
        for line in parked:
            line.send_next()


class Line(asyncio.Protocol):
    """One connection. A subclass says how calls and answers look on the wire."""

    def __init__(self, load: Load, url: str, txs: Sequence[bytes]) -> None:
        self._load = load
        self._url = url
        self._calls = iter([self.encode(compose_call(tx)) for tx in txs])
        self.is_open = asyncio.Event()

    def encode(self, call: bytes) -> bytes:
        """A call as it is sent."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is of another class

    def connection_lost(self, exc: Exception | None) -> None:
        """No line is closed before the end."""
        self._load.failure = f"{self._url} closed the connection: {exc}"

    def send_next(self) -> None:
        """Send the next transaction, or wait until there is room."""
        load = self._load
        if load.sent - load.committed >= MAX_WAITING:
            load.parked.append(self)
        elif (call := next(self._calls, None)) is not None:
            load.sent += 1
            self.transport.write(call)

    def take(self, answer: bytes) -> None:
        """Look at an answer and go on."""
        if b'"code":0' not in answer:
            self._load.failure = f"{self._url} refuses a transaction: {answer.decode()}"
        self._load.answered += 1
        self.send_next()


class HttpLine(Line):
    """JSON-RPC by POST over one connection that is kept."""

    def __init__(self, load: Load, url: str, txs: Sequence[bytes]) -> None:
        self._host = urlsplit(url).netloc.encode()
        self._answer = b""
        super().__init__(load, url, txs)

    def encode(self, call: bytes) -> bytes:
        """The call as the body of a request."""
        head = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        return (head + b"Content-Length: %d\r\n\r\n%b") % (self._host, len(call), call)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is to be agreed on first."""
        super().connection_made(transport)
        self.is_open.set()

    def data_received(self, data: bytes) -> None:
        """Take an answer once all of it is there."""
        self._answer += data
        head, end, body = self._answer.partition(END_OF_HEAD)
        if end and len(body) >= int(head.lower().partition(LENGTH)[2].split()[0]):
            self._answer = b""
            self.take(body)


class WebSocketLine(Line):
    """JSON-RPC as the messages of one WebSocket."""

    def __init__(self, load: Load, url: str, txs: Sequence[bytes]) -> None:
        self._protocol = ClientProtocol(parse_uri(f"ws{url.removeprefix('http')}/websocket"))
        super().__init__(load, url, txs)

    def encode(self, call: bytes) -> bytes:
        """The call as one masked frame."""
        return Frame(Opcode.TEXT, call).serialize(mask=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        super().connection_made(transport)
        self._protocol.send_request(self._protocol.connect())
        self.transport.writelines(self._protocol.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Take answers; what the protocol itself has to say is sent."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                self.is_open.set()
            elif event.opcode is Opcode.TEXT:
                self.take(bytes(event.data))
        self.transport.writelines(self._protocol.data_to_send())


def compose_call(tx: bytes) -> bytes:
    """A call of broadcast_tx_sync."""
    params = {"tx": base64.b64encode(tx).decode()}
    call = {"jsonrpc": "2.0", "id": 1, "method": "broadcast_tx_sync", "params": params}
    return json.dumps(call).encode()


async def measure_rate(
    kind: type[Line], url: str, txs_of_lines: Sequence[Sequence[bytes]]
) -> float:
    """Committed transactions a second, from the first that is sent to the last one's block."""
    load = Load(sum(map(len, txs_of_lines)))
    address = str(urlsplit(url).hostname), urlsplit(url).port or 0
    loop = asyncio.get_running_loop()
    lines = []
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        first = await read_height(client)
        for txs in txs_of_lines:
            line = kind(load, url, txs)
            await loop.create_connection(lambda line=line: line, *address)  # type: ignore[misc]
            await asyncio.wait_for(line.is_open.wait(), PATIENCE_S)
            lines.append(line)
        start_s = time.perf_counter()
        for line in lines:
            line.send_next()
        while load.committed < load.size:
            await asyncio.sleep(POLL_S)
            if load.failure is not None:
                raise RuntimeError(load.failure)
            answered = load.answered
            load.note_committed(answered - await read_waiting(client))
        seconds = time.perf_counter() - start_s
        included = await count_included(client, first + 1, await read_height(client))
        if included != load.size:
            raise RuntimeError(f"{url}: {included} of {load.size} transactions are in blocks")
    for line in lines:
        line.transport.abort()
    return load.size / seconds


async def read_waiting(client: httpx.AsyncClient) -> int:
    """Transactions in the mempool; those of a block leave it after its Commit."""
    answer = await client.get("/num_unconfirmed_txs")
    return int(answer.json()["result"]["n_txs"])


async def read_height(client: httpx.AsyncClient) -> int:
    """The newest block's."""
    answer = await client.get("/blockchain", params={"minHeight": "1", "maxHeight": "1"})
    return int(answer.json()["result"]["last_height"])


async def count_included(client: httpx.AsyncClient, first: int, last: int) -> int:
    """Transactions in blocks; CometBFT answers for 20 of them at a time."""
    count = 0
    for low in range(first, last + 1, 20):
        span = {"minHeight": str(low), "maxHeight": str(min(low + 19, last))}
        answer = await client.get("/blockchain", params=span)
        count += sum(int(meta["num_txs"]) for meta in answer.json()["result"]["block_metas"])
    return count
