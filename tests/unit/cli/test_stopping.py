from __future__ import annotations

import asyncio
import os
import signal
import threading

import click
import pytest

from pol_abci.cli.stopping import exit_after, hold_signals, run_until_stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_work_clean_up_and_a_second_one_does_not_hurry_it(
    number: signal.Signals,
) -> None:
    steps = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    assert run_until_stopped(work(), asyncio.run) == number
    assert steps == ["cleaned up"]


def test_a_held_signal_comes_as_soon_as_it_may_whichever_thread_takes_it() -> None:
    steps = []
    other = threading.Thread(
        target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    )
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (when it comes is the point)
        with hold_signals():
            other.start()
            other.join()
            steps.append("imported")
        steps.append("began")
    assert steps == ["imported"]


def test_work_that_ends_by_itself_was_not_stopped() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    assert run_until_stopped(work(), asyncio.run) is None


def test_an_error_of_the_work_is_not_mistaken_for_a_stop() -> None:
    async def work() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_until_stopped(work(), asyncio.run)


def test_only_ctrl_c_ends_with_130() -> None:
    with pytest.raises(click.exceptions.Exit) as ended:
        exit_after(signal.SIGINT)
    assert ended.value.exit_code == 130
    exit_after(signal.SIGTERM)
    exit_after(None)
