"""What is asked of a chain's nodes before a home joins it, and what is not believed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import UnexpectedAnswer
from pol_abci.node import joining
from pol_abci.node.joining import Introduction, JoiningError, StateSync, ask_nodes
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.genesis import genesis_to_json
from tests.unit.client.test_chain_queries import STATUS
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from collections.abc import Callable

HASHES = {20: "AB" * 32, 40: "CD" * 32}
IDS = {"one.test": "1" * 40, "::1": "2" * 40}
ONE, TWO = "http://one.test:26657", "http://[::1]:36657"
HEADER = {
    "chain_id": "c",
    "height": "20",
    "time": "2026-11-23T06:21:42.811914423Z",
    "app_hash": "00FF",
    "proposer_address": "9D0E3206479B20B73D6F3E22B5CA59BD78ACB0DF",
}


def make_document() -> dict[str, Any]:
    return {
        "chain_id": "joined-1",
        "initial_height": "1",
        "consensus_params": {"version": {"app": "1"}},
        "app_state": genesis_to_json(make.genesis()),
    }


@dataclass
class Fake:
    """A node as its RPC shows it."""

    snapshot_height: int | None = 20
    hashes: dict[int, str] = field(default_factory=lambda: dict(HASHES))
    document: dict[str, Any] = field(default_factory=make_document)
    listen: str = "tcp://0.0.0.0:26656"

    def answer(self, host: str, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "genesis_chunked":
                data = base64.b64encode(json.dumps(self.document).encode()).decode()
                return {"chunk": "0", "total": "1", "data": data}
            case "status":
                return {"node_info": {"id": IDS[host], "listen_addr": self.listen}}
            case "abci_query":
                value = json.dumps(STATUS | {"snapshot_height": self.snapshot_height}).encode()
                return {"response": {"code": 0, "value": base64.b64encode(value).decode()}}
            case "block":
                found = self.hashes[int(params["height"])]
                return {"block_id": {"hash": found}, "block": {"header": HEADER, "data": {}}}
        raise AssertionError(method)


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Ask the nodes that are given by URL; what people are told goes to `said`."""

    async def ask(
        nodes: dict[str, Fake],
        *,
        said: list[str] | None = None,
        trust: tuple[int, bytes] | None = None,
        by_blocks: bool = False,
    ) -> Introduction:
        def handle(request: httpx.Request) -> httpx.Response:
            call = json.loads(request.content)
            node = next(
                node for url, node in nodes.items() if httpx.URL(url).host in str(request.url)
            )
            result = node.answer(request.url.host, call["method"], call["params"])
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": call["id"], "result": result})

        transport = httpx.MockTransport(handle)
        monkeypatch.setattr(joining, "RpcClient", lambda url: RpcClient(url, transport=transport))
        heard = [] if said is None else said
        return await ask_nodes(tuple(nodes), trust=trust, by_blocks=by_blocks, report=heard.append)

    return ask


async def test_two_nodes_introduce_their_chain_and_are_trusted_aloud(
    ask: Callable[..., Any],
) -> None:
    said: list[str] = []
    found = await ask({ONE: Fake(20), TWO: Fake(40, listen="tcp://[::]:36656")}, said=said)
    assert found.document.chain_id == "joined-1"
    assert found.peers == f"{'1' * 40}@one.test:26656,{'2' * 40}@[::1]:36656"
    assert found.state_sync == StateSync(
        servers=(ONE, TWO), trust_height=40, trust_hash=bytes.fromhex(HASHES[40])
    )
    (sentence,) = said
    assert f"Trusting {ONE} and {TWO}" in sentence
    assert HASHES[40] in sentence
    config = found.state_sync.compose_config()
    assert config["rpc_servers"] == f"{ONE},{TWO}"
    assert (config["trust_height"], config["trust_hash"]) == (40, HASHES[40])


async def test_one_node_stands_for_both_servers_of_cometbft(ask: Callable[..., Any]) -> None:
    found = await ask({ONE: Fake()})
    assert found.state_sync is not None
    assert found.state_sync.compose_config()["rpc_servers"] == f"{ONE},{ONE}"


async def test_a_given_hash_is_trusted_in_place_of_the_nodes(ask: Callable[..., Any]) -> None:
    said: list[str] = []
    trust = 20, bytes.fromhex(HASHES[20])
    found = await ask({ONE: Fake(40)}, trust=trust, said=said)
    assert (found.state_sync.trust_height, found.state_sync.trust_hash) == trust
    assert said == []
    with pytest.raises(JoiningError, match="another chain than the one that you trust"):
        await ask({ONE: Fake()}, trust=(20, bytes(32)))


async def test_without_a_snapshot_or_when_asked_to_all_blocks_are_executed(
    ask: Callable[..., Any],
) -> None:
    said: list[str] = []
    assert (await ask({ONE: Fake(None)}, said=said)).state_sync is None
    assert "None of the nodes has a snapshot yet" in said[0]
    assert (await ask({ONE: Fake()}, by_blocks=True)).state_sync is None


async def test_nodes_that_do_not_agree_are_told_apart(ask: Callable[..., Any]) -> None:
    other = make_document() | {"chain_id": "other-1"}
    with pytest.raises(JoiningError, match="not nodes of one chain"):
        await ask({ONE: Fake(), TWO: Fake(document=other)})
    with pytest.raises(JoiningError, match="one of them is on a fork"):
        await ask({ONE: Fake(), TWO: Fake(hashes={20: "EF" * 32})})


async def test_what_is_no_genesis_or_no_node_is_refused_in_words(ask: Callable[..., Any]) -> None:
    with pytest.raises(GenesisError, match=f"the genesis of {ONE} is of protocol version None"):
        await ask({ONE: Fake(document=make_document() | {"consensus_params": {}})})
    with pytest.raises(UnexpectedAnswer, match="how other nodes reach it"):
        await ask({ONE: Fake(listen="nowhere")})
