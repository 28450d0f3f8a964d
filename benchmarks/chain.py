"""A chain of the digits preset with one miner: its pace, its delays, what verification costs.

    BENCH_GENERATIONS=300 python benchmarks/chain.py        # 20 minutes at the preset's 4 s

`pol-abci up` runs as a user runs it, in a folder of its own; this program looks at its node 50
times a second.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.figures import Figure, main
from pol_abci.cli.history import read_history
from pol_abci.client.chain import ChainStatus, get_chain_status
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.node.home import load_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.rules.codec import GenerationRecord

GENERATIONS = int(os.environ.get("BENCH_GENERATIONS", "300"))
SETTLED = 30
"""Generations after which the difficulty, first set by an idle machine's speed, has followed."""
POLL_S = 0.02
RPC_PORT, P2P_PORT = 29657, 29656
"""Not CometBFT's own choice: a node of the user's may run there."""
UP = (sys.executable, "-m", "pol_abci.cli", "up")
VERIFIER, MINER = "verifier_process", "pol_abci.cli mine"
"""What tells their command lines from the other processes' of a node."""


@dataclass(slots=True)
class Observation:
    """Wall times in s of a good ticket at the node, and of the block that took it."""

    delays_s: list[float] = field(default_factory=list)
    cpu_s: list[dict[str, float]] = field(default_factory=list)
    _generation: int | None = None
    _good_s: float | None = None

    def note(self, status: ChainStatus, now_s: float) -> None:
        """Take in one look at the node."""
        if status.generation != self._generation:
            if self._good_s is not None and status.generation == (self._generation or 0) + 1:
                self.delays_s.append(now_s - self._good_s)
            self._generation, self._good_s = status.generation, None
        good_ms = status.tickets.best_good_time_ms
        if good_ms is not None:
            seen_s = max(now_s, good_ms / 1_000)
            self._good_s = seen_s if self._good_s is None else min(self._good_s, seen_s)


async def observe(up: subprocess.Popen[bytes]) -> Observation:
    """Look at the node until `up` ends."""
    observation = Observation()
    parent = psutil.Process(up.pid)
    async with RpcClient(f"http://127.0.0.1:{RPC_PORT}", timeout_s=2.0) as rpc:
        while up.poll() is None:
            await asyncio.sleep(POLL_S)
            try:
                observation.note(await get_chain_status(rpc), time.time())
            except (NodeUnreachable, RpcError):
                continue
            if len(observation.delays_s) > len(observation.cpu_s):
                observation.cpu_s.append(weigh(parent))
    return observation


def weigh(parent: psutil.Process) -> dict[str, float]:
    """CPU time in s of verifier and miner so far."""
    cpu_s = {}
    for process in parent.children(recursive=True):
        try:
            line = " ".join(process.cmdline())
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has just ended
        for name in (VERIFIER, MINER):
            if name in line:
                cpu_s[name] = times.user + times.system
    return cpu_s


def measure() -> Iterator[Figure]:
    """Run a chain, and read its pace from its own records."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "chain"
        up = subprocess.Popen(  # noqa: S603 - this package's own command
            [
                *UP,
                *("--home", str(home), "--generations", str(GENERATIONS)),
                *("--rpc-port", str(RPC_PORT), "--p2p-port", str(P2P_PORT)),
            ],
            stdout=sys.stderr,
        )
        try:
            observation = asyncio.run(observe(up))
        finally:
            up.terminate()
            up.wait()
        here = load_home(home)
        history = read_history(here.store_folder, here.settings.chain_id, here.genesis)
    yield from describe_pace(history.records, history.target_interval_ms)
    yield describe_delays(observation.delays_s)
    # From the first block on: both have loaded their libraries and data by then.
    first, last = observation.cpu_s[0], observation.cpu_s[-1]
    verifier_s, miner_s = (last[name] - first[name] for name in (VERIFIER, MINER))
    yield Figure(
        name="CPU of the verifier, counting all of E included, to that of one miner",
        value=f"{verifier_s:.1f} s",
        beside=f"{miner_s:.1f} s",
        ratio=verifier_s / miner_s,
        goal="1/64 = 0.016",
    )


def describe_pace(records: tuple[GenerationRecord, ...], target_ms: int) -> Iterator[Figure]:
    """Mean interval to target and coefficient of variation, of all and of the settled chain."""
    intervals_ms = [record.interval_ms for record in records]
    for first in (0, SETTLED):
        part = intervals_ms[first:]
        if len(part) < 2:  # a deviation needs two
            break
        mean_ms = statistics.fmean(part)
        deviation = statistics.stdev(part) / mean_ms
        yield Figure(
            name=f"block interval, generations {first + 1} to {len(records)}, "
            f"coefficient of variation {deviation:.2f}",
            value=f"{mean_ms / 1_000:.2f} s",
            beside=f"target {target_ms / 1_000:.0f} s",
            ratio=mean_ms / target_ms,
            goal="1.0; .37 to .40",
        )
    newest = [record for record in records if record.has_accuracy][-1]
    yield Figure(
        name=f"accuracy on all of E at generation {newest.generation}",
        value=f"{newest.correct_all / newest.size_all:.1%}",
    )


def describe_delays(delays_s: list[float]) -> Figure:
    """From the moment at which the node has a ticket that is good to the block that takes it."""
    deciles = statistics.quantiles(delays_s, n=10)
    return Figure(
        name=f"delay from a good ticket to its block, {len(delays_s)} blocks",
        value=f"median {statistics.median(delays_s):.2f} s, nine of ten within {deciles[-1]:.2f} s",
        goal="0.2 to 0.5 s",
    )


if __name__ == "__main__":
    main(measure)
