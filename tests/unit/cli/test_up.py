from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from pol_abci.cli.observer import Observer
from pol_abci.cli.up import watch
from pol_abci.client.rpc import RpcClient
from pol_abci.node.supervisor import MAX_FAILURES, ChildCommand, ChildFailed, Supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.cli.view import Snapshot


class CountingObserver(Observer):
    """Polls nothing; its chain makes a block a poll and is done after `polls` of them."""

    def __init__(self, rpc: RpcClient, supervisor: Supervisor, polls: int) -> None:
        super().__init__(
            rpc, supervisor.children, chain_id="digits-1", home="chain", generations=None
        )
        self._polls, self._count = polls, 0

    @property
    def height(self) -> int:
        return self._count

    @property
    def generation(self) -> int:
        return self._count // 2

    @property
    def is_done(self) -> bool:
        return self._count >= self._polls

    async def poll(self) -> None:
        self._count += 1


class SlowObserver(CountingObserver):
    """Its chain makes blocks and no generation."""

    @property
    def generation(self) -> int:
        return 0


def make_children(program: str) -> list[ChildCommand]:
    return [
        ChildCommand(name=name, arguments=(sys.executable, "-c", program))
        for name in ("app", "cometbft")
    ]


async def test_watching_ends_with_the_generations_and_shows_the_stop(tmp_path: Path) -> None:
    shown: list[Snapshot] = []
    children = make_children("import time; time.sleep(600)")
    async with (
        RpcClient("http://127.0.0.1:1") as rpc,
        Supervisor(tmp_path, children) as supervisor,
    ):
        await watch(supervisor, CountingObserver(rpc, supervisor, polls=2), shown.append)
        assert all(child.state == "running" for child in supervisor.children.values())
    assert [snapshot.is_stopping for snapshot in shown[-2:]] == [False, True]
    assert all(child.state == "stopped" for child in supervisor.children.values())


async def test_a_stop_while_watching_is_shown_and_goes_on_as_cancellation(tmp_path: Path) -> None:
    shown: list[Snapshot] = []
    is_shown = asyncio.Event()

    def show(snapshot: Snapshot) -> None:
        shown.append(snapshot)
        is_shown.set()

    children = make_children("import time; time.sleep(600)")
    async with (
        RpcClient("http://127.0.0.1:1") as rpc,
        Supervisor(tmp_path, children) as supervisor,
    ):
        observer = CountingObserver(rpc, supervisor, polls=10**6)
        watching = asyncio.create_task(watch(supervisor, observer, show))
        await is_shown.wait()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    assert shown[-1].is_stopping


async def test_a_process_that_keeps_failing_ends_up_with_its_last_words(tmp_path: Path) -> None:
    children = make_children("raise SystemExit('no dataset here')")
    async with (
        RpcClient("http://127.0.0.1:1") as rpc,
        Supervisor(tmp_path, children) as supervisor,
    ):
        observer = CountingObserver(rpc, supervisor, polls=10**6)
        observer.poll = asyncio.Event().wait  # type: ignore[method-assign, assignment] # never answers
        with pytest.raises(ChildFailed, match="no dataset here"):
            await watch(supervisor, observer, lambda _: None)


async def test_blocks_that_need_no_verifier_are_no_progress_of_an_app_that_has_none(
    tmp_path: Path,
) -> None:
    app = ChildCommand(name="app", arguments=(sys.executable, "-c", "raise SystemExit('no data')"))
    cometbft = make_children("import time; time.sleep(600)")[1]
    async with (
        RpcClient("http://127.0.0.1:1") as rpc,
        Supervisor(tmp_path, [app, cometbft]) as supervisor,
    ):
        observer = SlowObserver(rpc, supervisor, polls=10**6)
        with pytest.raises(ChildFailed, match="no data"):
            await watch(supervisor, observer, lambda _: None)
        assert observer.height > 0


async def test_a_miner_that_is_killed_while_generations_come_does_not_end_the_node(
    tmp_path: Path,
) -> None:
    children = make_children("import time; time.sleep(600)")
    children.append(ChildCommand(name="miner", arguments=(sys.executable, "-c", "")))
    async with (
        RpcClient("http://127.0.0.1:1") as rpc,
        Supervisor(tmp_path, children) as supervisor,
    ):
        observer = CountingObserver(rpc, supervisor, polls=10**6)
        watching = asyncio.create_task(watch(supervisor, observer, lambda _: None))
        while supervisor.children["miner"].restarts <= MAX_FAILURES:
            await asyncio.sleep(0.05)
            assert not watching.done(), watching.result()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
