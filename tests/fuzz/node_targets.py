"""What a node answers to strangers, and what a client makes of a stranger's node."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
from google.protobuf.message import DecodeError

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.app.tickets import TICKET_BYTES
from pol_abci.app.walk_queue import QUEUE_BYTES
from pol_abci.cli.status import _describe_chain
from pol_abci.client.chain import get_chain_status, get_history
from pol_abci.client.events import Patience, _next_header
from pol_abci.client.holdings import HOLDINGS_PATH, get_holdings
from pol_abci.client.rpc import RpcClient
from pol_abci.rules import codec, keys
from pol_abci.rules.errors import PolError
from pol_abci.rules.params import MAX_TX_BYTES
from pol_abci.rules.state import Overlay
from tests.abci.digits_chain import CHAIN_ID, make_genesis, make_key
from tests.abci.digits_driver import register, run_chain, transfer, unjail
from tests.fuzz.loop import Target, describe_refusal
from tests.fuzz.mutate import mutate_json
from tests.unit.client.test_follow_blocks import make_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from tests.abci.digits_driver import DigitsChain

URL = "http://node.test:26657"
TIME = "2026-11-23T06:21:42.811914423Z"
HEADER = {
    "chain_id": "c", "height": "2", "time": TIME, "app_hash": "00FF", "proposer_address": "9D0E",
}  # fmt: skip
ANSWER = {  # of every method at once
    "block_id": {"hash": "00FF"},
    "block": {"header": HEADER, "data": {"txs": ["AAEC", ""]}},
    "signed_header": {"header": HEADER},
    "node_info": {"network": "c", "version": "0.38.25"},
    "sync_info": {"latest_block_height": "3", "latest_block_time": TIME, "catching_up": False},
    "height": "2",
    "txs_results": [{"code": 0, "log": "", "events": [{"type": "t", "attributes": []}]}],
    "finalize_block_events": [{"type": "t", "attributes": [{"key": "k", "value": "v"}]}],
    "response": {"version": "0", "app_version": "1", "last_block_height": "2"},
    "code": 2,
    "hash": "00FF",
}
RECORD = codec.GenerationRecord(
    generation=1, height=3, time_ms=4, interval_ms=5, difficulty=6, score=7, correct_head=8,
    correct_ticket=9, miner=make_key(2).address, nonce=1, steps=2, weights_root=bytes(32),
    tx_hash=bytes(32),
)  # fmt: skip
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@contextmanager
def open_node_targets() -> Iterator[tuple[Target, ...]]:
    """A node with a few blocks, and clients; they live as long as the context."""
    with TemporaryDirectory(prefix="pol-fuzz-") as folder, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        chain = runner.run(_begin(stack, Path(folder)))
        try:
            yield _make_targets(chain, runner.run)
        finally:
            runner.run(stack.aclose())


async def _begin(stack: AsyncExitStack, folder: Path) -> DigitsChain:
    genesis = make_genesis(funded=(2, 3))
    chain = await stack.enter_async_context(run_chain(folder, genesis=genesis))
    await chain.begin()
    return chain


def _make_targets(chain: DigitsChain, run: Run) -> tuple[Target, ...]:
    account = abci.RequestQuery(path=b"/store/state/key", data=keys.account(make_key(2).address))
    proven = abci.RequestQuery(path=b"/store/weights/key", data=bytes(8), prove=True)
    history = abci.RequestQuery(path=b"/history", data=bytes(8))
    status = abci.RequestQuery(path=b"/status", height=2)
    held = abci.RequestQuery(path=HOLDINGS_PATH.encode(), data=make_key(1).address)
    queries = [each.SerializeToString() for each in (account, proven, history, status, held)]
    txs = [transfer(2, 1), register(2, 1), unjail(2, 1), transfer(2, 1, amount=1), chain.mine(2)]
    record = RECORD.encode()
    return (
        Target(
            name="CheckTx",
            share=0.05,
            seeds=[codec.decode_tx(raw).body_bytes for raw in txs],
            run=_make_check_tx(chain, run),
        ),
        Target(name="Query", share=0.03, seeds=queries, run=_make_query(chain, run)),
        Target(
            name="a node's /status",
            share=0.01,
            seeds=[run(chain.app.query(status)).value],
            run=_make_reader(run, _show_status, _wrap_query),
            mutate=mutate_json,
        ),
        Target(
            name="a node's /history",
            share=0.002,
            seeds=[len(record).to_bytes(4, "big") + record],
            run=_make_reader(run, lambda rpc: get_history(rpc, 1), _wrap_query),
        ),
        Target(
            name="a node's /holdings",
            share=0.001,
            seeds=[run(chain.app.query(held)).value],
            run=_make_reader(run, lambda rpc: get_holdings(rpc, make_key(1).address), _wrap_query),
        ),
        Target(
            name="RPC answers",
            share=0.003,
            seeds=[_wrap(ANSWER)],
            run=_make_reader(run, _ask_everything, bytes),
            mutate=mutate_json,
        ),
        Target(
            name="block events",
            share=0.002,
            seeds=[make_event(5).encode()],
            run=_make_event_reader(run),
            mutate=mutate_json,
        ),
    )


def _make_check_tx(chain: DigitsChain, run: Run) -> Callable[[bytes], str]:
    key, node = make_key(2), chain.nodes[0]

    def check_tx(body: bytes) -> str:
        """Whatever a sender signs: an answer in words, and nothing that grows without end."""
        raw = codec.encode_tx(body, key.public_key, key.sign_body(CHAIN_ID, body))
        reply = run(chain.check(raw))
        assert (reply.code == 0) == (not reply.log)
        assert node.verifier.queued <= QUEUE_BYTES // MAX_TX_BYTES
        assert len(node.replica.tickets) <= TICKET_BYTES // MAX_TX_BYTES
        node.replica.mempool_state = Overlay(node.replica.state)  # the next sequence stays the same
        return f"code {reply.code}" if reply.code else "ok"

    return check_tx


def _make_query(chain: DigitsChain, run: Run) -> Callable[[bytes], str]:
    def query(data: bytes) -> str:
        """Any query: an answer, or one of three codes and a sentence."""
        try:
            request = abci.RequestQuery.FromString(data)
        except DecodeError:
            return "no request"
        reply = run(chain.app.query(request))
        assert reply.code in {0, 1, 2, 3}
        assert (reply.code == 0) == (not reply.log)
        return f"code {reply.code}" if reply.code else f"ok {request.path[:20]!r}"

    return query


def _make_reader(
    run: Run, ask: Callable[[RpcClient], Awaitable[object]], wrap: Callable[[bytes], bytes]
) -> Callable[[bytes], str]:
    """Have a client read an HTTP answer: it gives a value, or a PolError."""
    content = b""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=content)

    rpc = RpcClient(URL, transport=httpx.MockTransport(answer))

    async def read() -> str:
        try:
            await ask(rpc)
        except PolError as error:
            return describe_refusal(error)
        return "ok"

    def reader(data: bytes) -> str:
        nonlocal content
        content = wrap(data)
        outcome: str = run(read())
        return outcome

    return reader


async def _show_status(rpc: RpcClient) -> None:
    """Read a status, and say it as `pol-abci status` does."""
    lines = _describe_chain(await get_chain_status(rpc), (RECORD,))
    assert all(isinstance(sentence, str) for _, sentence in lines)


async def _ask_everything(rpc: RpcClient) -> None:
    """Read an answer as that of each method; the last refusal is told."""
    refusal: PolError | None = None
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        rpc.status,
        rpc.abci_info,
        lambda: rpc.block(2),
        lambda: rpc.commit(2),
        lambda: rpc.block_results(2),
        lambda: rpc.broadcast_tx_sync(b""),
    )
    for call in calls:
        try:
            await call()
        except PolError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _make_event_reader(run: Run) -> Callable[[bytes], str]:
    class Connection:
        message = b""

        async def recv(self) -> bytes:
            return self.message

    connection: Any = Connection()
    limits = Patience()

    async def read() -> str:
        try:
            await _next_header(URL, connection, limits)
        except PolError as error:
            return describe_refusal(error)
        return "ok"

    def reader(data: bytes) -> str:
        connection.message = data
        outcome: str = run(read())
        return outcome

    return reader


def _wrap(result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def _wrap_query(value: bytes) -> bytes:
    encoded = base64.b64encode(value).decode()
    return _wrap({"response": {"code": 0, "value": encoded, "height": "1"}})
