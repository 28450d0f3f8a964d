"""A chain in this process for the miner's tests: rules and learning are real, CometBFT is not.

`FakeChain` applies blocks and answers queries as the application does; `serve_node` puts it
behind a real socket with HTTP and WebSocket, so that connections can break.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.transactions import build_proof
from pol_abci.learning import weights as canonical
from pol_abci.learning.walk import Head, Task, Walk, load_task, verify_claim
from pol_abci.miner.ticket import MiningHead
from pol_abci.rules import errors, keys
from pol_abci.rules.block import BlockContext, ChainContext, TxOutcome
from pol_abci.rules.codec import GenerationRecord, ProofMessage, SignedTx
from pol_abci.rules.codec import Head as HeadRecord
from pol_abci.rules.genesis import Genesis, GenesisAccount, genesis_to_json, process_genesis
from pol_abci.rules.merkle import (
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_bucket_root,
    compute_chunk_hashes,
    compute_weights_root,
    encode_value,
)
from pol_abci.rules.merkle_proofs import prove_state_entry, prove_weights_chunk
from pol_abci.rules.params import SCORE_UNIT, Amount, Params, ShareParams
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.proof import Claim, TrueWalk, WalkClaim, WalkVerdict
from pol_abci.rules.signing import authenticate
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import process_block
from tests.unit.learning.digits_task import make_digits_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


CHAIN_ID = "fake"
OWNER = AccountKey(b"o" * 32)
MINER = AccountKey(b"m" * 32)
TARGET_MS = 400


def make_params() -> Params:
    """The digits preset with a smaller model, shorter walks and a quicker chain."""
    params = make_digits_params()
    return replace(
        params,
        task=replace(params.task, channels=(2, 4, 4), batch_size=4),
        scheme=replace(params.walk, max_steps=4, evaluation_samples=32, stamp_bits=4),
        difficulty=replace(params.difficulty, first=4 * SCORE_UNIT, target_interval_ms=TARGET_MS),
        ledger=replace(params.ledger, halving_generations=1_000, maturity_generations=2),
        shares=ShareParams(slots=4, max_validators=4, liveness_window=4),
    )


PARAMS = make_params()


def make_task(weights_root: bytes | None = None) -> Task:
    return load_task(PARAMS, weights_root, CHAIN_ID)


class FakeChain:
    """A chain of one validator, its application's queries and its CometBFT's RPC."""

    def __init__(self, balance: int = 0) -> None:
        self.task = make_task()
        self.weights = canonical.to_bytes(self.task.initial_weights)
        self.genesis = Genesis(
            params=PARAMS,
            accounts=(
                GenesisAccount(
                    address=OWNER.address, balance=Amount(balance), consensus_key=b"c" * 32
                ),
            ),
            ring=((OWNER.address, 4),),
            weights_root=compute_weights_root(self.weights),
        )
        self.chain_id = CHAIN_ID
        self.state = Overlay(DictState())
        process_genesis(self.state, CHAIN_ID, self.genesis)
        self.versions: list[tuple[dict[bytes, bytes], bytes]] = []
        self.times_ms: list[int] = []
        self.app_hashes: list[bytes] = []
        self.records: list[GenerationRecord] = []
        self.tickets: list[SignedTx] = []
        self.broadcasts: list[tuple[SignedTx, int]] = []
        self._keep_version()

    def _keep_version(self) -> None:
        entries = {key: value for key, value in self.state.changes.items() if value is not None}
        self.versions.append((entries, self.weights))
        self.app_hashes.append(
            compute_app_hash(make_tree(entries).root, compute_weights_root(self.weights))
        )

    @property
    def height(self) -> int:
        return len(self.times_ms)

    @property
    def head(self) -> HeadRecord:
        payload = self.state.get(keys.head())
        assert payload is not None
        return HeadRecord.decode(payload)

    def make_head(self) -> Head:
        """The head as a walk wants it."""
        head = self.head
        weights = canonical.from_bytes(self.task.model, self.weights)
        return Head(head.generation, head.seed, weights)

    def add_block(self, time_ms: int, txs: tuple[SignedTx, ...] = ()) -> tuple[TxOutcome, ...]:
        """Apply a block; proofs in it are walked."""
        verdicts: dict[Claim, WalkVerdict] = {}
        for tx in txs:
            assert isinstance(tx.message, ProofMessage)
            claim = tx.message.claim
            verdict, data = verify_claim(self.task, self.make_head(), claim, lambda: None)
            verdicts[claim] = verdict
        context = BlockContext(
            height=self.height + 1, initial_height=1, time_ms=time_ms, proposer=b"p" * 20
        )
        chain = ChainContext(CHAIN_ID, PARAMS)
        outcome = process_block(self.state, chain, context, txs, verdicts)
        if outcome.accepted:
            assert data is not None
            self.weights = data
            self.records.append(outcome.accepted)
            self.tickets.clear()
        self.times_ms.append(time_ms)
        self._keep_version()
        return outcome.txs

    def begin(self, time_ms: int = 1_000_000) -> None:
        """The two blocks after which proofs are taken, and one that proves the second."""
        for _ in range(3):
            self.add_block(time_ms)

    def win(self, key: AccountKey = OWNER) -> None:
        """Extend the head by whatever walk of `key` is good first, and prove it by a block."""
        self.add_block(*self.find_win(key))
        self.add_block(self.times_ms[-1])

    def find_win(self, key: AccountKey = OWNER) -> tuple[int, tuple[SignedTx, ...]]:
        head = self.head
        for nonce in range(1_000):
            walk = Walk(self.task, self.make_head(), key.address, nonce)
            walk.step()
            step = walk.step()
            claim = WalkClaim(
                generation=head.generation,
                address=key.address,
                nonce=nonce,
                steps=2,
                step_digests=walk.digests,
                weights_root=walk.root(),
            )
            verdict, _ = verify_claim(self.task, self.make_head(), claim, lambda: None)
            assert isinstance(verdict, TrueWalk)
            good_ms = compute_ticket_time_ms(PARAMS, self.as_mining_head(), verdict)
            if good_ms is not None:
                assert step.score == verdict.score
                bits = PARAMS.walk.stamp_bits
                raw = build_proof(key, CHAIN_ID, claim, seed=head.seed, stamp_bits=bits)
                time_ms = max(good_ms, self.times_ms[-1])
                return time_ms, (authenticate(CHAIN_ID, raw),)
        raise AssertionError("no walk is ever good")

    def as_mining_head(self) -> MiningHead:
        head = self.head
        return MiningHead(
            model=self.make_head(),
            weights_root=head.weights_root,
            difficulty=head.difficulty,
            time_ms=head.time_ms,
        )

    def check_tx(self, raw: bytes) -> int:
        """As a node: PENDING at first, then yes; a true ticket is kept."""
        tx = authenticate(CHAIN_ID, raw)
        assert isinstance(tx.message, ProofMessage)
        code = self.judge(tx, tx.message.claim)
        self.broadcasts.append((tx, code))
        return code

    def judge(self, tx: SignedTx, claim: Claim) -> int:
        if claim.generation != self.head.generation:
            return errors.StaleProof.code
        if any(kept.hash == tx.hash for kept in self.tickets):
            return errors.CODE_OK
        verdict, _ = verify_claim(self.task, self.make_head(), claim, lambda: None)
        if not isinstance(verdict, TrueWalk):
            return errors.FalseProof.code
        self.tickets.append(tx)
        return errors.PendingProof.code

    def produce(self, now_ms: int) -> None:
        """A block at `now_ms` with the first kept ticket that is good then."""
        for tx in self.tickets:
            assert isinstance(tx.message, ProofMessage)
            verdict, _ = verify_claim(self.task, self.make_head(), tx.message.claim, lambda: None)
            assert isinstance(verdict, TrueWalk)
            good_ms = compute_ticket_time_ms(PARAMS, self.as_mining_head(), verdict)
            if good_ms is not None and good_ms <= now_ms:
                self.add_block(now_ms, (tx,))
                return
        self.add_block(now_ms)

    # CometBFT's RPC

    def client(self) -> RpcClient:
        def handle(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=self.answer(json.loads(request.content)))

        return RpcClient("http://node.test:1", transport=httpx.MockTransport(handle))

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        result = getattr(self, f"rpc_{call['method']}")(**call["params"])
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}

    def rpc_status(self) -> Any:
        sync = {
            "latest_block_height": str(self.height),
            "latest_block_time": "2026-11-23T06:21:43Z",
            "catching_up": False,
        }
        return {"node_info": {"network": self.chain_id, "version": "0"}, "sync_info": sync}

    def rpc_genesis_chunked(self, chunk: str) -> Any:
        assert chunk == "0"
        document = {
            "chain_id": self.chain_id,
            "initial_height": "1",
            "app_state": genesis_to_json(self.genesis),
        }
        return {"total": "1", "data": encode(json.dumps(document).encode())}

    def rpc_commit(self, height: str) -> Any:
        return {"signed_header": {"header": self.make_header(int(height))}}

    def make_header(self, height: int) -> dict[str, str]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.times_ms[height - 1] // 1_000))
        return {
            "chain_id": self.chain_id,
            "height": str(height),
            "time": f"{stamp}.{self.times_ms[height - 1] % 1_000:03d}Z",
            "app_hash": self.app_hashes[height - 1].hex(),
            "proposer_address": "",
        }

    def rpc_broadcast_tx_sync(self, tx: str) -> Any:
        return {"code": self.check_tx(base64.b64decode(tx)), "log": "", "hash": "AB"}

    def rpc_abci_query(self, path: str, data: str, prove: bool) -> Any:
        key, at = bytes.fromhex(data), self.height - prove
        response: dict[str, Any] = {"code": 0, "height": str(at), "key": encode(key)}
        if path == "/status":
            return {"response": response | {"value": encode(json.dumps(self.status()).encode())}}
        if path == "/history":
            return {"response": response | {"value": encode(self.history(key))}}
        assert prove
        entries, weights = self.versions[at]
        if path == "/store/weights/key":
            index = int.from_bytes(key, "big")
            value = encode_value(weights[index * 65_536 : (index + 1) * 65_536])
            root = make_tree(entries).root
            ops = prove_weights_chunk(index, compute_chunk_hashes(weights), root)
        else:
            value = encode_value(entries[key]) if key in entries else b""
            bucket = sorted(
                item for item in entries.items() if bucket_of(item[0]) == bucket_of(key)
            )
            aunts = make_tree(entries).prove(bucket_of(key))
            ops = prove_state_entry(key, bucket, aunts, compute_weights_root(weights))
        listed = [{"type": op.type, "key": encode(op.key), "data": encode(op.data)} for op in ops]
        return {"response": response | {"value": encode(value), "proofOps": {"ops": listed}}}

    def history(self, first: bytes) -> bytes:
        chosen = self.records[max(0, int.from_bytes(first, "big") - 1) :][:200]
        return b"".join(
            struct.pack(">I", len(data)) + data for data in (each.encode() for each in chosen)
        )

    def status(self) -> dict[str, Any]:
        head = self.head
        return {
            "chain_id": self.chain_id,
            "height": self.height,
            "time_ms": self.times_ms[-1] if self.times_ms else 0,
            "generation": head.generation,
            "seed": head.seed.hex(),
            "weights_root": head.weights_root.hex(),
            "head_time_ms": head.time_ms,
            "head_difficulty": head.difficulty,
            "difficulty_now": head.difficulty,
            "target_interval_ms": TARGET_MS,
            "block_age_ms": 0,
            "standstill": None,
            "verifier": {
                "alive": True,
                "queued": 0,
                "walking": False,
                "walked": 0,
                "false": 0,
                "steps_per_second": 1_000.0,
            },
            "tickets": {"kept": 0, "best_score": None, "best_good_time_ms": None},
            "accuracy": None,
            "size_all": 360,
        }


def make_tree(entries: dict[bytes, bytes]) -> BucketTree:
    buckets: dict[int, list[tuple[bytes, bytes]]] = {}
    for item in sorted(entries.items()):
        buckets.setdefault(bucket_of(item[0]), []).append(item)
    return BucketTree.from_roots(
        {index: compute_bucket_root(items) for index, items in buckets.items()}
    )


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class NodeServer:
    """One port with CometBFT's two doors: POST is JSON-RPC, GET /websocket goes to a WebSocket."""

    def __init__(self, chain: FakeChain, folder: Path) -> None:
        self.chain = chain
        self.socket_path = str(folder / "ws.sock")
        self.is_answering = asyncio.Event()
        self.is_answering.set()
        self._listeners: list[ServerConnection] = []

    async def handle_websocket(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in connection:
                assert json.loads(message)["method"] == "subscribe"
                await connection.send('{"jsonrpc": "2.0", "id": 1, "result": {}}')
                self._listeners.append(connection)

    async def announce(self) -> None:
        header = self.chain.make_header(self.chain.height)
        event = {"id": 1, "result": {"data": {"value": {"header": header}}}}
        for connection in self._listeners:
            with suppress(ConnectionClosed):
                await connection.send(json.dumps(event))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    await self.join_websocket(head, reader, writer)
                    return
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                call = json.loads(await reader.readexactly(length))
                await self.is_answering.wait()
                body = json.dumps(self.chain.answer(call)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the node stops
        finally:
            writer.close()

    async def join_websocket(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.socket_path)
        inner_writer.write(head)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def serve_node(chain: FakeChain, port: int, folder: Path) -> AsyncIterator[NodeServer]:
    """A node that makes a block each 50 ms, until the context ends; then its connections break."""
    node = NodeServer(chain, folder)
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await node.handle(reader, writer)

    async def make_blocks() -> None:
        while True:
            await asyncio.sleep(0.05)
            chain.produce(max(time.time_ns() // 10**6, chain.times_ms[-1]))
            await node.announce()

    async with unix_serve(node.handle_websocket, node.socket_path):
        server = await asyncio.start_server(accept, "127.0.0.1", port)
        producing = asyncio.create_task(make_blocks())
        try:
            yield node
        finally:
            producing.cancel()
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(producing, *connections, return_exceptions=True)
