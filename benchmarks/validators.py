"""Block time with one, four and sixteen validators, all on this machine.

    BENCH_VALIDATORS="1 4 16" python benchmarks/validators.py

Each validator is a CometBFT with an application of its own, of the preset digits; a transfer is
always on its way, so that every block has some and none waits for a heartbeat. Nobody mines: what
proofs cost a node is in other rows, and sixteen verifiers would not fit (`walkless_app.py`). All
nodes share the machine's cores, so this says what sixteen processes cost them, not what a network
of sixteen machines does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, main
from pol_abci.client.keys import KeyFile
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.client.transactions import build_transfer
from pol_abci.learning.task import load_task
from pol_abci.learning.weights import to_bytes
from pol_abci.node.binary import find_cometbft
from pol_abci.node.children import LAST_WORDS
from pol_abci.node.home import load_home
from pol_abci.node.supervisor import ChildCommand, Supervisor
from pol_abci.node.testnet import create_testnet
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pol_abci.node.home import Home

COUNTS = tuple(map(int, os.environ.get("BENCH_VALIDATORS", "1 4 16").split()))
BLOCKS = 100
"""Measured of each chain, after as many as it takes to settle."""
SETTLED = 10
FIRST_PORT = 29_900
FEE, AMOUNT = Amount(1_000), Amount(1)
SEND_S = 0.05
POLL_S = 0.2
PATIENCE_S = 300.0
WALKLESS_APP = Path(__file__).with_name("walkless_app.py")


def note(text: str) -> None:
    """What is said on the way is not part of the figures."""
    print(text, file=sys.stderr)


def measure() -> Iterator[Figure]:
    """One chain after the other, each beside the first."""
    alone_s: float | None = None
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            times_ms = asyncio.run(run_chain(Path(folder) / "testnet", count))
        gaps_s = [(after - before) / 1_000 for before, after in itertools.pairwise(times_ms)]
        median_s = statistics.median(gaps_s)
        slowest_s = statistics.quantiles(gaps_s, n=10)[-1]
        name = "1 validator" if count == 1 else f"{count} validators"
        yield Figure(
            name=f"block time with {name} on one machine, timeout_commit 0.2 s",
            value=f"median {median_s:.2f} s, nine of ten within {slowest_s:.2f} s",
            beside="" if alone_s is None else f"{alone_s:.2f} s with one",
            ratio=None if alone_s is None else median_s / alone_s,
        )
        alone_s = median_s if alone_s is None else alone_s


async def run_chain(path: Path, count: int) -> list[int]:
    """Header times in ms of blocks in a row of a chain with so many validators."""
    cometbft = find_cometbft(note)
    folders = create_testnet(
        path,
        cometbft=cometbft,
        preset="digits",
        chain_id="pol-bench",
        report=note,
        validators=count,
        first_port=FIRST_PORT,
        difficulty_bits=16,
    )
    homes = [load_home(folder) for folder in folders]
    task = load_task(homes[0].genesis.params, None, "pol-bench", None, "cpu")
    weights = path / "weights"
    weights.write_bytes(to_bytes(task.initial_weights))
    async with AsyncExitStack() as stack:
        supervisors = [Supervisor(home.path, compose(home, cometbft, weights)) for home in homes]
        for supervisor in supervisors:
            await stack.enter_async_context(supervisor)
        rpc = await stack.enter_async_context(RpcClient(homes[0].settings.rpc_url))
        await wait_for_height(rpc, 2)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send(rpc, homes[0]))
            await wait_for_height(rpc, SETTLED + BLOCKS + 1)
            sending.cancel()
        heights = range(SETTLED, SETTLED + BLOCKS + 1)
        times_ms = [(await rpc.commit(height)).time_ms for height in heights]
        restarts = sum(child.restarts for each in supervisors for child in each.children.values())
        if restarts:
            raise SystemExit(f"processes ended and were started again {restarts} times")
    return times_ms


def compose(home: Home, cometbft: Path, weights: Path) -> Sequence[ChildCommand]:
    """The processes of one node."""
    arguments = (sys.executable, str(WALKLESS_APP), str(home.path), str(weights))
    return (
        ChildCommand(name="app", arguments=arguments),
        ChildCommand(
            name="cometbft",
            arguments=(str(cometbft), "node", "--home", "cometbft"),
            ends_with="app",
            last_words=LAST_WORDS,
        ),
    )


async def send(rpc: RpcClient, home: Home) -> None:
    """Send a transfer to oneself again and again."""
    key = KeyFile.read(home.account_file).unlock(lambda: "")
    sequence = 1
    while True:
        raw = build_transfer(
            key, "pol-bench", sequence=sequence, fee=FEE, recipient=key.address, amount=AMOUNT
        )
        answer = await rpc.broadcast_tx_sync(raw)
        if not answer.is_accepted:
            raise SystemExit(f"a transfer was refused: {answer.log}")
        sequence += 1
        await asyncio.sleep(SEND_S)


async def wait_for_height(rpc: RpcClient, height: int) -> None:
    """Until this many blocks are committed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if (await rpc.status()).latest_height >= height:
                    return
            except (NodeUnreachable, RpcError):
                pass
            await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    main(measure)
