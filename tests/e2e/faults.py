"""Faults for a chain that runs under `up`, and what must hold after each of them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pol_abci.client.chain import get_history
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from tests.e2e.quick_home import (
    APP,
    COMETBFT,
    MINER,
    VERIFIER,
    find_child,
    kill_child,
    strip_accuracy,
    wait_for,
    wait_for_generation,
    wait_until,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from pol_abci.client.rpc import RpcClient
    from pol_abci.node.home import Home
    from pol_abci.rules.codec import GenerationRecord
    from tests.e2e.quick_home import Program

PARTS = {"app": APP, "verifier": VERIFIER, "miner": MINER, "CometBFT": COMETBFT}
LONGEST_STOP_S = 3.0
ROOM_FOR_LAST_WORDS_BYTES = 4_096


@dataclass(slots=True)
class Outcome:
    """Of a kind of fault: seconds to the second generation after it, and generations lost."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0


@dataclass(slots=True)
class Victim:
    """A chain under `up` that faults are injected into. `outcomes` are told by the fault."""

    home: Home
    up: Program
    rpc: RpcClient
    choose: random.Random
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def endure(self, name: str, inject: Callable[[], Awaitable[None]]) -> None:
        """Inject a fault at a random moment, wait for two generations, and look for the old.

        Two, because one may have been on its way already.
        """
        await asyncio.sleep(self.choose.uniform(0.0, 1.0))
        before = await read_generations(self.rpc)
        await inject()
        start = time.monotonic()
        await wait_for_generation(self.rpc, len(before) + 2)
        outcome = self.outcomes.setdefault(name, Outcome())
        outcome.seconds.append(time.monotonic() - start)
        after = await read_generations(self.rpc)
        outcome.lost += sum(old != new for old, new in zip(before, after, strict=False))

    async def kill(self, process: str) -> None:
        """kill -9."""
        await self.endure(f"kill -9 of {process}", lambda: kill_child(self.up, PARTS[process]))

    async def stop(self, process: str) -> None:
        """SIGSTOP, and SIGCONT after a time in which the others wait for it."""

        async def inject() -> None:
            pid = await find_child(self.up, PARTS[process])
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self.choose.uniform(0.5, LONGEST_STOP_S))
            os.kill(pid, signal.SIGCONT)

        await self.endure(f"SIGSTOP of {process}", inject)

    async def refuse_writes(self) -> None:
        """Leave the app no room for a commit, until it has stopped."""

        async def inject() -> None:
            await refuse_writes_of(await find_child(self.up, APP), self.home)

        await self.endure("no room for the app's store", inject)


async def refuse_writes_of(app: int, home: Home) -> None:
    """Let an app write no file further than its log, so that a commit fails, and see it stop.

    It is started again without that limit: there is room again.
    """
    log = home.path / "logs" / "app.log"
    _, hard = resource.prlimit(app, resource.RLIMIT_FSIZE)
    limit = log.stat().st_size + ROOM_FOR_LAST_WORDS_BYTES
    resource.prlimit(app, resource.RLIMIT_FSIZE, (limit, hard))
    # A commit may still find its pages below the limit.
    await wait_until(lambda: not Path(f"/proc/{app}").exists())


async def read_generations(rpc: RpcClient) -> list[tuple[int, int, int, bytes, bytes]]:
    """What consensus decided of each generation so far; a node that is away is waited for."""

    async def ask() -> list[GenerationRecord] | None:
        records: list[GenerationRecord] = []
        try:
            while page := await get_history(rpc, len(records) + 1):
                records += page
        except (NodeUnreachable, RpcError):
            return None
        return records

    records = await wait_for(ask)
    assert [each.generation for each in records] == list(range(1, len(records) + 1))
    return strip_accuracy(records)
