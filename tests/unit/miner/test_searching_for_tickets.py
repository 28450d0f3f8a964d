from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pol_abci.learning.walk import verify_claim
from pol_abci.miner.search import Search
from pol_abci.miner.ticket import ChainClock, Ticket
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.proof import TrueWalk
from tests.unit.miner.fake_chain import MINER, PARAMS, FakeChain, make_task

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait_until(is_reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_reached():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


async def search_until(
    chain: FakeChain, now_ms: int, is_done: Callable[[list[Ticket]], bool]
) -> tuple[Search, list[Ticket]]:
    found: list[Ticket] = []
    search = Search(make_task(), MINER.address, ChainClock(lambda: now_ms), found.append, 7)
    running = asyncio.create_task(search.run())
    search.mine(chain.as_mining_head())
    await wait_until(lambda: is_done(found))
    search.pause()
    running.cancel()
    return search, found


async def test_found_tickets_are_true_and_each_is_better_than_the_last() -> None:
    chain = FakeChain()
    chain.begin()
    search, found = await search_until(chain, chain.times_ms[-1], lambda found: len(found) >= 3)
    assert search.steps > 0
    for ticket in found:
        verdict, _ = verify_claim(chain.task, chain.make_head(), ticket.claim, lambda: None)
        assert isinstance(verdict, TrueWalk)
        assert verdict.score == ticket.score
        good_ms = compute_ticket_time_ms(PARAMS, chain.as_mining_head(), verdict)
        assert good_ms == ticket.good_time_ms
    for before, after in pairwise(found):
        assert after.is_better_than(before)


async def test_the_search_leaves_a_head_that_is_no_longer_the_newest() -> None:
    chain = FakeChain()
    chain.begin()
    now_ms = chain.times_ms[-1]
    found: list[Ticket] = []
    search = Search(make_task(), MINER.address, ChainClock(lambda: now_ms), found.append)
    running = asyncio.create_task(search.run())
    search.mine(chain.as_mining_head())
    await wait_until(lambda: search.steps >= 5)
    search.pause()
    with search.training:
        paused_at = search.steps
    assert search.best is None
    await asyncio.sleep(0.05)
    assert search.steps == paused_at
    chain.win()
    found.clear()
    search.mine(chain.as_mining_head())
    await wait_until(lambda: bool(found))
    running.cancel()
    assert {ticket.claim.generation for ticket in found} == {1}


async def test_an_error_in_the_search_is_not_lost() -> None:
    chain = FakeChain()
    chain.begin()

    def fail(_: Ticket) -> None:
        raise ZeroDivisionError

    clock = ChainClock(lambda: chain.times_ms[-1])
    search = Search(make_task(), MINER.address, clock, fail)
    search.mine(chain.as_mining_head())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(search.run(), 60)
