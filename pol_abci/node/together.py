"""Run the processes of several homes together: begun a few at a time, ended all at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from pol_abci.node.supervisor import ChildFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pol_abci.node.supervisor import Supervisor

READY_S = 60.0
"""For a node to be ready; after that the next one starts all the same."""


async def supervise_all(
    supervisors: Sequence[tuple[Supervisor, Callable[[], Awaitable[object]]]], *, at_once: int
) -> None:
    """Start all, keep them running, and stop all when this is cancelled or a child has failed.

    With each supervisor comes what waits until its node is ready. Only `at_once` nodes start at a
    time: each loads torch, and many at once on few cores keep each other from it for minutes.

    Raises
    ------
    HomeInUse
        When another supervisor holds one of the homes.
    ChildFailed
        When a child could not be started, or kept exiting.
    """
    starting = asyncio.Semaphore(at_once)
    tasks = [asyncio.create_task(_supervise(*each, starting)) for each in supervisors]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ChildFailed):
                raise outcome  # a bug, or a home in use


async def _supervise(
    supervisor: Supervisor, wait_ready: Callable[[], Awaitable[object]], starting: asyncio.Semaphore
) -> None:
    """Keep one home's processes running."""
    async with AsyncExitStack() as stack:
        async with starting:
            await stack.enter_async_context(supervisor)
            failed = asyncio.create_task(supervisor.wait_failed())
            stack.callback(failed.cancel)
            ready = asyncio.create_task(_wait_at_most(wait_ready))
            stack.callback(ready.cancel)
            await asyncio.wait({failed, ready}, return_when=asyncio.FIRST_COMPLETED)
        await failed


async def _wait_at_most(wait_ready: Callable[[], Awaitable[object]]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            await wait_ready()
