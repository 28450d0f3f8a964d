"""Commands that run until they are stopped: the first SIGINT or SIGTERM ends them cleanly."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait: big libraries turn one amid their import into nonsense."""
    held: list[int] = []
    # Not by a mask: the kernel would give the signal to another thread, and Python to this one.
    before = {
        number: signal.signal(number, lambda received, _: held.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for received in held[:1]:
            signal.raise_signal(received)


def run_until_stopped(
    work: Coroutine[Any, Any, None],
    run: Callable[[Coroutine[Any, Any, signal.Signals | None]], signal.Signals | None],
) -> signal.Signals | None:
    """Run `work` with `run` (`asyncio.run` or `uvloop.run`) to its end or the first signal.

    A signal cancels `work`, which cleans up in its own time; further signals change nothing, so
    that an impatient second Ctrl-C leaves no half-stopped processes behind. The signal that ended
    it is returned, None when it ended by itself.
    """
    return run(_await_stoppable(work))


def exit_after(received: signal.Signals | None) -> None:
    """End the command with 130 after SIGINT; SIGTERM, a service manager's wish, is no fault."""
    if received == signal.SIGINT:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


async def _await_stoppable(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received:
            task.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    return received[0] if received else None
