"""The socket that CometBFT connects to: requests in, the application's replies out, in order.

CometBFT opens four connections (consensus, mempool, info, snapshot) and pipelines requests on
each. A connection is one task that answers one request after the other, so its replies are in
order by construction, a slow request holds up its own connection only, and what a peer may pipeline
is bounded by the socket's buffers: nothing is read while a request is being answered.

Faults are kept apart. A peer that does not speak ABCI gets an exception reply and loses its
connection. An exception out of the application is answered likewise, and then raised by `serve`:
the process must stop, because its state can no longer be trusted.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from google.protobuf.message import DecodeError

from pol_abci.abci.framing import FrameReader, FramingError, encode_frame
from pol_abci.abci.generated.abci.types_pb2 import (
    Request,
    RequestFlush,
    Response,
    ResponseEcho,
    ResponseException,
    ResponseFlush,
)
from pol_abci.abci.listener import open_listener, parse_address, remove_socket_file
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from pol_abci.abci.application import Application

READ_BYTES = 262_144
"""Of one read, and of what asyncio keeps ahead of it."""
REPLY_BUFFER_BYTES = 262_144
"""Replies are joined into one write up to here, while further requests are at hand."""
REQUESTS_IN_A_ROW = 32
"""After so many answers that never waited they are written, and the others have their turn."""
FLUSH = RequestFlush()
FLUSH_FRAME = Request(flush=FLUSH).SerializeToString()
FLUSHED = encode_frame(Response(flush=ResponseFlush()).SerializeToString())
GOODBYE_SECONDS = 2.0
"""For a peer to take the exception reply that ends its connection."""

log = structlog.get_logger()


class UnknownRequest(PolError):
    """A message that is not a request of ABCI 2.0."""


class ConnectionLost(PolError):
    """The peer is gone."""


class ApplicationFailed(Exception):
    """Carries an exception of the application, `fault`, out of its connection."""

    def __init__(self, fault: Exception) -> None:
        super().__init__(str(fault))
        self.fault = fault


async def serve(
    application: Application,
    address: str,
    *,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve the application until cancelled.

    Cancellation closes the connections, abandoning requests in progress, and removes the socket's
    file. The same happens when the application raises.

    Parameters
    ----------
    application
        Answers the requests.
    address
        "unix://path" or "tcp://host:port". A unix socket is this user's alone; a TCP port has no
        access control at all, so it belongs on a loopback address.
    on_listening
        Called once connections are taken, with the address in full.

    Raises
    ------
    InvalidAddress, AddressInUse
        Nothing was served.
    Exception
        Whatever the application raised.
    """
    listener, listening_on = open_listener(parse_address(address))
    connections: set[asyncio.Task[None]] = set()
    fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end_connection(task: asyncio.Task[None]) -> None:
        connections.discard(task)
        raised = None if task.cancelled() else task.exception()
        if raised is not None and not fault.done():
            fault.set_exception(raised.fault if isinstance(raised, ApplicationFailed) else raised)

    def start_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(Connection(application, reader, writer).run())
        connections.add(task)
        task.add_done_callback(end_connection)

    if listener.family == socket.AF_UNIX:
        server = await asyncio.start_unix_server(start_connection, sock=listener, limit=READ_BYTES)
    else:
        server = await asyncio.start_server(start_connection, sock=listener, limit=READ_BYTES)
    try:
        if on_listening is not None:
            on_listening(listening_on)
        log.info("listening for CometBFT", address=listening_on)
        await fault
    finally:
        remove_socket_file(listener)  # before it closes: afterwards it may be a successor's
        server.close()
        fault.cancel()
        remaining = list(connections)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)


class Connection:
    """One connection of CometBFT: an independent, strictly ordered stream of calls."""

    def __init__(
        self,
        application: Application,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._calls = get_calls(application)
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._replies: list[bytes] = []
        self._reply_bytes = 0
        self._answered = 0

    async def run(self) -> None:
        """Answer requests until the peer leaves or a fault ends the connection.

        Raises
        ------
        ApplicationFailed
            From the application's own exception; the peer has been told.
        """
        try:
            await self._answer_all()
        except (FramingError, UnknownRequest) as fault:
            log.warning("a connection is refused", reason=str(fault))
            await self._end_with_exception(str(fault))
        except ConnectionLost as fault:
            log.info("a connection is lost", reason=str(fault))
        except asyncio.CancelledError:
            self._writer.transport.abort()  # unsent replies would keep a closing one open
            raise
        finally:
            self._writer.close()

    async def _answer_all(self) -> None:
        while data := await self._read():
            self._frames.feed(data)
            while (frame := self._frames.next_frame()) is not None:
                await self._answer(*decode_request(frame))
            await self._flush()
        if not self._frames.is_between_frames:
            raise ConnectionLost("the stream ended within a message")

    async def _answer(self, kind: str, request: Any) -> None:
        if kind == "flush":
            # Its reply goes out with those of the CheckTx that have come since: before anything
            # is waited for, all of them are written.
            self._reply(FLUSHED)
        elif kind == "echo":
            self._reply(encode_reply(Response(echo=ResponseEcho(message=request.message))))
        else:
            if kind != "check_tx":
                await self._flush()
            self._reply(encode_reply(await self._call(kind, request)))
        if self._reply_bytes >= REPLY_BUFFER_BYTES:
            await self._flush()
        self._answered += 1
        if self._answered % REQUESTS_IN_A_ROW == 0:
            await self._flush()
            await asyncio.sleep(0)

    async def _call(self, kind: str, request: Any) -> Response:
        try:
            reply: Any = await self._calls[kind](request)
            return Response(**{kind: reply})
        except Exception as fault:
            await self._end_with_exception(f"{kind}: {type(fault).__name__}: {fault}")
            raise ApplicationFailed(fault) from fault

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError as fault:
            raise ConnectionLost(str(fault)) from fault

    def _reply(self, frame: bytes) -> None:
        self._replies.append(frame)
        self._reply_bytes += len(frame)

    async def _flush(self) -> None:
        if not self._replies:
            return
        joined = b"".join(self._replies)
        self._replies.clear()
        self._reply_bytes = 0
        self._writer.write(joined)
        try:
            await self._writer.drain()
        except OSError as fault:
            raise ConnectionLost(str(fault)) from fault

    async def _end_with_exception(self, reason: str) -> None:
        self._reply(encode_reply(Response(exception=ResponseException(error=reason))))
        self._writer.transport.set_write_buffer_limits(0)  # so that drain means sent
        with suppress(ConnectionLost, TimeoutError):  # nobody is there to be told
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._flush()


def encode_reply(response: Response) -> bytes:
    """A reply as it goes over the wire."""
    return encode_frame(response.SerializeToString())


def get_calls(application: Application) -> dict[str, Callable[[Any], Awaitable[Message]]]:
    """The application's calls by their name in Request and in Response."""
    return {
        "info": application.info,
        "init_chain": application.init_chain,
        "query": application.query,
        "check_tx": application.check_tx,
        "commit": application.commit,
        "list_snapshots": application.list_snapshots,
        "offer_snapshot": application.offer_snapshot,
        "load_snapshot_chunk": application.load_snapshot_chunk,
        "apply_snapshot_chunk": application.apply_snapshot_chunk,
        "prepare_proposal": application.prepare_proposal,
        "process_proposal": application.process_proposal,
        "extend_vote": application.extend_vote,
        "verify_vote_extension": application.verify_vote_extension,
        "finalize_block": application.finalize_block,
    }


def decode_request(frame: bytes) -> tuple[str, Any]:
    """A request's name and its message.

    Raises
    ------
    UnknownRequest
        The frame is no message, or none that ABCI 2.0 has.
    """
    if frame == FLUSH_FRAME:  # every second message
        return "flush", FLUSH
    try:
        envelope = Request.FromString(frame)
    except DecodeError as fault:
        raise UnknownRequest(
            f"a message of {len(frame)} bytes is no ABCI request: is the peer CometBFT v0.38?"
        ) from fault
    kind = envelope.WhichOneof("value")
    if kind is None:
        raise UnknownRequest(
            "a request that ABCI 2.0 does not have: this application speaks with CometBFT v0.38"
        )
    return kind, getattr(envelope, kind)
