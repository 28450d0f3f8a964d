"""New blocks as they come, over CometBFT's WebSocket.

`follow_blocks` never ends by itself: it connects again after every loss, with growing pauses, and
subscribes anew. Blocks that came in between are not sent again by CometBFT, so each connection is
announced by `Connected`: whoever follows then looks for what it missed.

Headers alone are subscribed to: the event comes after the block's Commit, so the application
answers for that height already, and no block's transactions travel for nothing.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from pol_abci.client.answers import BlockHeader
from pol_abci.client.reading import parse_header, unwrap
from pol_abci.client.rpc import parse_node_url
from pol_abci.client.rpc_errors import RpcError, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from websockets.asyncio.client import ClientConnection

_SUBSCRIBE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "subscribe",
    "params": {"query": "tm.event='NewBlockHeader'"},
}
_MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Connected:
    """Subscribed, for the first time or again: blocks may have come unseen before this."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is lost or was refused; the next attempt comes after `retry_s` seconds."""

    reason: str
    retry_s: float


ChainEvent = Connected | Disconnected | BlockHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds.

    A connection without a pong for `pong_s` after a ping, or without any block for `idle_s`, is
    taken for hung and made anew: a stopped process keeps its TCP connections.
    """

    connect_s: float = 5.0
    ping_s: float = 5.0
    pong_s: float = 10.0
    idle_s: float = 60.0
    first_retry_s: float = 0.25
    last_retry_s: float = 8.0


async def follow_blocks(
    url: str, patience: Patience | None = None
) -> AsyncGenerator[ChainEvent, None]:
    """Yield every header that comes, `Connected` before those of each connection.

    Parameters
    ----------
    url
        A node's RPC, as for `RpcClient`.
    patience
        Limits; the defaults suit a chain with blocks every few seconds.

    Raises
    ------
    InvalidNodeUrl
        At once, when `url` is none.
    """
    limits = patience or Patience()
    websocket_url = "ws" + parse_node_url(url).removeprefix("http") + "/websocket"
    retry_s = limits.first_retry_s
    while True:
        try:
            async with connect(
                websocket_url,
                open_timeout=limits.connect_s,
                ping_interval=limits.ping_s,
                ping_timeout=limits.pong_s,
                close_timeout=1,
                max_size=_MAX_MESSAGE_BYTES,
                proxy=None,
            ) as connection:
                await _subscribe(url, connection, limits)
                yield Connected()
                while True:
                    header = await _next_header(url, connection, limits)
                    retry_s = limits.first_retry_s
                    yield header
        except TimeoutError:
            reason = f"no word from {url} in time"
        except OSError as error:
            reason = f"no node answers at {url}: {error.strerror or error}"
        except WebSocketException as error:
            reason = f"the connection to {url} broke: {error}"
        except RpcError as error:
            reason = str(error)
        # Many miners lose the same node at once: spread their return.
        pause_s = retry_s * (0.5 + secrets.randbelow(1024) / 2048)
        yield Disconnected(reason, pause_s)
        await asyncio.sleep(pause_s)
        retry_s = min(2 * retry_s, limits.last_retry_s)


async def _subscribe(url: str, connection: ClientConnection, limits: Patience) -> None:
    await connection.send(json.dumps(_SUBSCRIBE))
    unwrap(url, "subscribe", await _receive(url, connection, limits.connect_s))


async def _next_header(url: str, connection: ClientConnection, limits: Patience) -> BlockHeader:
    # An error here is CometBFT ending the subscription, as it does to a slow reader.
    result = unwrap(url, "subscribe", await _receive(url, connection, limits.idle_s))
    try:
        header = result["data"]["value"]["header"]
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswer(f"{url} sent an event that is no block header") from error
    return parse_header(url, header)


async def _receive(url: str, connection: ClientConnection, limit_s: float) -> Any:
    async with asyncio.timeout(limit_s):
        message = await connection.recv()
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise UnexpectedAnswer(f"{url} sent an event that is not JSON") from error
