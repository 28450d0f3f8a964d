"""CometBFT's JSON-RPC over HTTP POST, typed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx

from pol_abci.client.answers import (
    AbciInfo,
    Block,
    BlockHeader,
    BlockResults,
    Broadcast,
    NodeGenesis,
    NodeStatus,
    PeerAddress,
    QueryAnswer,
    RoundState,
    TxResult,
)
from pol_abci.client.reading import Reading, unwrap
from pol_abci.client.rpc_errors import InvalidNodeUrl, NodeUnreachable, UnexpectedAnswer
from pol_abci.rules.merkle_proofs import ProofOp

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_TIMEOUT_S = 10.0
GENESIS_CHUNK_BYTES = 16 * 2**20
"""What CometBFT cuts a genesis document into."""

MAX_GENESIS_CHUNKS = 16
"""256 MiB, far more than the accounts and validators of any genesis take."""

MAX_ANSWER_BYTES = 192 * 2**20
"""More than a block of 100 MiB takes, CometBFT's bound, in base64."""


class RpcClient:
    """A node's RPC. Use as an async context manager, or `close` it."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = parse_node_url(url)
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._http = httpx.AsyncClient(timeout=timeout_s, transport=transport, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def status(self) -> NodeStatus:
        """Where the node stands."""
        reading = await self.call("status")
        sync = reading.at("sync_info")
        return NodeStatus(
            chain_id=reading.at("node_info").text("network"),
            version=reading.at("node_info").text("version"),
            latest_height=sync.integer("latest_block_height"),
            latest_time_ms=sync.time_ms("latest_block_time"),
            catching_up=sync.boolean("catching_up"),
        )

    async def peer_address(self) -> PeerAddress:
        """How other nodes reach this one, at the host where its RPC answers."""
        node = (await self.call("status")).at("node_info")
        node_id, port = node.text("id"), node.text("listen_addr").rpartition(":")[2]
        if not re.fullmatch(r"[0-9a-f]{40}", node_id, re.ASCII) or not re.fullmatch(
            r"[0-9]{1,5}", port, re.ASCII
        ):
            raise UnexpectedAnswer(f"{self.url} does not say how other nodes reach it")
        return PeerAddress(node_id=node_id, port=int(port))

    async def voting_power(self) -> int:
        """Power of the node's own consensus key, 0 when it is no validator."""
        return (await self.call("status")).at("validator_info").integer("voting_power")

    async def peer_count(self) -> int:
        """How many other nodes it is connected to."""
        return (await self.call("net_info")).integer("n_peers")

    async def round_state(self) -> RoundState:
        """Where the node's consensus stands."""
        state = (await self.call("consensus_state")).at("round_state")
        place = re.fullmatch(r"(\d+)/(\d+)/\d+", state.text("height/round/step"), re.ASCII)
        number = int(place[2]) if place else 0
        votes = next(
            (each for each in state.items("height_vote_set") if each.integer("round") == number),
            None,
        )
        if place is None or votes is None:
            raise UnexpectedAnswer(f"{self.url} sent a consensus_state that cannot be read")
        prevotes, total = votes.voted("prevotes_bit_array")
        precommits, _ = votes.voted("precommits_bit_array")
        return RoundState(
            height=int(place[1]),
            round=number,
            prevotes=prevotes,
            precommits=precommits,
            total=total,
        )

    async def genesis(self) -> NodeGenesis:
        """Fetch what the application reads of the genesis document."""
        document = Reading(self.url, "genesis", await self.genesis_document())
        return NodeGenesis(
            chain_id=document.text("chain_id"),
            initial_height=document.integer("initial_height"),
            app_state=document.value("app_state"),
        )

    async def genesis_document(self) -> Any:
        """Fetch the genesis document, by chunks, since `/genesis` refuses a large one."""
        content = b""
        for number in range(MAX_GENESIS_CHUNKS):
            reading = await self.call("genesis_chunked", chunk=str(number))
            chunk = reading.base64("data")
            if not 0 < len(chunk) <= GENESIS_CHUNK_BYTES:
                raise UnexpectedAnswer(f"{self.url} sent {len(chunk)} bytes as a chunk of genesis")
            content += chunk
            if number + 1 >= reading.integer("total"):
                break
        else:
            raise UnexpectedAnswer(
                f"{self.url} sent a genesis of more than {MAX_GENESIS_CHUNKS} chunks"
            )
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer(f"{self.url} sent a genesis that is not JSON") from error

    async def block(self, height: int) -> Block:
        """Fetch the block of a height."""
        reading = await self.call("block", height=str(height))
        block = reading.at("block")
        return Block(
            header=block.header("header"),
            hash=reading.at("block_id").hex("hash"),
            txs=tuple(block.at("data").base64_list("txs")),
        )

    async def block_results(self, height: int) -> BlockResults:
        """Fetch what the application answered to the block of a height."""
        reading = await self.call("block_results", height=str(height))
        return BlockResults(
            height=reading.integer("height"),
            txs=tuple(
                TxResult(code=item.integer("code"), log=item.text("log"), events=item.events())
                for item in reading.items("txs_results")
            ),
            events=reading.events("finalize_block_events"),
        )

    async def commit(self, height: int) -> BlockHeader:
        """Fetch the header of a height, the one that its commit signs."""
        reading = await self.call("commit", height=str(height))
        return reading.at("signed_header").header("header")

    async def abci_info(self) -> AbciInfo:
        """Fetch the application's own height and app hash."""
        response = (await self.call("abci_info")).at("response")
        return AbciInfo(
            version=response.text("version", ""),
            app_version=response.integer("app_version", 0),
            height=response.integer("last_block_height", 0),
            app_hash=response.base64("last_block_app_hash"),
        )

    async def abci_query(self, path: str, data: bytes, *, prove: bool = False) -> QueryAnswer:
        """Ask the application for what is newest, or provable; the answer is not verified here."""
        reading = await self.call("abci_query", path=path, data=data.hex(), prove=prove)
        response = reading.at("response")
        ops = response.at("proofOps").items("ops") if response.value("proofOps", None) else ()
        return QueryAnswer(
            code=response.integer("code"),
            log=response.text("log", ""),
            height=response.integer("height", 0),
            key=response.base64("key"),
            value=response.base64("value"),
            ops=tuple(
                ProofOp(type=op.text("type"), key=op.base64("key"), data=op.base64("data"))
                for op in ops
            ),
        )

    async def broadcast_tx_sync(self, raw: bytes) -> Broadcast:
        """Offer a transaction and wait for CheckTx's answer.

        Raises
        ------
        TxInCache
            The node has these very bytes already, in its mempool or from before.
        """
        reading = await self.call("broadcast_tx_sync", tx=base64.b64encode(raw).decode())
        return Broadcast(
            code=reading.integer("code"), log=reading.text("log", ""), hash=reading.hex("hash")
        )

    async def call(self, method: str, **params: Any) -> Reading:
        """Call a method and read its result, an object."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            # httpx bounds each wait for a byte alone: an answer could trickle for ever
            async with asyncio.timeout(self._timeout_s):
                status, content = await self._post(method, request)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise NodeUnreachable(
                f"the node at {self.url} did not answer {method} within {self._timeout_s:g} s"
            ) from error
        except httpx.RequestError as error:
            raise NodeUnreachable(
                f"no node answers at {self.url}: {str(error) or type(error).__name__}"
            ) from error
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:  # the latter: nested without end
            raise UnexpectedAnswer(
                f"{self.url} answered {method} with HTTP {status} and no JSON; "
                f"is that CometBFT's RPC port?"
            ) from error
        return Reading(self.url, method, unwrap(self.url, method, answer))

    async def _post(self, method: str, request: dict[str, Any]) -> tuple[int, bytearray]:
        """Status and content of an answer, as long as it stays within what one can be."""
        content = bytearray()
        async with self._http.stream("POST", self.url, json=request) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    raise UnexpectedAnswer(
                        f"{self.url} answers {method} with more than {MAX_ANSWER_BYTES} bytes"
                    )
        return response.status_code, content


def parse_node_url(url: str) -> str:
    """Return the URL of a node's RPC as `http(s)://host:port`; `tcp://` means http.

    Raises
    ------
    InvalidNodeUrl
        When it is none, in words.
    """
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        is_complete = bool(parts.hostname) and parts.port is not None
        httpx.URL(text)  # knows more of what no host is called
    except (ValueError, httpx.InvalidURL):
        is_complete = False
    if not is_complete or parts.scheme not in {"http", "https", "tcp"}:
        raise InvalidNodeUrl(
            f"{url!r} is not the address of a node's RPC: write it as http://127.0.0.1:26657"
        )
    scheme = "http" if parts.scheme == "tcp" else parts.scheme
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
