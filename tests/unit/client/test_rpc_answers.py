from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pol_abci.client import rpc as rpc_module
from pol_abci.client.answers import RoundState
from pol_abci.client.reading import parse_time_ms
from pol_abci.client.rpc import RpcClient, parse_node_url
from pol_abci.client.rpc_errors import (
    BlockPruned,
    InvalidNodeUrl,
    NodeUnreachable,
    RpcError,
    TxInCache,
    UnexpectedAnswer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

URL = "http://node.test:26657"
HEADER = {
    "chain_id": "c",
    "height": "2",
    "time": "2026-11-23T06:21:42.811914423Z",
    "app_hash": "00FF",
    "proposer_address": "9D0E3206479B20B73D6F3E22B5CA59BD78ACB0DF",
}


def make_client(answer: Callable[[str, dict[str, Any]], Any]) -> RpcClient:
    """A client whose node answers `answer(method, params)` as a JSON-RPC result."""

    def handle(request: httpx.Request) -> httpx.Response:
        call = json.loads(request.content)
        result = answer(call["method"], call["params"])
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": call["id"], "result": result})

    return RpcClient(URL, transport=httpx.MockTransport(handle))


def make_raw_client(handle: Callable[[httpx.Request], httpx.Response]) -> RpcClient:
    return RpcClient(URL, transport=httpx.MockTransport(handle))


async def test_status_of_a_node() -> None:
    sync = {
        "latest_block_height": "3",
        "latest_block_time": "2026-11-23T06:21:43.816125902Z",
        "catching_up": False,
    }
    node = {"network": "c", "version": "0.38.25"}
    rpc = make_client(lambda *_: {"node_info": node, "sync_info": sync})
    status = await rpc.status()
    assert (status.chain_id, status.latest_height) == ("c", 3)
    assert status.latest_time_ms % 1000 == 816
    assert not status.catching_up


async def test_where_consensus_stands() -> None:
    votes = [
        {"round": 0, "prevotes_bit_array": "BA{4:xxxx} 40/40 = 1.00", "precommits_bit_array": "x"},
        {
            "round": 1,
            "prevotes": ["Vote{0:9D0E32064791 8/01/1(Prevote)}", "nil-Vote"],
            "prevotes_bit_array": "BA{4:xx__} 20/40 = 0.50",
            "precommits_bit_array": "BA{4:____} 0/40 = 0.00",
        },
    ]
    state = {"height/round/step": "8/1/4", "height_vote_set": votes}
    stands = await make_client(lambda *_: {"round_state": state}).round_state()
    assert stands == RoundState(height=8, round=1, prevotes=20, precommits=0, total=40)
    for broken in ({"height/round/step": "8/1"}, {"height_vote_set": votes[:1]}):
        node = make_client(lambda *_, broken=broken: {"round_state": {**state, **broken}})
        with pytest.raises(UnexpectedAnswer):
            await node.round_state()


async def test_a_query_travels_as_cometbft_wants_it() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(method: str, params: dict[str, Any]) -> Any:
        asked.append((method, params))
        op = {"type": "simple:v", "key": base64.b64encode(b"k").decode(), "data": None}
        response = {
            "code": 0,
            "height": "7",
            "key": "aw==",
            "value": "dg==",
            "proofOps": {"ops": [op]},
        }
        return {"response": response}

    result = await make_client(answer).abci_query("/store/state/key", b"k", prove=True)
    assert asked == [("abci_query", {"path": "/store/state/key", "data": "6b", "prove": True})]
    assert (result.key, result.value, result.height) == (b"k", b"v", 7)
    assert (result.ops[0].type, result.ops[0].key, result.ops[0].data) == ("simple:v", b"k", b"")


async def test_empty_values_are_left_out_by_cometbft() -> None:
    response = {"code": 0, "key": None, "value": None, "proofOps": None, "height": "0"}
    answer = await make_client(lambda *_: {"response": response}).abci_query("/status", b"")
    assert (answer.key, answer.value, answer.ops) == (b"", b"", ())


async def test_header_block_and_results() -> None:
    def answer(method: str, _: dict[str, Any]) -> Any:
        event = {"type": "proof", "attributes": [{"key": "steps", "value": "3", "index": True}]}
        return {
            "commit": {"signed_header": {"header": HEADER}},
            "block": {
                "block_id": {"hash": "AB"},
                "block": {"header": HEADER, "data": {"txs": ["YT1i"]}},
            },
            "block_results": {
                "height": "2",
                "txs_results": [{"code": 1, "log": "no", "events": [event]}],
                "finalize_block_events": None,
            },
        }[method]

    rpc = make_client(answer)
    header = await rpc.commit(2)
    assert (header.height, header.app_hash) == (2, b"\x00\xff")
    block = await rpc.block(2)
    assert (block.header, block.hash, block.txs) == (header, b"\xab", (b"a=b",))
    results = await rpc.block_results(2)
    assert results.events == ()
    assert results.txs[0].code == 1
    assert results.txs[0].events[0].attributes == (("steps", "3"),)


async def test_genesis_is_joined_from_its_chunks() -> None:
    text = json.dumps({"chain_id": "c", "initial_height": "1", "app_state": {"é": [1]}}).encode()

    def answer(method: str, params: dict[str, Any]) -> Any:
        assert method == "genesis_chunked"
        part = text[:10] if params["chunk"] == "0" else text[10:]
        return {"chunk": params["chunk"], "total": "2", "data": base64.b64encode(part).decode()}

    genesis = await make_client(answer).genesis()
    assert (genesis.chain_id, genesis.app_state) == ("c", {"é": [1]})


@pytest.mark.parametrize(
    ("data", "asked", "words"),
    [(b"", 1, "0 bytes"), (b" ", 16, "more than 16 chunks"), (b" " * 11, 1, "11 bytes")],
)
async def test_a_genesis_without_end_is_left(
    monkeypatch: pytest.MonkeyPatch, data: bytes, asked: int, words: str
) -> None:
    def answer(method: str, params: dict[str, Any]) -> Any:
        assert method == "genesis_chunked"
        calls.append(params["chunk"])
        assert len(calls) < 99
        return {"total": str(10**9), "data": base64.b64encode(data).decode()}

    calls: list[str] = []
    monkeypatch.setattr(rpc_module, "GENESIS_CHUNK_BYTES", 10)
    with pytest.raises(UnexpectedAnswer, match=words):
        await make_client(answer).genesis()
    assert len(calls) == asked


async def test_what_checktx_said_of_a_transaction() -> None:
    rpc = make_client(lambda *_: {"code": 25, "log": "not walked yet", "hash": "AB"})
    broadcast = await rpc.broadcast_tx_sync(b"tx")
    assert (broadcast.code, broadcast.log, broadcast.is_accepted) == (25, "not walked yet", False)


def error_answer(error: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(500, json={"jsonrpc": "2.0", "id": 1, "error": error})


async def test_an_error_of_the_node_is_told_in_its_words() -> None:
    detail = "height 99 must be less than or equal to the current blockchain height 5"
    error = {"code": -32603, "message": "Internal error", "data": detail}
    with pytest.raises(RpcError, match="refused commit: height 99 must be less"):
        await make_raw_client(error_answer(error)).commit(99)
    bare = {"code": -32601, "message": "Method not found"}
    with pytest.raises(RpcError, match="Method not found"):
        await make_raw_client(error_answer(bare)).commit(99)


async def test_a_transaction_sent_twice_is_told_apart() -> None:
    error = {"code": -32603, "message": "Internal error", "data": "tx already exists in cache"}
    with pytest.raises(TxInCache):
        await make_raw_client(error_answer(error)).broadcast_tx_sync(b"tx")


async def test_a_block_that_the_node_has_deleted_is_told_apart_with_what_to_do() -> None:
    detail = "height 7 is not available, lowest height is 40"
    error = {"code": -32603, "message": "Internal error", "data": detail}
    with pytest.raises(BlockPruned, match=r"has no block 7 any more.*oldest is 40\. Ask a node"):
        await make_raw_client(error_answer(error)).block(7)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404, text="<html>not here</html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"jsonrpc": "2.0", "id": 1}),
        httpx.Response(200, json={"result": []}),
        httpx.Response(200, json={"result": {"response": 3}}),
        httpx.Response(200, json={"result": {"response": {"last_block_height": "many"}}}),
        httpx.Response(200, json={"result": {"response": {"last_block_height": True}}}),
        httpx.Response(200, json={"result": {"response": {"last_block_app_hash": "*"}}}),
        httpx.Response(200, json={"error": "no"}),
        httpx.Response(200, json={"error": None}),
    ],
)
async def test_something_else_on_that_port_is_told_in_words(response: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"node\.test"):
        await make_raw_client(lambda _: response).abci_info()


async def test_an_answer_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send() -> AsyncIterator[bytes]:
        while True:
            sent.append(b"x" * 100)
            assert len(sent) < 99
            yield sent[-1]

    sent: list[bytes] = []
    monkeypatch.setattr(rpc_module, "MAX_ANSWER_BYTES", 1_000)
    with pytest.raises(UnexpectedAnswer, match="status with more than 1000 bytes"):
        await make_raw_client(lambda _: httpx.Response(200, content=send())).status()
    assert len(sent) == 11


async def test_a_header_without_a_time_is_no_header() -> None:
    rpc = make_client(lambda *_: {"signed_header": {"header": HEADER | {"time": "yesterday"}}})
    with pytest.raises(UnexpectedAnswer, match="time"):
        await rpc.commit(2)


async def test_a_node_that_is_down_is_unreachable(unused_tcp_port: int) -> None:
    async with RpcClient(f"http://127.0.0.1:{unused_tcp_port}") as rpc:
        with pytest.raises(NodeUnreachable, match=f"no node answers at .*{unused_tcp_port}"):
            await rpc.status()


async def test_a_node_that_hangs_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with RpcClient(f"http://127.0.0.1:{port}", timeout_s=0.05) as rpc:
            with pytest.raises(NodeUnreachable, match=r"did not answer status within 0\.05 s"):
                await rpc.status()


async def test_an_answer_that_trickles_is_not_waited_for(unused_tcp_port: int) -> None:
    client_left = asyncio.Event()

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        client_left.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", unused_tcp_port)
    async with (
        server,
        asyncio.timeout(20),
        RpcClient(f"http://127.0.0.1:{unused_tcp_port}", timeout_s=0.3) as rpc,
    ):
        with pytest.raises(NodeUnreachable, match=r"did not answer status within 0\.3 s"):
            await rpc.status()
        await client_left.wait()


async def test_json_nested_without_end_is_no_answer() -> None:
    rpc = make_raw_client(lambda _: httpx.Response(200, content=b"[" * 100_000))
    with pytest.raises(UnexpectedAnswer, match="no JSON"):
        await rpc.status()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:26657", "http://127.0.0.1:26657"),
        ("tcp://127.0.0.1:26657/", "http://127.0.0.1:26657"),
        ("localhost:1", "http://localhost:1"),
        ("https://[::1]:443/rpc", "https://[::1]:443/rpc"),
    ],
)
def test_node_urls(text: str, url: str) -> None:
    assert parse_node_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "node", "ftp://a:1", "http://:1", "http://a:b", "http://a:99999"),
        *("http://10.0.0.256:1", "http://\u2603.\u200d:1"),
    ],
)
def test_text_that_is_no_node_url(text: str) -> None:
    with pytest.raises(InvalidNodeUrl, match="write it as http"):
        parse_node_url(text)


def test_times_are_floored_to_milliseconds() -> None:
    assert parse_time_ms("1970-01-01T00:00:01Z") == 1_000
    assert parse_time_ms("1970-01-01T00:00:01.999999999Z") == 1_999
    assert parse_time_ms("2026-11-23T06:21:42.8Z") == 1_795_414_902_800
    for text in ("", "1970-01-01 00:00:01Z", "1970-01-01T00:00:01+01:00", "1970-13-01T00:00:01Z"):
        with pytest.raises(ValueError, match=r"time|month"):
            parse_time_ms(text)
