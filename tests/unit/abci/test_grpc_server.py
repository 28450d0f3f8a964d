"""ABCI over gRPC: the same application, asked over a real channel."""

from __future__ import annotations

import asyncio
import stat
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import uvloop

from pol_abci.abci import grpc_server
from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.abci.grpc_server import KINDS, SERVICE, serve_grpc
from pol_abci.abci.listener import AddressInUse, InvalidAddress
from pol_abci.abci.server import get_calls, serve
from tests.abci.counting_app import CountingApp, Disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from google.protobuf.message import Message

    from pol_abci.abci.application import Application

ANY_PORT = "tcp://127.0.0.1:0"


class Client:
    """CometBFT's end: calls by the names of `Application`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __call__(self, method: str, request: Message) -> Any:
        reply_type = getattr(pb, SERVICE.methods_by_name[method].output_type.name)
        call: grpc.aio.UnaryUnaryMultiCallable[Message, Any] = self._channel.unary_unary(
            f"/tendermint.abci.ABCI/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_type.FromString,
        )
        return await call(request)


@asynccontextmanager
async def serving(
    application: Application, address: str = ANY_PORT
) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve_grpc(application, address, on_listening=listening.set_result))
    either: list[asyncio.Future[Any]] = [task, listening]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    target = (await listening).removeprefix("tcp://").replace("unix://", "unix:")
    large = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(target, options=large) as channel:
            yield Client(channel), task
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def test_every_call_of_the_application_has_its_method_and_its_turn() -> None:
    calls = set(get_calls(CountingApp(Disk())))
    assert {call for kind in KINDS for call in kind} == calls
    assert len(SERVICE.methods) == len(calls) + len({"Echo", "Flush"})


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_a_chain_over_grpc(scheme: str, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/app.sock" if scheme == "unix" else ANY_PORT
    async with serving(CountingApp(Disk()), address) as (ask, _):
        assert (await ask("Echo", pb.RequestEcho(message="hello"))).message == "hello"
        await ask("Flush", pb.RequestFlush())
        begun = await ask("InitChain", pb.RequestInitChain(app_state_bytes=b'"5"'))
        assert (await ask("CheckTx", pb.RequestCheckTx(tx=b"x"))).code == 1
        proposal = await ask(
            "PrepareProposal", pb.RequestPrepareProposal(txs=[b"7", b"x"], max_tx_bytes=1_000)
        )
        assert list(proposal.txs) == [b"7"]
        accepted = await ask("ProcessProposal", pb.RequestProcessProposal(txs=[b"7"]))
        assert accepted.status == pb.ResponseProcessProposal.ACCEPT
        block = await ask("FinalizeBlock", pb.RequestFinalizeBlock(txs=[b"7"], height=1))
        await ask("Commit", pb.RequestCommit())
        info = await ask("Info", pb.RequestInfo())
        assert (info.last_block_height, info.last_block_app_hash) == (1, block.app_hash)
        assert block.app_hash != begun.app_hash
        assert (await ask("Query", pb.RequestQuery())).value == b"12"
        offered = await ask("OfferSnapshot", pb.RequestOfferSnapshot())
        assert offered.result == pb.ResponseOfferSnapshot.ABORT


async def test_messages_larger_than_grpc_takes_by_default() -> None:
    class EchoingApp(CountingApp):
        async def query(self, request: pb.RequestQuery, /) -> pb.ResponseQuery:
            return pb.ResponseQuery(value=request.data)

    async with serving(EchoingApp(Disk())) as (ask, _):
        reply = await ask("Query", pb.RequestQuery(data=bytes(20 * 2**20)))
        assert len(reply.value) == 20 * 2**20


async def test_calls_of_one_kind_take_turns_and_others_do_not_wait() -> None:
    class GatedApp(CountingApp):
        gate = asyncio.Event()
        running = most = 0

        async def process_proposal(
            self, request: pb.RequestProcessProposal, /
        ) -> pb.ResponseProcessProposal:
            self.running += 1
            self.most = max(self.most, self.running)
            await self.gate.wait()
            self.running -= 1
            return await super().process_proposal(request)

    app = GatedApp(Disk())
    async with serving(app) as (ask, _):
        waiting = [
            asyncio.create_task(ask("ProcessProposal", pb.RequestProcessProposal()))
            for _ in range(3)
        ]
        while not app.running:
            await ask("CheckTx", pb.RequestCheckTx(tx=b"1"))
        app.gate.set()
        await asyncio.gather(*waiting)
    assert app.most == 1


class FaultyApp(CountingApp):
    committed = False

    async def finalize_block(
        self, _request: pb.RequestFinalizeBlock, /
    ) -> pb.ResponseFinalizeBlock:
        raise ValueError("the disk is full")

    async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
        self.committed = True
        return pb.ResponseCommit()


@pytest.mark.parametrize("loop", [asyncio, uvloop])
def test_a_failing_call_ends_the_server_and_nothing_follows(loop: Any) -> None:
    async def run() -> None:
        app = FaultyApp(Disk())
        async with serving(app) as (ask, task):
            with pytest.raises(grpc.aio.AioRpcError, match="finalize_block: ValueError: the disk"):
                await ask("FinalizeBlock", pb.RequestFinalizeBlock(height=1))
            with pytest.raises(grpc.aio.AioRpcError):
                await ask("Commit", pb.RequestCommit())
            assert not app.committed
            with pytest.raises(ValueError, match="the disk is full"):
                await task

    loop.run(run())


async def test_a_call_that_waits_behind_a_failing_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class GatedFaultyApp(FaultyApp):
        gate = asyncio.Event()

        async def finalize_block(
            self, request: pb.RequestFinalizeBlock, /
        ) -> pb.ResponseFinalizeBlock:
            await self.gate.wait()
            return await super().finalize_block(request)

    app, turn = GatedFaultyApp(Disk()), asyncio.Lock()
    monkeypatch.setattr(grpc_server, "make_turns", lambda: {"finalize_block": turn, "commit": turn})
    async with serving(app) as (ask, task):
        block = asyncio.create_task(ask("FinalizeBlock", pb.RequestFinalizeBlock(height=1)))
        while not turn.locked():  # noqa: ASYNC110 (nor when it is taken)
            await asyncio.sleep(0.01)
        commit = asyncio.create_task(ask("Commit", pb.RequestCommit()))
        while not turn._waiters:  # noqa: ASYNC110 (a Lock does not say who waits)
            await asyncio.sleep(0.01)
        app.gate.set()
        failed = await asyncio.gather(block, commit, return_exceptions=True)
        assert all(isinstance(each, grpc.aio.AioRpcError) for each in failed)
        with pytest.raises(ValueError, match="the disk is full"):
            await task
    assert not app.committed


async def test_a_reply_of_the_wrong_kind_is_the_applications_fault() -> None:
    class ConfusedApp(CountingApp):
        async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
            return pb.ResponseInfo()  # type: ignore[return-value]  # the mistake under test

    async with serving(ConfusedApp(Disk())) as (ask, task):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask("Commit", pb.RequestCommit())
        with pytest.raises(TypeError):
            await task


async def test_a_socket_file_is_this_users_alone_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with serving(CountingApp(Disk()), f"unix://{path}") as (ask, _):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(AddressInUse):
            await serve_grpc(CountingApp(Disk()), f"unix://{path}")
        with pytest.raises(AddressInUse):
            await serve(CountingApp(Disk()), f"unix://{path}")
        await ask("Echo", pb.RequestEcho(message="still here"))
    assert not path.exists()
    with pytest.raises(InvalidAddress):
        await serve_grpc(CountingApp(Disk()), "unix:///nowhere/app.sock")
