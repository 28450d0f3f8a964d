"""What watches a process from outside: `/metrics` for Prometheus, `/health` for people and probes.

Threads serve HTTP, but every answer is computed on the process's own event loop: metrics are read
where nothing else changes them, and a loop that hangs shows as bad health.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder

from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)

ANSWER_S = 5.0
"""For the event loop to answer; after that the process counts as hanging."""
READ_S = 10.0
"""For a client to send its request."""


class CannotMonitor(PolError):
    """An address at which metrics cannot be served."""


class _Handler(WSGIRequestHandler):
    """Writes no line for each request, and waits for none for ever."""

    timeout = READ_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


class _ServerIPv6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


@asynccontextmanager
async def run_monitor(
    listen: str | None, registry: CollectorRegistry, find_fault: Callable[[], str | None]
) -> AsyncIterator[str | None]:
    """Serve at `listen` ("host:port"; port 0 takes a free one) within the context.

    `registry` is what /metrics shows; `find_fault` says for /health why the process does not do
    its work, or None. Gives the address in full; without a `listen` nothing is served.

    Raises
    ------
    CannotMonitor
        The address is none, or is taken.
    """
    if listen is None:
        yield None
        return
    host, port = parse_listen(listen)
    answer = _Monitor(registry, find_fault)
    kind = _ServerIPv6 if ":" in host else ThreadingWSGIServer
    try:
        server = make_server(host, port, answer, kind, _Handler)
    except OSError as error:
        raise CannotMonitor(
            f"cannot serve metrics at {listen}: {error.strerror}; stop what listens there, or "
            "choose another address for metrics"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="monitor")
    thread.start()
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    log.info("metrics and health are served", metrics=f"{url}/metrics", health=f"{url}/health")
    try:
        yield url
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()


def parse_listen(listen: str) -> tuple[str, int]:
    """Read "host:port".

    Raises
    ------
    CannotMonitor
        It is something else.
    """
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.netloc != listen:
        raise CannotMonitor(
            f"{listen!r} is no address to serve metrics at: write it as 127.0.0.1:26670"
        )
    return host, port


class _Monitor:
    """The WSGI application."""

    def __init__(self, registry: CollectorRegistry, find_fault: Callable[[], str | None]) -> None:
        self._registry = registry
        self._find_fault = find_fault
        self._loop = asyncio.get_running_loop()

    def __call__(self, request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request, in a thread of its own."""
        answering = asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)
        try:
            status, kind, body = answering.result(ANSWER_S)
        except TimeoutError:
            answering.cancel()
            status, kind, body = _compose_health(f"the process has not answered for {ANSWER_S} s")
        start(f"{status.value} {status.phrase}", [("Content-Type", kind)])
        return [body]

    async def _answer(self, request: WSGIEnvironment) -> tuple[HTTPStatus, str, bytes]:
        path = request["PATH_INFO"]
        if request["REQUEST_METHOD"] != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET is answered\n"
        if path == "/metrics":
            encode, kind = choose_encoder(request.get("HTTP_ACCEPT", ""))
            return HTTPStatus.OK, kind, encode(self._registry)
        if path == "/health":
            return _compose_health(self._find_fault())
        return HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics and /health\n"


def _compose_health(fault: str | None) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if fault is None else HTTPStatus.SERVICE_UNAVAILABLE
    answer = {"status": "ok"} if fault is None else {"status": "failing", "reason": fault}
    return status, "application/json", json.dumps(answer).encode() + b"\n"
