"""When a kept ticket is handed to the node's own CometBFT, and when that ends."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

from pol_abci.app.resubmit import RETRY_S, choose_ticket, resubmit_tickets
from pol_abci.app.tickets import Ticket
from pol_abci.client.rpc import RpcClient
from pol_abci.rules.params import Address
from pol_abci.rules.proof import TrueWalk, WalkClaim
from tests.abci.digits_chain import DigitsNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pol_abci.app.replica import Replica

NOW_MS = 1_000_000
PATIENCE_S = 20
"""Until a test gives up on something that comes at once."""


def make_ticket(owner: int, score: int, good_time_ms: int) -> Ticket:
    claim = WalkClaim(
        generation=0,
        address=Address(bytes([owner]) * 20),
        nonce=0,
        steps=2,
        step_digests=bytes(16),
        weights_root=bytes(32),
    )
    return Ticket(b"%d scores %d" % (owner, score), claim, TrueWalk(score, 0, 0), good_time_ms)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DigitsNode]:
    node = DigitsNode(tmp_path)
    node.clock.now_ms = NOW_MS
    yield node
    node.close()


def keep(node: DigitsNode, *tickets: Ticket) -> None:
    for ticket in tickets:
        assert node.replica.tickets.keep(ticket)
    node.replica.on_change()


def accept(replica: Replica, ticket: Ticket) -> None:
    """CheckTx says yes."""
    replica.tickets.mark_accepted(ticket.claim.address, ticket.raw, replica.get_now_ms())


def test_nothing_kept_nothing_to_do(node: DigitsNode) -> None:
    assert choose_ticket(node.replica) == (None, None)


def test_a_ticket_waits_for_its_millisecond(node: DigitsNode) -> None:
    ticket = make_ticket(1, 10, NOW_MS + 2_500)
    keep(node, ticket, make_ticket(2, 99, NOW_MS + 9_000))
    assert choose_ticket(node.replica) == (None, 2.5)
    node.clock.now_ms += 2_499
    assert choose_ticket(node.replica) == (None, 0.001)
    node.clock.now_ms += 1
    assert choose_ticket(node.replica) == (ticket, RETRY_S)


def test_the_newest_headers_time_counts_where_the_clock_is_behind(node: DigitsNode) -> None:
    ticket = make_ticket(1, 10, NOW_MS + 2_500)
    keep(node, ticket)
    node.replica.time_ms = NOW_MS + 2_500
    assert choose_ticket(node.replica) == (ticket, RETRY_S)


def test_only_the_best_of_the_good_ones_is_submitted_and_only_until_accepted(
    node: DigitsNode,
) -> None:
    low, high, later = (
        make_ticket(1, 10, NOW_MS),
        make_ticket(2, 20, NOW_MS),
        make_ticket(3, 30, NOW_MS + 1),
    )
    keep(node, low, high, later)
    assert choose_ticket(node.replica) == (high, RETRY_S)
    accept(node.replica, high)
    assert choose_ticket(node.replica) == (None, None)
    node.clock.now_ms += 1
    assert choose_ticket(node.replica) == (later, RETRY_S)
    accept(node.replica, later)
    node.replica.tickets.mark_refused(later.claim.address, later.raw)
    assert choose_ticket(node.replica) == (later, RETRY_S)


class FakeRpc:
    """A node's RPC: hands over what was submitted, answers what it is told to."""

    def __init__(self) -> None:
        self.submitted: asyncio.Queue[bytes] = asyncio.Queue()
        self.times: list[float] = []
        self.answer: Callable[[], httpx.Response] = lambda: reply({"code": 25, "hash": "AB"})

    def handle(self, request: httpx.Request) -> httpx.Response:
        call = json.loads(request.content)
        assert call["method"] == "broadcast_tx_sync"
        self.times.append(asyncio.get_running_loop().time())
        self.submitted.put_nowait(base64.b64decode(call["params"]["tx"]))
        return self.answer()

    async def get(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.submitted.get()


def reply(result: Any = None, error: Any = None) -> httpx.Response:
    content = {"error": error} if error else {"result": result}
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1} | content)


@asynccontextmanager
async def run_resubmission(replica: Replica) -> AsyncIterator[FakeRpc]:
    fake = FakeRpc()
    transport = httpx.MockTransport(fake.handle)
    async with RpcClient("http://node.test:1", transport=transport) as rpc:
        running = asyncio.create_task(resubmit_tickets(replica, rpc))
        await settle()
        try:
            yield fake
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def settle() -> None:
    """Let the loop do all that waits for nothing."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_good_ticket_is_submitted_at_once_and_again_until_checktx_said_yes(
    node: DigitsNode,
) -> None:
    ticket = make_ticket(1, 10, NOW_MS)
    async with run_resubmission(node.replica) as rpc:
        keep(node, ticket)
        for _ in range(3):
            assert await rpc.get() == ticket.raw
        # a reply of 0 decides nothing: CheckTx's own yes does
        rpc.answer = lambda: reply({"code": 0, "hash": "AB"})
        assert await rpc.get() == ticket.raw
        assert await rpc.get() == ticket.raw
        assert all(b - a >= 0.9 * RETRY_S for a, b in zip(rpc.times, rpc.times[1:], strict=False))
        accept(node.replica, ticket)
        node.replica.on_change()
        await settle()
        sent = len(rpc.times)
        node.replica.on_change()
        await settle()
        assert len(rpc.times) == sent


async def test_a_ticket_is_submitted_when_its_time_comes(node: DigitsNode) -> None:
    ticket = make_ticket(1, 10, NOW_MS + 50)
    async with run_resubmission(node.replica) as rpc:
        keep(node, ticket)
        await settle()
        assert rpc.times == []
        node.clock.now_ms += 50  # the loop wakes by itself, 50 ms later
        assert await rpc.get() == ticket.raw


async def test_a_better_ticket_takes_over_and_a_new_generation_ends_it(node: DigitsNode) -> None:
    ticket, better = make_ticket(1, 10, NOW_MS), make_ticket(2, 20, NOW_MS)
    async with run_resubmission(node.replica) as rpc:
        keep(node, ticket)
        assert await rpc.get() == ticket.raw
        keep(node, better)
        assert await rpc.get() == better.raw
        node.replica.tickets.clear()
        node.replica.on_change()
        await settle()
        assert rpc.submitted.empty()


def refuse() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def time_out() -> httpx.Response:
    raise httpx.ReadTimeout("timed out")


async def test_an_rpc_that_is_away_is_told_once_until_it_is_back(node: DigitsNode) -> None:
    with capture_logs() as logs:
        async with run_resubmission(node.replica) as rpc:
            rpc.answer = refuse
            keep(node, make_ticket(1, 10, NOW_MS))
            for _ in range(3):
                await rpc.get()
            rpc.answer = lambda: reply({"code": 25, "hash": "AB"})
            await rpc.get()
            rpc.answer = time_out
            for _ in range(3):
                await rpc.get()
    assert [log["event"] for log in logs] == ["this node's RPC does not answer"] * 2


@pytest.mark.parametrize(
    "failure",
    [
        refuse,
        time_out,
        lambda: reply(error={"code": -32603, "data": "tx already exists in cache"}),
        lambda: reply(error={"code": -32603, "data": "mempool is full"}),
        lambda: reply({"surprise": 1}),
        lambda: httpx.Response(502, text="<html>"),
    ],
    ids=["down", "slow", "in cache", "full", "no CometBFT", "no JSON"],
)
async def test_whatever_the_rpc_says_the_ticket_is_tried_again(
    node: DigitsNode, failure: Callable[[], httpx.Response]
) -> None:
    ticket = make_ticket(1, 10, NOW_MS)
    async with run_resubmission(node.replica) as rpc:
        rpc.answer = failure
        keep(node, ticket)
        assert await rpc.get() == ticket.raw
        assert await rpc.get() == ticket.raw
