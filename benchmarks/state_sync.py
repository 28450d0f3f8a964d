"""How long a node takes to join, and what taking and serving snapshots costs the others' blocks.

    python benchmarks/state_sync.py        # some minutes; two real CometBFTs on this machine

From the start of the joining node's two processes to the moment at which CometBFT no longer calls
it catching up and its application is where the first node's was then. Of a digits chain with a
miner, by a snapshot and by all blocks; of a chain whose model has 17 MB, by a snapshot. On the
latter an account pays without end, so that blocks follow each other as quickly as they may.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import tomlkit

from benchmarks.figures import Figure, main
from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.client.transactions import build_transfer
from pol_abci.node.binary import find_cometbft
from pol_abci.node.init import create_home, join_chain
from pol_abci.node.joining import ask_nodes
from pol_abci.node.layout import SETTINGS_FILE
from pol_abci.node.presets import load_preset
from pol_abci.rules.params import Address, Amount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from pol_abci.node.home import Home
    from pol_abci.node.presets import Preset

CHANNELS = (64, 512, 847)
"""A digits CNN of 17 MB."""
RPC_PORTS, P2P_PORTS = (28_657, 28_659), (28_656, 28_658)
DIGITS_HEIGHT = 300
DIGITS_INTERVAL, LARGE_INTERVAL = 100, 40
LARGE_BLOCKS = 200
AFTER_SNAPSHOT = 4
"""Blocks from one of which a snapshot is taken on: a second or two, in which it is made."""
POLL_S = 0.05
PATIENCE_S = 1_200.0
PROGRAM = (sys.executable, "-m", "pol_abci.cli")


def make_home(folder: Path, cometbft: Path, preset: Preset, interval: int) -> Home:
    """The home of a chain's first node, which takes snapshots."""
    with mock.patch("pol_abci.node.init.load_preset", return_value=preset):
        home = create_home(
            folder,
            cometbft=cometbft,
            preset=preset.name,
            chain_id="pol-sync",
            report=say,
            rpc_port=RPC_PORTS[0],
            p2p_port=P2P_PORTS[0],
            difficulty_bits=6.0,
        )
    file = home.path / SETTINGS_FILE
    settings = tomlkit.parse(file.read_text())
    settings["app"]["snapshot_interval"] = interval
    file.write_text(tomlkit.dumps(settings))
    return home


def say(text: str) -> None:
    """Tell what goes on, beside the figures."""
    print(text, file=sys.stderr)


def run_node(stack: ExitStack, home: Home, *, mines: bool) -> None:
    """Run a node until the stack ends."""
    command = [*PROGRAM, "up", "--home", str(home.path), *(() if mines else ("--no-mine",))]
    log = stack.enter_context((home.path.with_suffix(".log")).open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - this package
    stack.callback(process.wait)
    stack.callback(process.terminate)


async def wait_for(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; a node that does not answer is coming up."""
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        try:
            if await is_so():
                return
        except (NodeUnreachable, RpcError):
            pass
        await asyncio.sleep(POLL_S)
    raise TimeoutError("it did not come")


async def join(
    folder: Path, cometbft: Path, preset: Preset, first: RpcClient, *, by_blocks: bool
) -> tuple[float, int]:
    """Have a node join; the seconds from its start until it is in sync, and at which height."""
    shutil.rmtree(folder, ignore_errors=True)
    introduction = await ask_nodes(
        [first.url], trust=None, by_blocks=by_blocks, report=lambda _: None
    )
    with mock.patch("pol_abci.node.init.find_preset", return_value=preset):
        home = join_chain(
            folder,
            cometbft=cometbft,
            document=introduction.document,
            report=say,
            peers=introduction.peers,
            state_sync=introduction.state_sync,
            rpc_port=RPC_PORTS[1],
            p2p_port=P2P_PORTS[1],
        )
    with ExitStack() as stack:
        start_s = time.perf_counter()
        run_node(stack, home, mines=False)
        async with RpcClient(home.settings.rpc_url) as second:

            async def is_in_sync() -> bool:
                status = await second.status()
                if status.catching_up or status.latest_height == 0:
                    return False
                there, here = await first.abci_info(), await second.abci_info()
                return here.height >= there.height - 1

            await wait_for(is_in_sync)
            seconds = time.perf_counter() - start_s
            return seconds, (await second.abci_info()).height


@asynccontextmanager
async def pay(home: Home, rpc: RpcClient) -> AsyncIterator[None]:
    """Send a transfer every 50 ms meanwhile."""

    async def send() -> None:
        key, sequence = AccountKey.load(home.account_file), 1
        while True:
            raw = build_transfer(
                key,
                home.settings.chain_id,
                sequence=sequence,
                fee=Amount(1_000),
                recipient=Address(bytes(range(20))),
                amount=Amount(1),
            )
            if (await rpc.broadcast_tx_sync(raw)).is_accepted:
                sequence += 1
            await asyncio.sleep(0.05)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read_intervals_ms(rpc: RpcClient, first: int, last: int) -> dict[int, int]:
    """By height, from the header before to a block's own."""
    times = [(await rpc.commit(height)).time_ms for height in range(first - 1, last + 1)]
    return {first + place: after - before for place, (before, after) in enumerate(pairwise(times))}


async def measure_digits(folder: Path, cometbft: Path) -> list[Figure]:
    """A chain of some hundred blocks with a miner, joined in both ways."""
    preset = load_preset("digits")
    home = make_home(folder / "first", cometbft, preset, DIGITS_INTERVAL)
    figures = []
    with ExitStack() as stack:
        run_node(stack, home, mines=True)
        async with RpcClient(home.settings.rpc_url) as rpc:

            async def is_long() -> bool:
                return (await get_chain_status(rpc)).height >= DIGITS_HEIGHT

            await wait_for(is_long)
            for by_blocks, how, goal in (
                (False, "by a snapshot", "below 20 s"),
                (True, "by all blocks", ""),
            ):
                seconds, height = await join(
                    folder / "second", cometbft, preset, rpc, by_blocks=by_blocks
                )
                generation = (await get_chain_status(rpc)).generation
                figures.append(
                    Figure(
                        name=f"digits: a node joins {how} at height {height}, generation "
                        f"{generation}",
                        value=f"{seconds:.1f} s",
                        goal=goal,
                    )
                )
    return figures


async def measure_large(folder: Path, cometbft: Path) -> list[Figure]:
    """A chain with a large model and no miner: blocks with and without a snapshot beside them."""
    preset = load_preset("digits")
    task = replace(preset.params.task, channels=CHANNELS)
    preset = replace(preset, params=replace(preset.params, task=task))
    home = make_home(folder / "first", cometbft, preset, LARGE_INTERVAL)
    with ExitStack() as stack:
        run_node(stack, home, mines=False)
        async with RpcClient(home.settings.rpc_url) as rpc:

            async def has_begun() -> bool:
                return (await get_chain_status(rpc)).height >= 5

            async def is_long() -> bool:
                return (await get_chain_status(rpc)).height >= 5 + LARGE_BLOCKS

            await wait_for(has_begun)
            async with pay(home, rpc):
                await wait_for(is_long)
                before = (await get_chain_status(rpc)).height
                seconds, height = await join(
                    folder / "second", cometbft, preset, rpc, by_blocks=False
                )
            intervals = await read_intervals_ms(rpc, 6, before)
            serving = await read_intervals_ms(rpc, before + 1, height)
    # The header time of H + 1 is when H was decided: what commit H delays is seen after that.
    beside = [
        interval
        for at, interval in intervals.items()
        if 2 <= at % LARGE_INTERVAL < 2 + AFTER_SNAPSHOT and at > LARGE_INTERVAL
    ]
    others = [
        interval
        for at, interval in intervals.items()
        if not 2 <= at % LARGE_INTERVAL < 2 + AFTER_SNAPSHOT
    ]
    usual_ms = statistics.median(others)
    return [
        Figure(
            name=f"17 MB model: a node joins by a snapshot at height {height}",
            value=f"{seconds:.1f} s",
            goal="below 60 s",
        ),
        Figure(
            name="17 MB model: block interval while a snapshot is taken, median (longest)",
            value=f"{statistics.median(beside):.0f} ms ({max(beside)} ms)",
            beside=f"{usual_ms:.0f} ms ({max(others)} ms)",
            ratio=statistics.median(beside) / usual_ms,
            goal="1",
        ),
        Figure(
            name="17 MB model: block interval while another node on the machine joins",
            value=f"{statistics.median(serving.values()):.0f} ms ({max(serving.values())} ms)",
            beside=f"{usual_ms:.0f} ms ({max(others)} ms)",
            ratio=statistics.median(serving.values()) / usual_ms,
        ),
    ]


def measure() -> Iterator[Figure]:
    """Both chains, one after the other."""
    cometbft = find_cometbft(say)
    for part in (measure_digits, measure_large):
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(part(Path(folder), cometbft))


if __name__ == "__main__":
    main(measure)
