"""TCP relays between the nodes of a network: they delay, hold and cut what goes between two nodes.

Each node reaches each other one through a relay of its own, which its `persistent_peers` name, and
hears of no other address, since peer exchange is off. Needs neither root nor the kernel's netem.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pol_abci.app.tasks import run_until_first_ends
from pol_abci.node.cometbft_setup import change_config
from pol_abci.node.layout import compute_node_id
from tests.e2e.quick_home import get_p2p_port

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from pol_abci.node.home import Home

HOST = "127.0.0.1"
SEGMENT_BYTES = 1_448
"""What a TCP segment carries over Ethernet: so much is lost at a time."""
CHUNK_BYTES = 65_536
CHUNKS_IN_FLIGHT = 64


@dataclass(slots=True)
class Line:
    """How a relay carries: `delay_s` each way, and `loss` of a segment, a probability.

    TCP hides a loss: what was lost, and all behind it, comes a retransmission later, after a round
    trip. So that is what a loss does here.
    """

    choose: random.Random
    delay_s: float = 0.0
    loss: float = 0.0

    def draw_delay_s(self, chunk: bytes) -> float:
        """How long this chunk travels."""
        segments = math.ceil(len(chunk) / SEGMENT_BYTES)
        arrived = (1 - self.loss) ** segments
        # It may be lost again.
        retransmissions = 0
        while self.loss and self.choose.random() >= arrived:
            retransmissions += 1
        return self.delay_s * (1 + 2 * retransmissions)


@dataclass(slots=True)
class Relay:
    """The way from one node to another's port."""

    target_port: int
    line: Line
    port: int = 0
    _server: asyncio.Server | None = None
    _is_cut: bool = False
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on a free port."""
        self._open.set()
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def hold(self) -> None:
        """Let nothing arrive, and end no connection: packets go astray until `mend`."""
        self._open.clear()

    def cut(self) -> None:
        """End all connections, and each new one at once."""
        self._is_cut = True
        for connection in self._connections:
            connection.cancel()

    def mend(self) -> None:
        """Carry again; what was held arrives now."""
        self._is_cut = False
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of its own, which may be cancelled: asyncio minds when its own one is.
        connection = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_cut:
                return
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
            try:
                await run_until_first_ends(
                    self._pump(reader, far_writer), self._pump(far_reader, writer)
                )
            finally:
                far_writer.transport.abort()
        except OSError:  # nobody listens there, or one end is gone: as between any two machines
            return
        finally:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until its sender ends."""
        travelling: deque[tuple[float, bytes]] = deque()
        room, loop = asyncio.Semaphore(CHUNKS_IN_FLIGHT), asyncio.get_running_loop()
        sent = asyncio.Event()

        async def read() -> None:
            due_s = 0.0
            while chunk := await reader.read(CHUNK_BYTES):
                await room.acquire()
                due_s = max(due_s, loop.time() + self.line.draw_delay_s(chunk))
                travelling.append((due_s, chunk))
                sent.set()

        async def write() -> None:
            while True:
                await sent.wait()
                sent.clear()
                while travelling:
                    due_s, chunk = travelling.popleft()
                    await asyncio.sleep(max(0.0, due_s - loop.time()))
                    await self._open.wait()
                    writer.write(chunk)
                    await writer.drain()
                    room.release()

        await run_until_first_ends(read(), write())


@dataclass(slots=True)
class Relays:
    """A relay for each ordered pair of a network's nodes, by their numbers."""

    choose: random.Random
    by_pair: dict[tuple[int, int], Relay] = field(default_factory=dict)

    async def start(self, homes: Sequence[Home]) -> None:
        """Make the homes know each other by relays, and start these."""
        ports = [get_p2p_port(home) for home in homes]
        for pair in itertools.permutations(range(len(homes)), 2):
            relay = Relay(ports[pair[1]], Line(self.choose))
            await relay.start()
            self.by_pair[pair] = relay
        ids = [compute_node_id(home.path) for home in homes]
        for number, home in enumerate(homes):
            peers = [
                f"{ids[there]}@{HOST}:{relay.port}"
                for (here, there), relay in self.by_pair.items()
                if here == number
            ]
            change_config(home.path, {"p2p": {"persistent_peers": ",".join(peers), "pex": False}})

    async def close(self) -> None:
        """End all."""
        await asyncio.gather(*(relay.close() for relay in self.by_pair.values()))

    def hold(self, apart: Collection[int]) -> None:
        """Part these nodes from the others: nothing arrives, and no connection ends."""
        for relay in self._between(apart):
            relay.hold()

    def cut(self, apart: Collection[int]) -> None:
        """Part these nodes from the others: connections end, and none can be made."""
        for relay in self._between(apart):
            relay.cut()

    def mend(self) -> None:
        """Carry everything again."""
        for relay in self.by_pair.values():
            relay.mend()

    def slow(self, delay_s: float, loss: float) -> None:
        """From now on delay everything so long each way, and lose so much."""
        for relay in self.by_pair.values():
            relay.line.delay_s, relay.line.loss = delay_s, loss

    def _between(self, apart: Collection[int]) -> list[Relay]:
        return [
            relay
            for (here, there), relay in self.by_pair.items()
            if (here in apart) != (there in apart)
        ]
