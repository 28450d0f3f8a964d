"""A node takes over a peer's state, and nothing that is not its chain's."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.app.retention import Retention
from pol_abci.rules.ledger import get_account
from pol_abci.store.snapshot_format import SNAPSHOT_CHUNK_BYTES, Metadata
from tests.abci.digits_chain import CHAIN_ID, DigitsNode, make_genesis, make_key
from tests.abci.digits_driver import make_factory, run_chain, transfer
from tests.abci.driver import Node
from tests.abci.state_sync import (
    OFFER_ACCEPTED,
    Apply,
    apply_chunk,
    join,
    list_snapshots,
    load_chunk,
    offer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import pytest

    from pol_abci.app.application import PolApplication
    from tests.abci.digits_driver import DigitsChain

Offer = pb.ResponseOfferSnapshot
INTERVAL = 4
REFUSED = (Offer.REJECT, Offer.REJECT_FORMAT)


@asynccontextmanager
async def run_takers(chain: DigitsChain) -> AsyncIterator[None]:
    """Have the nodes' snapshots made, as their processes do."""
    tasks = [asyncio.create_task(node.application.snapshot_taker.run()) for node in chain.nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError), done


async def wait_for_snapshot(node: DigitsNode, height: int) -> None:
    """The driver's calls never wait, so that the taker gets its turn only here."""
    taker = node.application.snapshot_taker
    while taker._begun is not None or height not in taker.folder.get_heights():  # noqa: ASYNC110  (processes end outside)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def run_chain_with_snapshot(path: Path, nodes: int = 1) -> AsyncIterator[DigitsChain]:
    """Eight blocks with two generations and a transfer, and snapshots of heights 4 and 8."""
    async with run_chain(path, nodes=nodes, snapshot_interval=INTERVAL) as chain:
        async with run_takers(chain):
            await chain.begin()
            for height in range(3, 11):
                if height in {3, 6}:
                    await chain.submit(chain.mine(5))
                if height == 5:
                    await chain.driver.add_tx(transfer(1, 1))
                await chain.driver.make_block()
                if height % INTERVAL == 0:
                    for node in chain.nodes:
                        await wait_for_snapshot(node, height)
        yield chain


def add_node(chain: DigitsChain, path: Path) -> Node[PolApplication]:
    """A node that has nothing yet."""
    member = DigitsNode(path, chain.nodes[0].genesis, chain.clock)
    chain.nodes.append(member)
    return Node(make_factory(member))


async def test_a_node_joins_by_a_snapshot_and_verifies_new_generations(tmp_path: Path) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        node = add_node(chain, tmp_path / "joining")
        assert await join(chain.driver, node, chain.app) == []
        chain.driver.nodes.append(node)
        old, new = (each.replica for each in chain.nodes)
        assert new.store.height == old.store.height == 10
        assert new.get_head() == old.get_head()
        assert new.store.weights() == old.store.weights()
        assert new.time_ms == old.time_ms
        assert get_account(new.state, make_key(9).address).balance == 5_000
        assert new.store.records(0, 10) == []
        walked = chain.nodes[1].verifier.walks
        await chain.submit(chain.mine(6))
        await chain.driver.make_block()
        await chain.driver.make_block()
        assert chain.nodes[1].verifier.walks > walked
        assert new.get_head().generation == old.get_head().generation == 3
        assert [generation for generation, _ in new.store.records(0, 10)] == [3]
        # kill -9 of the one that joined: it goes on from its own store
        await chain.driver.crash(1)
        await chain.driver.make_block()


async def test_two_nodes_list_and_serve_the_same_snapshots(tmp_path: Path) -> None:
    async with run_chain_with_snapshot(tmp_path, nodes=2) as chain:
        one, two = (node.app for node in chain.driver.nodes)
        listed = await list_snapshots(one)
        assert [each.height for each in listed] == [8, 4]
        assert listed == await list_snapshots(two)
        for each in listed:
            for index in range(each.chunks):
                chunk = await load_chunk(one, each, index)
                assert chunk == await load_chunk(two, each, index) != b""
            assert await load_chunk(one, each, each.chunks) == b""
            each.format = 2
            assert await load_chunk(one, each, 0) == b""


async def test_a_snapshot_is_listed_when_its_headers_can_be_verified(tmp_path: Path) -> None:
    async with run_chain(tmp_path, snapshot_interval=INTERVAL) as chain, run_takers(chain):
        await chain.driver.make_blocks(INTERVAL)
        await wait_for_snapshot(chain.nodes[0], INTERVAL)
        for _ in range(2):
            assert await list_snapshots(chain.app) == []
            await chain.driver.make_block()
        assert [each.height for each in await list_snapshots(chain.app)] == [INTERVAL]


async def test_a_snapshot_that_a_crash_prevented_is_made_after_it(tmp_path: Path) -> None:
    async with run_chain(tmp_path, snapshot_interval=INTERVAL) as chain:
        await chain.driver.make_blocks(INTERVAL)  # and nobody makes the snapshot
        await chain.driver.crash()
        async with run_takers(chain):
            await wait_for_snapshot(chain.nodes[0], INTERVAL)
            for _ in range(4):
                await chain.driver.make_blocks(INTERVAL)
                await wait_for_snapshot(chain.nodes[0], chain.driver.height)
        heights = [each.height for each in await list_snapshots(chain.app)]
        assert heights == [4 * INTERVAL, 3 * INTERVAL]  # the newest has no headers yet
        assert len(chain.app.snapshot_taker.folder.get_heights()) == 3


async def test_blocks_that_follow_a_snapshot_stay_as_long_as_it_is_served(tmp_path: Path) -> None:
    async with run_chain(tmp_path, snapshot_interval=INTERVAL) as chain, run_takers(chain):
        chain.nodes[0].replica.retention = Retention(keep_blocks=2)
        await chain.begin()
        await chain.driver.make_blocks(INTERVAL - chain.driver.height)
        await wait_for_snapshot(chain.nodes[0], INTERVAL)
        for _ in range(4):
            await chain.submit(chain.mine(1))
            await chain.driver.make_block()
        assert chain.driver.nodes[0].base == INTERVAL


def make_snapshot(first_seed: bytes, chunks: list[bytes]) -> pb.Snapshot:
    """What a peer offers that has these chunks at height 8."""
    metadata = Metadata(first_seed, tuple(map(_hash, chunks)))
    return pb.Snapshot(
        height=8,
        format=1,
        chunks=len(chunks),
        hash=metadata.hash,
        metadata=metadata.encode(),
    )


async def test_a_tampered_chunk_is_fetched_again_and_its_sender_rejected(tmp_path: Path) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        node = add_node(chain, tmp_path / "joining")
        rejected = await join(
            chain.driver, node, chain.app, tamper=lambda _, chunk: chunk[:-1] + b"?"
        )
        assert rejected == ["first"]


async def test_a_false_snapshot_leaves_the_node_empty_and_a_right_one_follows(
    tmp_path: Path,
) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        app = await add_node(chain, tmp_path / "joining").factory()
        snapshot = (await list_snapshots(chain.app))[0]
        chunk = await load_chunk(chain.app, snapshot, 0)
        first_seed = Metadata.decode(snapshot.metadata).first_seed
        right = chain.driver.get_app_hash(8)
        false = chunk[:-1] + bytes([chunk[-1] ^ 1])
        for content, app_hash in ((chunk, chain.driver.get_app_hash(4)), (false, right)):
            made = make_snapshot(first_seed, [content])
            assert await offer(app, made, app_hash) == OFFER_ACCEPTED
            assert (await apply_chunk(app, 0, content)).result == Apply.REJECT_SNAPSHOT
            assert (await app.info(pb.RequestInfo())).last_block_height == 0
        # killed before its chunks came: nothing of it is left
        assert await offer(app, snapshot, right) == OFFER_ACCEPTED
        app = chain.nodes[1].restart()
        assert (await app.info(pb.RequestInfo())).last_block_height == 0
        assert await offer(app, snapshot, right) == OFFER_ACCEPTED
        assert (await apply_chunk(app, 0, chunk)).result == Apply.ACCEPT
        assert (await app.info(pb.RequestInfo())).last_block_app_hash == right
        # CometBFT was killed before it knew: it offers again
        assert await offer(app, snapshot, right) == OFFER_ACCEPTED
        assert (await apply_chunk(app, 0, chunk)).result == Apply.ACCEPT
        assert not list((tmp_path / "joining").glob("incoming/*"))


async def test_chunks_are_kept_until_the_last_has_come_and_none_may_be_long(
    tmp_path: Path,
) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        app = await add_node(chain, tmp_path / "joining").factory()
        snapshot = (await list_snapshots(chain.app))[0]
        content = await load_chunk(chain.app, snapshot, 0)
        first_seed = Metadata.decode(snapshot.metadata).first_seed
        chunks = [content[start : start + 5_000] for start in range(0, len(content), 5_000)]
        assert len(chunks) > 3

        async def offer_chunks(chunks: list[bytes]) -> None:
            made = make_snapshot(first_seed, chunks)
            assert await offer(app, made, chain.driver.get_app_hash(8)) == OFFER_ACCEPTED

        long = bytes(SNAPSHOT_CHUNK_BYTES + 1)
        await offer_chunks([*chunks, long])
        assert (await apply_chunk(app, len(chunks), long)).result == Apply.REJECT_SNAPSHOT
        await offer_chunks(chunks)
        for index, chunk in enumerate(chunks):
            if index == 2:
                reply = await apply_chunk(app, index, chunk + b"!", "liar")
                assert reply.result == Apply.RETRY
                assert list(reply.refetch_chunks) == [2]
                assert list(reply.reject_senders) == ["liar"]
            assert (await app.info(pb.RequestInfo())).last_block_height == 0
            assert (await apply_chunk(app, index, chunk)).result == Apply.ACCEPT
        assert (await app.info(pb.RequestInfo())).last_block_height == 8


async def test_what_cannot_be_a_snapshot_of_this_chain_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        app = await add_node(chain, tmp_path / "joining").factory()
        right = (await list_snapshots(chain.app))[0]
        app_hash = chain.driver.get_app_hash(8)

        async def is_refused(app_hash: bytes = app_hash, **changes: object) -> bool:
            offered = pb.Snapshot()
            offered.CopyFrom(right)
            for name, value in changes.items():
                setattr(offered, name, value)
            return await offer(app, offered, app_hash) in REFUSED

        assert not await is_refused()
        metadata = Metadata.decode(right.metadata)
        other = Metadata(bytes(32), metadata.chunk_hashes)
        long = Metadata(metadata.first_seed, (bytes(32),) * 2_049)
        assert await is_refused(format=2)
        assert await is_refused(height=0)
        assert await is_refused(height=2**63)
        assert await is_refused(chunks=2)
        assert await is_refused(hash=bytes(32))
        assert await is_refused(metadata=b"")
        assert await is_refused(metadata=right.metadata + b"\0")
        assert await is_refused(metadata=long.encode(), hash=long.hash, chunks=2_049)
        assert await is_refused(app_hash=b"")
        assert await is_refused(metadata=other.encode(), hash=other.hash)
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 2**20}))
        assert await is_refused()


async def test_a_snapshot_of_another_chain_is_refused(tmp_path: Path) -> None:
    async with run_chain_with_snapshot(tmp_path / "one") as chain:
        snapshot = (await list_snapshots(chain.app))[0]
        genesis = make_genesis(funded=(7,))
        assert genesis != chain.nodes[0].genesis
        other = DigitsNode(tmp_path / "other", genesis, chain.clock)
        try:
            assert other.replica.chain.chain_id == CHAIN_ID
            app_hash = chain.driver.get_app_hash(snapshot.height)
            assert await offer(other.application, snapshot, app_hash) == Offer.REJECT
        finally:
            other.close()


async def test_a_chain_that_was_begun_here_is_forgotten_when_a_snapshot_comes(
    tmp_path: Path,
) -> None:
    async with run_chain_with_snapshot(tmp_path) as chain:
        node = add_node(chain, tmp_path / "joining")
        app = await node.factory()
        await app.init_chain(chain.driver._init_chain)
        node.factory = _give(app)
        await join(chain.driver, node, chain.app)
        assert chain.nodes[1].replica.store.app_hash == chain.driver.get_app_hash(10)


def _give(app: PolApplication) -> Callable[[], Awaitable[PolApplication]]:
    async def factory() -> PolApplication:
        return app

    return factory


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
