from __future__ import annotations

import asyncio
import socket
import stat
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from pol_abci.abci.framing import FrameReader, encode_frame, encode_varint
from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.abci.listener import AddressInUse, InvalidAddress
from pol_abci.abci.server import REPLY_BUFFER_BYTES, UnknownRequest, serve
from tests.abci.counting_app import CountingApp, Disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHECK_TX = pb.Request(check_tx=pb.RequestCheckTx(tx=b"1"))
FLUSH = pb.Request(flush=pb.RequestFlush())
QUERY = pb.Request(query=pb.RequestQuery())
COMMIT = pb.Request(commit=pb.RequestCommit())


def echo(message: str) -> pb.Request:
    return pb.Request(echo=pb.RequestEcho(message=message))


def encode(*requests: pb.Request) -> bytes:
    return b"".join(encode_frame(request.SerializeToString()) for request in requests)


class Client:
    """The peer's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameReader()

    def send(self, *requests: pb.Request) -> None:
        self.writer.write(encode(*requests))

    async def receive(self) -> pb.Response | None:
        """The next reply, None when the server has closed."""
        while (frame := self.frames.next_frame()) is None:
            try:
                data = await self.reader.read(65_536)
            except ConnectionResetError:
                return None
            if not data:
                assert self.frames.is_between_frames
                return None
            self.frames.feed(data)
        return pb.Response.FromString(frame)

    async def receive_kinds(self, count: int) -> list[str | None]:
        replies = [await self.receive() for _ in range(count)]
        return [reply.WhichOneof("value") if reply is not None else None for reply in replies]

    async def receive_rest(self) -> list[pb.Response]:
        replies = []
        while (reply := await self.receive()) is not None:
            replies.append(reply)
        return replies

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Served:
    """A running server and the clients that a test opened."""

    def __init__(self, task: asyncio.Task[None], address: str) -> None:
        self.task = task
        self.address = address
        self.clients: list[Client] = []
        self.has_ended = False

    async def end(self) -> None:
        """Wait for the server to stop by itself, and raise what it raises."""
        self.has_ended = True
        await self.task

    async def connect(self) -> Client:
        if self.address.startswith("unix://"):
            streams = await asyncio.open_unix_connection(self.address.removeprefix("unix://"))
        else:
            host, _, port = self.address.removeprefix("tcp://").rpartition(":")
            streams = await asyncio.open_connection(host.strip("[]"), int(port))
        self.clients.append(Client(*streams))
        return self.clients[-1]

    async def stop(self) -> None:
        for client in self.clients:
            await client.close()
        if self.has_ended:
            return
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@asynccontextmanager
async def serving(
    application: CountingApp, address: str = "tcp://127.0.0.1:0"
) -> AsyncIterator[Served]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(application, address, on_listening=listening.set_result))
    either: list[asyncio.Future[Any]] = [task, listening]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    served = Served(task, await listening)
    try:
        yield served
    finally:
        await served.stop()


class GatedApp(CountingApp):
    """Query waits until the test opens its gate."""

    def __init__(self) -> None:
        super().__init__(Disk())
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.answered = 0

    async def query(self, request: pb.RequestQuery, /) -> pb.ResponseQuery:
        self.asked.set()
        await self.gate.wait()
        self.answered += 1
        return await super().query(request)


class UnevenApp(CountingApp):
    """Answers later requests sooner, were they not in order."""

    async def check_tx(self, request: pb.RequestCheckTx, /) -> pb.ResponseCheckTx:
        await asyncio.sleep(0.002 / (1 + int(request.tx)))
        return pb.ResponseCheckTx(data=request.tx)


class FaultyApp(CountingApp):
    def __init__(self, fault: Exception) -> None:
        super().__init__(Disk())
        self.fault = fault

    async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
        raise self.fault


@pytest.mark.parametrize("scheme", ["unix", "tcp", "tcp6"])
async def test_pipelined_requests_are_answered_in_order(scheme: str, tmp_path: Path) -> None:
    addresses = {"tcp": "tcp://127.0.0.1:0", "tcp6": "tcp://[::1]:0"}
    address = addresses.get(scheme, f"unix://{tmp_path}/app.sock")
    async with serving(UnevenApp(Disk()), address) as served:
        client = await served.connect()
        for number in range(50):
            checked = pb.Request(check_tx=pb.RequestCheckTx(tx=b"%d" % number))
            client.send(checked, echo(str(number)))
        for number in range(50):
            reply = await client.receive()
            assert reply is not None
            assert reply.check_tx.data == b"%d" % number
            reply = await client.receive()
            assert reply is not None
            assert reply.echo.message == str(number)


async def test_a_slow_request_holds_up_its_own_connection_only() -> None:
    app = GatedApp()
    async with serving(app) as served:
        slow, quick = await served.connect(), await served.connect()
        slow.send(QUERY, echo("after"))
        await app.asked.wait()
        quick.send(CHECK_TX, FLUSH)
        assert await quick.receive_kinds(2) == ["check_tx", "flush"]
        assert app.answered == 0
        app.gate.set()
        assert await slow.receive_kinds(2) == ["query", "echo"]


async def test_flush_writes_what_came_before_it_though_more_is_waiting() -> None:
    app = GatedApp()
    async with serving(app) as served:
        client = await served.connect()
        client.send(CHECK_TX, CHECK_TX, FLUSH, QUERY)
        assert await client.receive_kinds(3) == ["check_tx", "check_tx", "flush"]
        app.gate.set()
        assert await client.receive_kinds(1) == ["query"]


async def test_replies_to_what_came_together_go_out_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = [CHECK_TX, FLUSH] * 8
    written: list[bytes] = []
    write = asyncio.StreamWriter.write

    def note(writer: asyncio.StreamWriter, data: bytes) -> None:
        if data != encode(*together):
            written.append(data)
        write(writer, data)

    async with serving(CountingApp(Disk())) as served:
        client = await served.connect()
        monkeypatch.setattr(asyncio.StreamWriter, "write", note)
        client.send(*together)
        assert await client.receive_kinds(16) == ["check_tx", "flush"] * 8
    assert len(written) == 1


async def test_without_flush_replies_still_come_when_no_request_is_left() -> None:
    async with serving(CountingApp(Disk())) as served:
        client = await served.connect()
        client.send(CHECK_TX, echo("x"))
        assert await client.receive_kinds(2) == ["check_tx", "echo"]


async def test_a_busy_connection_gives_the_others_their_turn() -> None:
    calls: list[str] = []

    class RecordingApp(CountingApp):
        async def check_tx(self, request: pb.RequestCheckTx, /) -> pb.ResponseCheckTx:
            if not calls:
                other.send(QUERY)
            calls.append("check_tx")
            return await super().check_tx(request)

        async def query(self, request: pb.RequestQuery, /) -> pb.ResponseQuery:
            calls.append("query")
            return await super().query(request)

    async with serving(RecordingApp(Disk())) as served:
        busy, other = await served.connect(), await served.connect()
        busy.send(*[CHECK_TX] * 5_000)
        assert await other.receive_kinds(1) == ["query"]
        assert calls.index("query") < 1_000
        assert await busy.receive_kinds(5_000) == ["check_tx"] * 5_000


async def test_requests_beyond_the_buffers_wait_at_the_peer() -> None:
    app = GatedApp()
    async with serving(app) as served:
        host, _, port = served.address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            peer.setblocking(False)
            peer.send(encode(QUERY))
            await app.asked.wait()
            pipelined = encode(*[CHECK_TX] * 10_000)
            sent = refused = 0
            while refused < 2_000:
                try:
                    sent += peer.send(pipelined)
                    refused = 0
                except BlockingIOError:
                    refused += 1
                await asyncio.sleep(0)
                assert sent < 64_000_000
            assert sent > 0


async def test_a_peer_that_does_not_read_stops_its_own_connection_only() -> None:
    class WordyApp(CountingApp):
        answered = 0

        async def query(self, _request: pb.RequestQuery, /) -> pb.ResponseQuery:
            self.answered += 1
            return pb.ResponseQuery(value=bytes(1_000_000))

    app = WordyApp(Disk())
    async with serving(app) as served:
        silent, other = await served.connect(), await served.connect()
        silent.reader._transport.pause_reading()  # type: ignore[attr-defined]  # a StreamReader has no public way
        silent.send(*[QUERY] * 1_000)
        for _ in range(100):
            other.send(echo("x"))
            assert await other.receive_kinds(1) == ["echo"]
        assert app.answered < 100


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("the disk is full"),
        BrokenPipeError("the verifier is gone"),
        UnknownRequest("an application may raise ours too"),
        TimeoutError("too late"),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_an_exception_of_the_application_is_told_to_cometbft_and_raised(
    fault: Exception,
) -> None:
    async with serving(FaultyApp(fault)) as served:
        other, client = await served.connect(), await served.connect()
        other.send(echo("before"))
        assert await other.receive_kinds(1) == ["echo"]
        client.send(echo("before"), COMMIT, echo("never answered"))
        replies = await client.receive_rest()
        assert [reply.WhichOneof("value") for reply in replies] == ["echo", "exception"]
        assert replies[1].exception.error == f"commit: {type(fault).__name__}: {fault}"
        with pytest.raises(type(fault)) as raised:
            await served.end()
        assert raised.value is fault
        assert await other.receive() is None


async def test_a_reply_of_the_wrong_kind_is_the_applications_fault() -> None:
    class ConfusedApp(CountingApp):
        async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
            return pb.ResponseInfo()  # type: ignore[return-value]  # the mistake under test

    async with serving(ConfusedApp(Disk())) as served:
        client = await served.connect()
        client.send(COMMIT)
        assert await client.receive_kinds(2) == ["exception", None]
        with pytest.raises(TypeError):
            await served.end()


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (encode_frame(b""), "ABCI 2.0 does not have"),
        (encode_frame(b"\x22\x00"), "ABCI 2.0 does not have"),
        (encode_frame(b"\xff\xff"), "no ABCI request"),
        (encode_varint(2**31), "is announced"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"\r" * 60, "no ABCI request"),
    ],
    ids=["empty", "set_option", "undecodable", "oversize", "endless length", "http"],
)
async def test_a_peer_that_does_not_speak_abci_is_told_and_left(garbage: bytes, words: str) -> None:
    async with serving(CountingApp(Disk())) as served:
        good, bad = await served.connect(), await served.connect()
        bad.send(echo("first"))
        bad.writer.write(garbage)
        replies = await bad.receive_rest()
        assert [reply.WhichOneof("value") for reply in replies] == ["echo", "exception"]
        assert words in replies[1].exception.error
        good.send(echo("still here"))
        assert await good.receive_kinds(1) == ["echo"]


async def test_a_torn_connection_ends_only_itself() -> None:
    async with serving(CountingApp(Disk())) as served:
        good, torn = await served.connect(), await served.connect()
        torn.send(echo("whole"))
        torn.writer.write(encode_varint(100) + b"half")
        torn.writer.write_eof()
        assert await torn.receive_kinds(2) == ["echo", None]
        good.send(echo("still here"))
        assert await good.receive_kinds(1) == ["echo"]


async def test_a_request_is_finished_though_its_peer_has_left() -> None:
    app = GatedApp()
    async with serving(app) as served:
        client = await served.connect()
        client.send(QUERY)
        await app.asked.wait()
        await client.close()
        app.gate.set()
        again = await served.connect()
        again.send(QUERY)
        assert await again.receive_kinds(1) == ["query"]
        assert app.answered == 2


async def test_stopping_closes_connections_and_removes_the_socket(tmp_path: Path) -> None:
    app = GatedApp()
    path = tmp_path / "app.sock"
    async with serving(app, f"unix://{path}") as served:
        client = await served.connect()
        client.send(QUERY)
        await app.asked.wait()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        served.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served.end()
        assert await client.receive() is None
        assert not path.exists()


async def test_a_second_server_on_a_live_socket_is_refused_and_harms_nothing(
    tmp_path: Path,
) -> None:
    address = f"unix://{tmp_path}/app.sock"
    async with serving(CountingApp(Disk()), address) as served:
        with pytest.raises(AddressInUse, match="in use: stop the application"):
            await serve(CountingApp(Disk()), address)
        client = await served.connect()
        client.send(echo("still here"))
        assert await client.receive_kinds(1) == ["echo"]


async def test_the_socket_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    assert path.is_socket()
    async with serving(CountingApp(Disk()), f"unix://{path}") as served:
        client = await served.connect()
        client.send(echo("new"))
        assert await client.receive_kinds(1) == ["echo"]


async def test_a_tcp_port_in_use_is_told() -> None:
    async with serving(CountingApp(Disk())) as served:
        with pytest.raises(AddressInUse, match="take another port"):
            await serve(CountingApp(Disk()), served.address)


async def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(InvalidAddress, match="is no socket"):
        await serve(CountingApp(Disk()), f"unix://{path}")
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    "address",
    [
        *("app.sock", "unix://", "tcp://", "tcp://localhost", "tcp://:1", "tcp://h:65536"),
        *("tcp://h:٣", "http://h:1", "grpc://h:1", "", "tcp://256.256.256.256:1"),
        "unix:///nonexistent/folder/app.sock",
        "unix:///tmp/" + "x" * 200,
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_told(address: str) -> None:
    with pytest.raises(InvalidAddress):
        await serve(CountingApp(Disk()), address)


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"

    async def story() -> None:
        async with serving(CountingApp(Disk()), f"unix://{path}") as served:
            client = await served.connect()
            client.send(CHECK_TX, FLUSH)
            assert await client.receive_kinds(2) == ["check_tx", "flush"]
            client.writer.write(encode_frame(b""))
            assert await client.receive_kinds(2) == ["exception", None]
        async with serving(FaultyApp(ValueError("x")), f"unix://{path}") as served:
            client = await served.connect()
            client.send(COMMIT)
            assert await client.receive_kinds(2) == ["exception", None]
            with pytest.raises(ValueError, match="x"):
                await served.end()

    uvloop.run(story())
    assert not path.exists()


requests = st.one_of(
    st.text(max_size=20).map(echo),
    st.just(FLUSH),
    st.just(QUERY),
    st.binary(max_size=20).map(lambda tx: pb.Request(check_tx=pb.RequestCheckTx(tx=tx))),
    st.builds(
        lambda txs, height: pb.Request(
            finalize_block=pb.RequestFinalizeBlock(txs=txs, height=height)
        ),
        st.lists(st.binary(max_size=5), max_size=3),
        st.integers(1, 3),
    ),
    st.just(COMMIT),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, max_size=8), st.binary(max_size=60), st.booleans())
def test_any_bytes_end_in_replies_an_exception_or_a_closed_connection(
    valid: list[pb.Request], garbage: bytes, frames_garbage: bool
) -> None:
    """Well-formed requests are all answered in order; whatever follows them never hangs."""
    tail = encode_frame(garbage) if frames_garbage else garbage

    async def story() -> None:
        async with serving(CountingApp(Disk())) as served, asyncio.timeout(20):
            client = await served.connect()
            client.writer.write(encode(*valid) + tail)
            client.writer.write_eof()
            replies = [reply.WhichOneof("value") for reply in await client.receive_rest()]
            assert replies[: len(valid)] == [request.WhichOneof("value") for request in valid]
            assert "exception" not in replies[:-1]
            good = await served.connect()
            good.send(echo("still here"))
            assert await good.receive_kinds(1) == ["echo"]

    asyncio.run(story())


def test_the_last_words_arrive_though_the_process_ends_with_the_fault(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listening = threading.Event()

    class LargeFaultyApp(FaultyApp):
        async def query(self, _request: pb.RequestQuery, /) -> pb.ResponseQuery:
            return pb.ResponseQuery(value=bytes(REPLY_BUFFER_BYTES - 1_000))

    async def run() -> None:
        app = LargeFaultyApp(ValueError("the disk is full"))
        await serve(app, f"unix://{path}", on_listening=lambda _address: listening.set())

    def run_process() -> None:
        with pytest.raises(ValueError, match="the disk is full"):
            asyncio.run(run())

    process = threading.Thread(target=run_process)
    process.start()
    assert listening.wait(10)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        peer.sendall(encode(QUERY, COMMIT))
        process.join(0.2)  # reads late: more than a socket holds is on its way
        reader, kinds = FrameReader(), []
        while data := peer.recv(65_536):
            reader.feed(data)
            while (frame := reader.next_frame()) is not None:
                kinds.append(pb.Response.FromString(frame).WhichOneof("value"))
    process.join(10)
    assert kinds == ["query", "exception"]
