"""ABCI over gRPC: the second transport, for who cannot use the socket (docs/decisions/0101).

CometBFT's four clients call concurrently here. As on the socket's four connections, the calls of
one kind are answered one after the other, and a slow one holds up its own kind only.

gRPC keeps a server alive whose handler raised. Here the first exception out of the application is
told to CometBFT, refuses every later call, and is raised by `serve_grpc`: the process must stop,
because its state can no longer be trusted.
"""

from __future__ import annotations

import asyncio
import re
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from pol_abci.abci.framing import MAX_FRAME_BYTES
from pol_abci.abci.generated.abci import types_pb2
from pol_abci.abci.listener import (
    UnixAddress,
    open_listener,
    parse_address,
    remove_socket_file,
)
from pol_abci.abci.server import get_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from pol_abci.abci.application import Application

SERVICE = types_pb2.DESCRIPTOR.services_by_name["ABCI"]
KINDS = (
    ("info", "query"),
    ("check_tx",),
    (
        "init_chain",
        "prepare_proposal",
        "process_proposal",
        "extend_vote",
        "verify_vote_extension",
        "finalize_block",
        "commit",
    ),
    ("list_snapshots", "offer_snapshot", "load_snapshot_chunk", "apply_snapshot_chunk"),
)
"""The calls of each of CometBFT's clients."""
OPTIONS = (
    # By default 4 MiB: less than a block may have.
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    # Or a second application would share the port.
    ("grpc.so_reuseport", 0),
)

log = structlog.get_logger(__name__)


async def serve_grpc(
    application: Application,
    address: str,
    *,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve the application until cancelled; parameters and errors are those of `server.serve`."""
    parsed = parse_address(address)
    # Bound by our own code first: gRPC takes a living socket away, and has no words for faults.
    listener, listening_on = open_listener(parsed)
    remove_socket_file(listener)
    listener.close()
    answers = _Answers(application)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((answers.make_handlers(),))
    if isinstance(parsed, UnixAddress):
        server.add_insecure_port(f"unix:{parsed.path}")
        parsed.path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    else:
        server.add_insecure_port(listening_on.removeprefix("tcp://"))
    await server.start()
    try:
        if on_listening is not None:
            on_listening(listening_on)
        log.info("listening for CometBFT over gRPC", address=listening_on)
        await answers.fault
    finally:
        await server.stop(None)
        if isinstance(parsed, UnixAddress):
            parsed.path.unlink(missing_ok=True)


def make_turns() -> dict[str, asyncio.Lock]:
    """Return the lock of each call; those of one kind share theirs."""
    return {name: turn for kind in KINDS for turn in [asyncio.Lock()] for name in kind}


class _Answers:
    """Answers calls with the application's, one of each kind at a time, until one has failed."""

    def __init__(self, application: Application) -> None:
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls = get_calls(application)
        self._has_failed = False
        self._turns = make_turns()

    def make_handlers(self) -> grpc.GenericRpcHandler:
        """Return what gRPC calls for each method of the service."""
        special: dict[str, Callable[..., Any]] = {"Echo": self._echo, "Flush": self._flush}
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in SERVICE.methods:
            request_type = getattr(types_pb2, method.input_type.name)
            reply_type = getattr(types_pb2, method.output_type.name)
            common = partial(self._answer, _compute_call_name(method.name), reply_type)
            answer = special.get(method.name, common)
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=request_type.FromString
            )
        return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)

    async def _answer(
        self,
        name: str,
        reply_type: type[Message],
        request: Message,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> bytes:
        async with self._turns[name]:
            if self._has_failed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the application has failed")
            try:
                reply = await self._calls[name](request)
                if not isinstance(reply, reply_type):
                    raise TypeError(f"the answer is a {type(reply).__name__}")  # noqa: TRY301
                return reply.SerializeToString()
            except Exception as fault:
                self._has_failed = True
                try:
                    await context.abort(
                        grpc.StatusCode.INTERNAL, f"{name}: {type(fault).__name__}: {fault}"
                    )
                finally:
                    # Told only now: whoever hears of it cancels all calls. One of another kind
                    # may have failed meanwhile.
                    if not self.fault.done():
                        self.fault.set_exception(fault)
                raise

    async def _echo(self, request: types_pb2.RequestEcho, _context: object) -> bytes:
        return types_pb2.ResponseEcho(message=request.message).SerializeToString()

    async def _flush(self, _request: types_pb2.RequestFlush, _context: object) -> bytes:
        return types_pb2.ResponseFlush().SerializeToString()


def _compute_call_name(method: str) -> str:
    """Turn "InitChain" into "init_chain"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()
