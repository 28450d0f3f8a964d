"""CometBFT's JSON-RPC over HTTP POST, typed.

Every answer becomes a frozen dataclass with bytes and integers in it: CometBFT writes 64-bit
integers as decimal strings, bytes as base64, hashes as upper-case hex and times as RFC 3339 with
nanoseconds, which are taken to whole milliseconds by floor (protocol section 8).

    PolError
     + InvalidNodeUrl      the user's
     + NodeUnreachable     nobody answers there, or not in time; trying again may help
     + RpcError            the node answered, and says no
        + UnexpectedAnswer the answer is not one of CometBFT's
        + TxInCache        the node has seen these very bytes
        + BlockPruned      the node has deleted that block, or never had it
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import calendar
import itertools
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx

from pol_abci.rules.errors import CODE_OK, PolError
from pol_abci.rules.merkle_proofs import ProofOp

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_TIMEOUT_S = 10.0
GENESIS_CHUNK_BYTES = 16 * 2**20
"""What CometBFT cuts a genesis document into."""

MAX_GENESIS_CHUNKS = 16
"""256 MiB, far more than the accounts and validators of any genesis take."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_IN_CACHE = "tx already exists in cache"
_PRUNED = re.compile(r"height (\d+) is not available, lowest height is (\d+)", re.ASCII)


class InvalidNodeUrl(PolError):
    """Text that is not the address of a node's RPC."""


class NodeUnreachable(PolError):
    """No answer from the node: down, refusing, or too slow."""


class RpcError(PolError):
    """The node answered with an error."""


class UnexpectedAnswer(RpcError):
    """Something answers there, but not as CometBFT does."""


class TxInCache(RpcError):
    """The node has seen these very bytes and would not look at them again now."""


class BlockPruned(RpcError):
    """A block from before the oldest that the node has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """A header's fields that this package reads. `app_hash` is of the height before."""

    chain_id: str
    height: int
    time_ms: int
    app_hash: bytes
    proposer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Where a node stands. `latest_height` is 0 before the first block."""

    chain_id: str
    version: str
    latest_height: int
    latest_time_ms: int
    catching_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """How other nodes reach a node: its id, 40 hexadecimal digits, and its port for them."""

    node_id: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """Where a node's consensus stands on its next block: of `total` power, what has voted."""

    height: int
    round: int
    prevotes: int
    precommits: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGenesis:
    """CometBFT's genesis document, with the application's part as it stands there."""

    chain_id: str
    initial_height: int
    app_state: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block and its transactions' raw bytes."""

    header: BlockHeader
    hash: bytes
    txs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TxEvent:
    """An event of the application."""

    type: str
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TxResult:
    """What became of a transaction in its block."""

    code: int
    log: str
    events: tuple[TxEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResults:
    """What the application answered to a block."""

    height: int
    txs: tuple[TxResult, ...]
    events: tuple[TxEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbciInfo:
    """The application's own height and app hash."""

    version: str
    app_version: int
    height: int
    app_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """An answer of the application, not verified. `value` is empty for an absent key."""

    code: int
    log: str
    height: int
    key: bytes
    value: bytes
    ops: tuple[ProofOp, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """What CheckTx said of a transaction; `code` as in `rules.errors`."""

    code: int
    log: str
    hash: bytes

    @property
    def is_accepted(self) -> bool:
        """Whether the transaction is in the node's mempool."""
        return self.code == CODE_OK


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
                response = await self._http.post(self.url, json=request)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise NodeUnreachable(
                f"the node at {self.url} did not answer {method} within {self._timeout_s:g} s"
            ) from error
        except httpx.TransportError as error:
            raise NodeUnreachable(
                f"no node answers at {self.url}: {str(error) or type(error).__name__}"
            ) from error
        try:
            answer = response.json()
        except (ValueError, RecursionError) as error:  # the latter: nested without end
            raise UnexpectedAnswer(
                f"{self.url} answered {method} with HTTP {response.status_code} and no JSON; "
                f"is that CometBFT's RPC port?"
            ) from error
        return Reading(self.url, method, unwrap(self.url, method, answer))


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
    except ValueError:
        is_complete = False
    if not is_complete or parts.scheme not in {"http", "https", "tcp"}:
        raise InvalidNodeUrl(
            f"{url!r} is not the address of a node's RPC: write it as http://127.0.0.1:26657"
        )
    scheme = "http" if parts.scheme == "tcp" else parts.scheme
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def unwrap(url: str, method: str, answer: Any) -> Any:
    """Return the result in a JSON-RPC answer, or raise the error in it."""
    if not isinstance(answer, dict) or not ("result" in answer or "error" in answer):
        raise UnexpectedAnswer(f"{url} answered {method} with JSON that is not JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer["result"]
    if not isinstance(error, dict):
        raise UnexpectedAnswer(f"{url} answered {method} with an error that is not JSON-RPC")
    detail = error.get("data") or error.get("message") or f"error {error.get('code')}"
    if detail == _IN_CACHE:
        raise TxInCache(f"the node at {url} has this transaction already")
    if (pruned := _PRUNED.fullmatch(str(detail))) is not None:
        raise BlockPruned(
            f"the node at {url} has no block {pruned[1]} any more, or never had it: its oldest is "
            f"{pruned[2]}. Ask a node that keeps them all (keep_blocks = 0 in its pol.toml)"
        )
    raise RpcError(f"the node at {url} refused {method}: {detail}")


def parse_header(url: str, header: Any) -> BlockHeader:
    """Read a header as CometBFT writes it to JSON."""
    reading = Reading(url, "header", header)
    return BlockHeader(
        chain_id=reading.text("chain_id"),
        height=reading.integer("height"),
        time_ms=reading.time_ms("time"),
        app_hash=reading.hex("app_hash"),
        proposer=reading.hex("proposer_address"),
    )


def parse_time_ms(text: str) -> int:
    """Return RFC 3339 text in UTC as whole milliseconds since 1970, by floor.

    Raises
    ------
    ValueError
        When it is not such a time.
    """
    return parse_time_ns(text) // 10**6


def parse_time_ns(text: str) -> int:
    """Return RFC 3339 text in UTC as nanoseconds since 1970.

    Raises
    ------
    ValueError
        When it is not such a time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    moment, fraction = match.groups(default="")
    seconds = calendar.timegm(datetime.fromisoformat(moment).timetuple())
    return seconds * 10**9 + int(fraction.ljust(9, "0"))


_MISSING = object()


class Reading:
    """A JSON object of an answer, read strictly: what does not fit is an `UnexpectedAnswer`."""

    def __init__(self, url: str, what: str, content: Any) -> None:
        self._url, self._what = url, what
        if not isinstance(content, dict):
            raise self._unexpected("is not an object")
        self._content = content

    def _unexpected(self, why: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(f"{self._url} sent an answer that CometBFT's is not: "
                                f"{self._what} {why}")  # fmt: skip

    def value(self, name: str, default: Any = _MISSING) -> Any:
        """A field as it is; null counts as absent."""
        value = self._content.get(name)
        if value is None:
            if default is _MISSING:
                raise self._unexpected(f"has no {name}")
            return default
        return value

    def at(self, name: str) -> Reading:
        """An object in a field."""
        return Reading(self._url, f"{self._what}.{name}", self.value(name))

    def items(self, name: str) -> tuple[Reading, ...]:
        """A list of objects, empty when it is absent."""
        value = self.value(name, [])
        if not isinstance(value, list):
            raise self._unexpected(f"has {name} that is no list")
        return tuple(Reading(self._url, f"{self._what}.{name}", item) for item in value)

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A text."""
        value = self.value(name, default)
        if not isinstance(value, str):
            raise self._unexpected(f"has {name} that is no text")
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._unexpected(f"has {name} that is neither true nor false")
        return value

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A number, or text with a number as CometBFT writes those of 64 bits."""
        value = self.value(name, default)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value, re.ASCII):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._unexpected(f"has {name} that is no integer")

    def time_ms(self, name: str) -> int:
        """A time in whole milliseconds since 1970, by floor."""
        return self.time_ns(name) // 10**6

    def time_ns(self, name: str) -> int:
        """A time in nanoseconds since 1970."""
        try:
            return parse_time_ns(self.text(name))
        except ValueError as error:
            raise self._unexpected(f"has {name} that is no time") from error

    def hex(self, name: str) -> bytes:
        """Bytes written in hexadecimal."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise self._unexpected(f"has {name} that is not hexadecimal") from error

    def base64(self, name: str) -> bytes:
        """Bytes; CometBFT leaves empty ones out, or writes null."""
        return self._decode(name, self.text(name, ""))

    def base64_list(self, name: str) -> list[bytes]:
        """A list of bytes, empty when it is absent."""
        value = self.value(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._unexpected(f"has {name} that is no list of texts")
        return [self._decode(name, item) for item in value]

    def _decode(self, name: str, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._unexpected(f"has {name} that is not base64") from error

    def voted(self, name: str) -> tuple[int, int]:
        """Power that voted and power of all, of a text as `BA{4:xx__} 50/100 = 0.50`."""
        match = re.fullmatch(r"BA\{.*\} (\d+)/([1-9]\d*) = .*", self.text(name), re.ASCII)
        if match is None:
            raise self._unexpected(f"has {name} that counts no votes")
        return int(match[1]), int(match[2])

    def header(self, name: str) -> BlockHeader:
        """A header."""
        return parse_header(self._url, self.value(name))

    def events(self, name: str = "events") -> tuple[TxEvent, ...]:
        """Events of the application."""
        return tuple(
            TxEvent(
                item.text("type"),
                tuple(
                    (pair.text("key"), pair.text("value", "")) for pair in item.items("attributes")
                ),
            )
            for item in self.items(name)
        )
