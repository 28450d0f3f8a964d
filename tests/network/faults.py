"""Faults for a network of validators, and what must hold after each of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pol_abci.store.environment import DATA_FILE
from tests.e2e.faults import read_generations, refuse_writes_of
from tests.e2e.quick_home import run_program, wait_for
from tests.network.network import run_network
from tests.network.payments import Payments
from tests.network.relay import Relays

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from pol_abci.rules.params import Params
    from tests.network.network import Network, Node

VALIDATORS = 4
PROCESSES = ("app", "cometbft", "verifier", "miner")
SLOTS, LIVENESS_WINDOW = 16_000, 65_536
"""So many that miners gain no third of the power, and nobody is jailed, while faults go on."""
MOMENT_S = 0.5
"""That a node may take to answer, and between two looks at processes."""
DELAY_S, LOSS = 0.2, 0.01
POLL_S = 0.1
REPLAY_PATIENCE_S = 1_800.0
"""For a node that redoes all walks of a soak while miners and other nodes share its cores."""


@dataclass(slots=True)
class Recoveries:
    """Of a kind of fault: seconds from its end, and generations lost by any node.

    To the next block and the next generation on any node, and until all have a new generation.
    """

    block_s: list[float] = field(default_factory=list)
    generation_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    lost: int = 0


@dataclass(slots=True)
class Siege:
    """A network that faults are injected into. `recoveries` are told by the fault."""

    network: Network
    relays: Relays
    payments: Payments
    choose: random.Random
    recoveries: dict[str, Recoveries] = field(default_factory=dict)

    async def endure(self, name: str, inject: Callable[[], Awaitable[None]]) -> None:
        """Inject a fault at a random moment, see all nodes go on, and look for the old.

        `inject` returns at the fault's end.
        """
        await self.wait_whole()
        await asyncio.sleep(self.choose.uniform(0.0, 1.0))
        before = await read_generations(self.network.nodes[0].rpc)
        await inject()
        recoveries = self.recoveries.setdefault(name, Recoveries())
        await self._time_recovery(recoveries)
        for node in self.network.nodes:
            assert node.supervisor is not None
            node.supervisor.note_progress(*node.supervisor.children)
            after = await read_generations(node.rpc)
            recoveries.lost += sum(
                number >= len(after) or after[number] != old for number, old in enumerate(before)
            )
        assert recoveries.lost == 0, name
        await self.network.assert_one_app_hash_per_height()
        self.payments.assert_all_there()

    async def wait_whole(self) -> None:
        """Wait until all processes of all nodes are there; looking for them takes time itself."""

        async def look() -> bool | None:
            if all(map(is_whole, self.network.nodes)):
                return True
            await asyncio.sleep(MOMENT_S)
            return None

        await wait_for(look)

    async def kill(self, node: Node, process: str) -> None:
        """kill -9 of one of a node's processes."""

        async def inject() -> None:
            node.signal(process, signal.SIGKILL)

        await self.endure(f"kill -9 of {process}", inject)

    async def kill_mid_walk(self, node: Node) -> None:
        """kill -9 of a verifier that has begun a walk and not ended it."""

        async def inject() -> None:
            node.signal("verifier", signal.SIGSTOP)
            await self.network.wait_for_status(lambda status: status.verifier.walking, [node])
            node.signal("verifier", signal.SIGKILL)

        await self.endure("kill -9 of verifier mid-walk", inject)

    async def stop_verifier(self, node: Node, seconds: float) -> None:
        """A verifier so slow that the chain makes generations without it."""

        async def inject() -> None:
            with stopped([node.get_pid("verifier")]):
                await asyncio.sleep(seconds)

        await self.endure("slow verifier", inject)

    async def stop_node(self, node: Node, seconds: float) -> None:
        """SIGSTOP of all processes of a node, and SIGCONT: a machine that sleeps."""

        async def inject() -> None:
            with stopped([node.get_pid(process) for process in get_processes(node)]):
                await asyncio.sleep(seconds)

        await self.endure("SIGSTOP of a node", inject)

    async def restart(self, node: Node) -> None:
        """A node that its operator stops and starts."""

        async def inject() -> None:
            await node.stop()
            await node.start()

        await self.endure("restart of a node", inject)

    async def refuse_writes(self, node: Node) -> None:
        """No room for a node's store, until its app has stopped."""
        await self.endure(
            "no room for a store", lambda: refuse_writes_of(node.get_pid("app"), node.home)
        )

    async def part(self, apart: Collection[int], seconds: float, *, is_cut: bool) -> None:
        """Part nodes from the others for a time; a half goes on without the other in no case.

        Three of four go on, and the fourth commits nothing meanwhile.
        """
        alone = [self.network.nodes[number] for number in apart]
        others = [node for node in self.network.nodes if node not in alone]
        go_on = 3 * len(others) > 2 * VALIDATORS
        standing = alone if go_on else self.network.nodes

        async def inject() -> None:
            part = self.relays.cut if is_cut else self.relays.hold
            part(apart)
            try:
                top, there = await self._get_tops(standing), await self._get_tops(others)
                if go_on:
                    await self.network.wait_for_status(
                        lambda status: status.generation > there.generation + 1, others
                    )
                await asyncio.sleep(seconds)
                now = await self._get_tops(standing)
                # One block may have been decided already.
                assert now.height <= top.height + 1, "blocks without two thirds of the power"
            finally:
                self.relays.mend()

        sizes = f"{VALIDATORS - len(apart)}/{len(apart)}"
        await self.endure(f"partition {sizes}, {'cut' if is_cut else 'silent'}", inject)

    async def slow_network(self, seconds: float) -> None:
        """Delay and loss between all nodes, under which generations come."""

        async def inject() -> None:
            self.relays.slow(DELAY_S, LOSS)
            try:
                there = await self._get_tops(self.network.nodes)
                await asyncio.sleep(seconds)
                await self.network.wait_for_status(
                    lambda status: status.generation > there.generation
                )
            finally:
                self.relays.slow(0.0, 0.0)

        await self.endure("200 ms delay, 1% loss", inject)

    async def damage_store(self, node: Node) -> None:
        """Cut off a stopped node's store: refused in words; without it the node replays."""

        async def inject() -> None:
            await node.stop()
            data = node.home.store_folder / DATA_FILE
            os.truncate(data, int(data.stat().st_size * self.choose.uniform(0.2, 0.8)))
            there = await self._get_tops(self.network.running)
            async with run_program("start", "--home", node.home.path) as start:
                assert await start.wait() == 1
            said = "\n".join(start.lines)
            assert "is damaged" in said, said
            assert "let the node replay the chain" in said, said
            assert "Traceback" not in said, said
            await self.network.wait_for_generation(there.generation + 1)  # the others go on
            shutil.rmtree(node.home.store_folder)
            await node.start(REPLAY_PATIENCE_S)

        await self.endure("a damaged store", inject)

    async def _get_tops(self, nodes: Sequence[Node]) -> Tops:
        """The highest height and generation that nodes tell within a moment."""
        asking = [asyncio.create_task(node.get_status()) for node in nodes]
        done, pending = await asyncio.wait(asking, timeout=MOMENT_S)
        while not any(task.result() for task in done):
            assert pending, "no node answers"
            newly, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= newly
        for task in pending:
            task.cancel()
        known = [status for task in done if (status := task.result()) is not None]
        return Tops(
            max(status.height for status in known), max(status.generation for status in known)
        )

    async def _time_recovery(self, recoveries: Recoveries) -> None:
        """Watch the nodes from the end of a fault until all have a generation that is new."""
        start_s = time.monotonic()
        tops = await self._get_tops(self.network.nodes)
        block_s: list[float] = []
        generation_s: list[float] = []

        async def watch(node: Node) -> None:
            while True:
                status = await node.get_status()
                passed_s = time.monotonic() - start_s
                if status is not None and status.height > tops.height:
                    block_s.append(passed_s)
                if status is not None and status.generation > tops.generation:
                    generation_s.append(passed_s)
                    return
                await asyncio.sleep(POLL_S)

        async with asyncio.timeout(REPLAY_PATIENCE_S), asyncio.TaskGroup() as tasks:
            for node in self.network.nodes:
                tasks.create_task(watch(node))
        recoveries.block_s.append(min(block_s))
        recoveries.generation_s.append(min(generation_s))
        recoveries.all_s.append(max(generation_s))


@dataclass(frozen=True, slots=True)
class Tops:
    """The highest height and generation of some nodes."""

    height: int
    generation: int


def get_processes(node: Node) -> tuple[str, ...]:
    """The names of a node's processes."""
    return PROCESSES if node.is_mining else PROCESSES[:-1]


def is_whole(node: Node) -> bool:
    """Whether all processes of a node are there."""
    return all(node.has(process) for process in get_processes(node))


@contextlib.contextmanager
def stopped(processes: Sequence[int]) -> Iterator[None]:
    """Processes that stand still meanwhile."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@contextlib.asynccontextmanager
async def besiege(
    path: Path, choose: random.Random, *, miners: Sequence[int]
) -> AsyncIterator[Siege]:
    """Run four validators behind relays, with payments that go on; check all of it in the end."""
    relays = Relays(choose)
    async with run_network(
        path, validators=VALIDATORS, miners=miners, change=keep_powers, relays=relays
    ) as network:
        await network.wait_for_generation(1)
        payments = Payments(network)
        paying = asyncio.create_task(payments.go_on())
        try:
            yield Siege(network, relays, payments, choose)
        finally:
            paying.cancel()
            (outcome,) = await asyncio.gather(paying, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome
        await network.assert_one_app_hash_per_height()
        payments.assert_all_there()


def keep_powers(params: Params) -> Params:
    """Let nobody lose a validator's power by faults."""
    return replace(
        params, shares=replace(params.shares, slots=SLOTS, liveness_window=LIVENESS_WINDOW)
    )
