"""A node that mines under a load of transfers: are proofs starved, does memory grow, what is late.

    BENCH_SECONDS=300 BENCH_RATE=2000 python benchmarks/load_network.py

`pol-abci up` runs as a user runs it, miner included. For BENCH_BEFORE seconds nobody else asks for
anything; then BENCH_RATE transfers are offered a second, signed before the clock runs. An offer
that finds all connections waiting, or the mempool full, is not taken; that transfer is
offered again later, so that no sequence number is left out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop

from benchmarks.figures import Figure, main
from benchmarks.load import PATIENCE_S, HttpLine, Load, compose_call
from benchmarks.transfers import LINES as SIGNED_LINES
from benchmarks.transfers import SENDERS, Transfers, make_home, note
from pol_abci.cli.history import read_history
from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pol_abci.node.home import Home

SECONDS = float(os.environ.get("BENCH_SECONDS", "300"))
BEFORE_S = float(os.environ.get("BENCH_BEFORE", "120"))
RATE = int(os.environ.get("BENCH_RATE", "2000"))
PORTS = (29857, 29856)
"""RPC and peers. Not CometBFT's own choice: a node of the user's may run there."""
PARTS = 4
LINES = PARTS * SIGNED_LINES
"""Connections that send, each one transfer at a time."""
FIRST_GENERATIONS = 5
"""Of the new chain, before the time without load begins."""
TICK_S = 0.01
POLL_S = 0.05
WARM_PART = 0.2
"""Of the load, until caches are full; memory is compared from then on."""
PROCESSES = {"app": "pol_abci.cli start", "CometBFT": "node --home"}
"""What tells their command lines apart."""
FULL = b"mempool is full"
MB = 10**6


class Offer(Load):
    """Transfers that are offered at a steady rate, whatever becomes of them."""

    def __init__(self) -> None:
        super().__init__(size=0)
        self.offered = 0
        self.full = 0
        self.idle: deque[OfferedLine] = deque()
        self.accepted_s: dict[bytes, float] = {}
        self.latencies_s: list[float] = []
        self.has_ended = False

    async def run(self, seconds: float) -> None:
        """Offer `RATE` transfers a second for so long."""
        start_s = time.perf_counter()
        while (elapsed_s := time.perf_counter() - start_s) < seconds:
            if self.failure is not None:
                raise RuntimeError(self.failure)
            due = int(RATE * elapsed_s) - self.offered
            self.offered += due
            for _ in range(min(due, len(self.idle))):
                self.idle.popleft().send_next()
            await asyncio.sleep(TICK_S)
        self.has_ended = True

    def note_block(self, txs: Sequence[bytes], now_s: float) -> None:
        """Take in a block that is committed."""
        for tx in txs:
            accepted_s = self.accepted_s.pop(hashlib.sha256(tx).digest(), None)
            if accepted_s is not None:
                self.committed += 1
                self.latencies_s.append(now_s - accepted_s)


class OfferedLine(HttpLine):
    """A connection that sends its next transfer when one is offered to it."""

    def __init__(self, offer: Offer, url: str, txs: Sequence[bytes]) -> None:
        super().__init__(offer, url, ())
        self._offer = offer
        self._txs = deque(txs)

    def send_next(self) -> None:
        """Send the first transfer that the node has not yet."""
        self._offer.sent += 1
        self.transport.write(self.encode(compose_call(self._txs[0])))

    def take(self, answer: bytes) -> None:
        """Look at an answer, and be there for the next offer."""
        if b'"code":0' in answer:
            tx = self._txs.popleft()
            self._offer.accepted_s[hashlib.sha256(tx).digest()] = time.perf_counter()
        elif FULL in answer:
            self._offer.full += 1
        else:
            self._offer.failure = f"{self._url} refuses a transfer: {answer.decode()}"
        if self._txs:
            self._offer.idle.append(self)


@dataclass(slots=True)
class Observation:
    """What was seen from outside: times of header in ms, and resident bytes by process."""

    load_from_ms: int = 0
    load_to_ms: int = 0
    memory: list[tuple[float, dict[str, int]]] = field(default_factory=list)


def weigh(parent: psutil.Process) -> dict[str, int]:
    """Resident bytes of app and CometBFT now."""
    sizes: dict[str, int] = {}
    for process in parent.children(recursive=True):
        try:
            line, size = " ".join(process.cmdline()), process.memory_info().rss
        except psutil.Error:
            continue  # it has just ended
        sizes |= {name: size for name, part in PROCESSES.items() if part in line}
    return sizes


async def follow_blocks(url: str, offer: Offer) -> None:
    """Tell the load of each block that the application has committed, until cancelled."""
    async with RpcClient(url) as rpc, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        height = (await rpc.abci_info()).height
        while True:
            newest, now_s = (await rpc.abci_info()).height, time.perf_counter()
            for number in range(height + 1, newest + 1):
                answer = await client.get("/block", params={"height": str(number)})
                txs = answer.json()["result"]["block"]["data"]["txs"]
                offer.note_block([base64.b64decode(tx) for tx in txs], now_s)
            height = newest
            await asyncio.sleep(POLL_S)


async def wait_for_generation(url: str, generation: int) -> None:
    """Wait until the chain is there."""
    deadline_s = time.monotonic() + 5 * PATIENCE_S
    async with RpcClient(url, timeout_s=2.0) as rpc:
        while time.monotonic() < deadline_s:
            try:
                if (await get_chain_status(rpc)).generation >= generation:
                    return
            except (NodeUnreachable, RpcError):
                pass
            await asyncio.sleep(POLL_S)
    raise SystemExit(f"no generation {generation} at {url} within {5 * PATIENCE_S:.0f} s")


async def observe(
    home: Home, txs_of_lines: Sequence[Sequence[bytes]], parent: psutil.Process
) -> tuple[Offer, Observation]:
    """Let the chain settle, leave it alone, then load it."""
    url, offer, seen = home.settings.rpc_url, Offer(), Observation()
    await wait_for_generation(url, FIRST_GENERATIONS)
    note(f"{BEFORE_S:.0f} s without load")
    await asyncio.sleep(BEFORE_S)
    loop = asyncio.get_running_loop()
    address = str(urlsplit(url).hostname), urlsplit(url).port or 0
    lines = [OfferedLine(offer, url, txs) for txs in txs_of_lines]
    for line in lines:
        await loop.create_connection(lambda line=line: line, *address)  # type: ignore[misc]
        offer.idle.append(line)
    note(f"{SECONDS:.0f} s of {RATE} transfers a second")
    following = asyncio.create_task(follow_blocks(url, offer))
    seen.load_from_ms = time.time_ns() // 10**6
    running = asyncio.create_task(offer.run(SECONDS))
    start_s = time.perf_counter()
    while not running.done():
        seen.memory.append((time.perf_counter() - start_s, weigh(parent)))
        await asyncio.wait({running, following}, timeout=1.0, return_when="FIRST_COMPLETED")
        if following.done():
            break
    seen.load_to_ms = time.time_ns() // 10**6
    if following.done():
        running.cancel()
        await following
    await running
    deadline_s = time.monotonic() + PATIENCE_S
    while offer.accepted_s:  # what the node has said yes to comes into a block
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{len(offer.accepted_s)} accepted transfers are in no block")
        await asyncio.sleep(POLL_S)
    following.cancel()
    for line in lines:
        line.transport.abort()
    return offer, seen


def sign_transfers(keys: Sequence[AccountKey]) -> list[list[bytes]]:
    """Enough for the whole load, those of an account all on one connection."""
    transfers = Transfers(keys)
    txs_of_lines: list[list[bytes]] = [[] for _ in range(LINES)]
    while sum(map(len, txs_of_lines)) < RATE * SECONDS:
        for index, txs in enumerate(transfers.sign_round()):
            for offset in range(PARTS):  # whose number divides that of the accounts in a list
                txs_of_lines[PARTS * index + offset] += txs[offset::PARTS]
    return txs_of_lines


def measure() -> Iterator[Figure]:
    """Run a chain, load it, and read its pace from its own records."""
    keys = [AccountKey(number.to_bytes(32, "big")) for number in range(1, SENDERS + 1)]
    note(f"signing {RATE * SECONDS:,.0f} transfers")
    txs_of_lines = sign_transfers(keys)
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "chain", PORTS, keys, difficulty_bits=None)
        up = subprocess.Popen(  # noqa: S603 - this package's own command
            [sys.executable, "-m", "pol_abci.cli", "up", "--home", str(home.path)],
            stdout=sys.stderr,
        )
        try:
            offer, seen = uvloop.run(observe(home, txs_of_lines, psutil.Process(up.pid)))
        finally:
            up.terminate()
            up.wait()
        records = read_history(home.store_folder, home.settings.chain_id, home.genesis).records
    times_ms = [record.time_ms for record in records]
    yield from describe_load(offer)
    yield describe_pace(times_ms, seen)
    yield from describe_memory(seen)


def describe_load(offer: Offer) -> Iterator[Figure]:
    """What became of the transfers, and how long it took."""
    yield Figure(
        name=f"transfers committed while {RATE:,} a second are offered for {SECONDS:.0f} s to a "
        f"node that mines; {offer.full:,} offers met a full mempool",
        value=f"{offer.committed / SECONDS:,.0f} /s",
        beside=f"{offer.offered / SECONDS:,.0f} /s offered",
        ratio=offer.committed / offer.offered,
    )
    cuts = statistics.quantiles(offer.latencies_s, n=100)
    yield Figure(
        name=f"from a yes of CheckTx to the commit, {offer.committed:,} transfers",
        value=f"median {cuts[49]:.2f} s, 95% {cuts[94]:.2f} s, 99% {cuts[98]:.2f} s, "
        f"all {max(offer.latencies_s):.2f} s",
    )


def describe_pace(times_ms: Sequence[int], seen: Observation) -> Figure:
    """Generations a minute by header times, under load and before."""
    before_ms = seen.load_from_ms - round(BEFORE_S * 1_000)
    idle_rate = sum(before_ms <= each < seen.load_from_ms for each in times_ms) * 60 / BEFORE_S
    during_s = (seen.load_to_ms - seen.load_from_ms) / 1_000
    loaded = [each for each in times_ms if seen.load_from_ms <= each < seen.load_to_ms]
    moments = [seen.load_from_ms, *loaded, seen.load_to_ms]
    longest_s = max(after - before for before, after in itertools.pairwise(moments)) / 1_000
    rate = len(loaded) * 60 / during_s
    return Figure(
        name=f"generations under that load, the longest wait {longest_s:.1f} s",
        value=f"{rate:.1f} a minute",
        beside=f"{idle_rate:.1f} a minute before",
        ratio=rate / idle_rate,
        goal="not starved",
    )


def describe_memory(seen: Observation) -> Iterator[Figure]:
    """Resident bytes at the end of the load, beside those when its caches had filled."""
    warm = next(sizes for at_s, sizes in seen.memory if at_s >= WARM_PART * SECONDS)
    for name in PROCESSES:
        last = seen.memory[-1][1][name]
        yield Figure(
            name=f"memory of {'the app' if name == 'app' else name} at the end of that load",
            value=f"{last / MB:.0f} MB",
            beside=f"{warm[name] / MB:.0f} MB after a fifth of it",
            ratio=last / warm[name],
            goal="flat",
        )


if __name__ == "__main__":
    main(measure)
