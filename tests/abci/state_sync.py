"""CometBFT's part of state sync (v0.38, statesync/syncer.go), in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.abci.generated.abci import types_pb2 as pb
from tests.abci.blocks import SpecificationBroken, copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.abci.application import Application
    from pol_abci.app.application import PolApplication
    from tests.abci.driver import ConsensusDriver, Node

OFFER_ACCEPTED = pb.ResponseOfferSnapshot.ACCEPT
Apply = pb.ResponseApplySnapshotChunk


async def list_snapshots(app: Application) -> list[pb.Snapshot]:
    """What a node offers its peers, the newest first."""
    reply = await app.list_snapshots(pb.RequestListSnapshots())
    return sorted(copy(reply).snapshots, key=lambda each: each.height, reverse=True)


async def load_chunk(app: Application, snapshot: pb.Snapshot, index: int) -> bytes:
    """A chunk as a node serves it."""
    request = pb.RequestLoadSnapshotChunk(
        height=snapshot.height, format=snapshot.format, chunk=index
    )
    return copy(await app.load_snapshot_chunk(request)).chunk


async def offer(
    app: Application, snapshot: pb.Snapshot, app_hash: bytes
) -> pb.ResponseOfferSnapshot.Result.ValueType:
    """What a joining node says to a snapshot whose app hash the light client has verified."""
    request = pb.RequestOfferSnapshot(snapshot=snapshot, app_hash=app_hash)
    return copy(await app.offer_snapshot(request)).result


async def apply_chunk(
    app: Application, index: int, chunk: bytes, sender: str = "peer"
) -> pb.ResponseApplySnapshotChunk:
    """What a joining node says to a chunk."""
    request = pb.RequestApplySnapshotChunk(index=index, chunk=chunk, sender=sender)
    return copy(await app.apply_snapshot_chunk(request))


async def join(
    driver: ConsensusDriver[PolApplication],
    node: Node[PolApplication],
    server: Application,
    *,
    tamper: Callable[[int, bytes], bytes] = lambda _, chunk: chunk,
) -> list[str]:
    """Have a new node take the newest snapshot of `server`, then the blocks that followed it.

    `tamper` is what a first peer does to the chunks; a second one, asked again, is honest.

    Returns
    -------
    The senders that the application rejected.
    """
    assert node.running is None
    app = node.running = await node.factory()
    snapshot = (await list_snapshots(server))[0]
    app_hash = driver.get_app_hash(snapshot.height)
    if await offer(app, snapshot, app_hash) != OFFER_ACCEPTED:
        raise SpecificationBroken("the newest snapshot was not accepted")
    rejected: list[str] = []
    waiting = [(index, "first") for index in range(snapshot.chunks)]
    while waiting:
        index, sender = waiting.pop(0)
        chunk = await load_chunk(server, snapshot, index)
        reply = await apply_chunk(
            app, index, tamper(index, chunk) if sender == "first" else chunk, sender
        )
        rejected += reply.reject_senders
        waiting += [(again, "second") for again in reply.refetch_chunks]
        if reply.result not in {Apply.ACCEPT, Apply.RETRY}:
            raise SpecificationBroken(f"a chunk was answered with {reply.result}")
    info = await app.info(pb.RequestInfo())
    if (info.last_block_height, info.last_block_app_hash) != (snapshot.height, app_hash):
        raise SpecificationBroken("the application does not stand where the snapshot is")
    await driver.replay(node, snapshot.height + 1)
    return rejected
