from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from pol_abci.client.chain import ChainNotBegun
from pol_abci.client.light import LightClient, ProvenValue
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import RpcError
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, Head
from pol_abci.rules.merkle import (
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_bucket_root,
    compute_chunk_hashes,
    compute_weights_root,
    encode_value,
)
from pol_abci.rules.merkle_proofs import (
    InvalidProof,
    ProofOp,
    prove_state_entry,
    prove_weights_chunk,
)
from pol_abci.rules.params import Address

ALICE, BOB, CAROL = (Address(name * 20) for name in (b"a", b"b", b"c"))
WEIGHTS = bytes(range(256)) * 300  # two chunks
HEAD = Head(
    generation=3,
    seed=b"s" * 32,
    difficulty=5,
    time_ms=6,
    weights_root=compute_weights_root(WEIGHTS),
)


class FakeApp:
    """A node at height `latest`, which proves the state before it; carol earns by each block."""

    def __init__(self) -> None:
        self.latest = 9
        self.chain_id = "c"
        self.entries = {
            keys.head(): HEAD.encode(),
            keys.account(ALICE): Account(balance=7).encode(),
        }
        self.weights = WEIGHTS
        self.refusal = ""
        self.is_quick = False

    def client(self) -> LightClient:
        return LightClient(
            RpcClient("http://node.test:1", transport=httpx.MockTransport(self.handle)), "c"
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        call = json.loads(request.content)
        result = getattr(self, call["method"])(**call["params"])
        self.latest += self.is_quick
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": call["id"], "result": result})

    def status(self) -> Any:
        sync = {
            "latest_block_height": str(self.latest),
            "latest_block_time": "2026-11-23T06:21:43Z",
            "catching_up": False,
        }
        return {"node_info": {"network": self.chain_id, "version": "0"}, "sync_info": sync}

    def state(self, height: int) -> dict[bytes, bytes]:
        return self.entries | {keys.account(CAROL): Account(balance=height).encode()}

    def tree(self, height: int) -> BucketTree:
        roots = {
            bucket_of(key): compute_bucket_root([(key, value)])
            for key, value in self.state(height).items()
        }
        return BucketTree.from_roots(roots)

    def commit(self, height: str) -> Any:
        assert int(height) <= self.latest
        tree = self.tree(int(height) - 1)
        app_hash = compute_app_hash(tree.root, compute_weights_root(self.weights))
        header = {
            "chain_id": self.chain_id,
            "height": height,
            "time": "2026-11-23T06:21:43Z",
            "app_hash": app_hash.hex().upper(),
            "proposer_address": "",
        }
        return {"signed_header": {"header": header}}

    def abci_query(self, path: str, data: str, prove: bool) -> Any:
        assert prove
        if self.refusal:
            return {"response": {"code": 3, "log": self.refusal}}
        value, ops = self.answer(path, bytes.fromhex(data))
        encoded = [{"type": op.type, "key": encode(op.key), "data": encode(op.data)} for op in ops]
        return {
            "response": {
                "code": 0,
                "height": str(self.latest - 1),
                "key": encode(bytes.fromhex(data)),
                "value": encode(value),
                "proofOps": {"ops": encoded},
            }
        }

    def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
        entries, tree = self.state(self.latest - 1), self.tree(self.latest - 1)
        if path == "/store/weights/key":
            index = int.from_bytes(key, "big")
            chunk = self.weights[index * 65_536 : (index + 1) * 65_536]
            ops = prove_weights_chunk(index, compute_chunk_hashes(self.weights), tree.root)
            return encode_value(chunk), ops
        assert path == "/store/state/key"
        payload = entries.get(key)
        bucket = [item for item in entries.items() if bucket_of(item[0]) == bucket_of(key)]
        aunts = tree.prove(bucket_of(key))
        ops = prove_state_entry(key, bucket, aunts, compute_weights_root(self.weights))
        return (b"" if payload is None else encode_value(payload)), ops


def encode(raw: bytes) -> str | None:
    return base64.b64encode(raw).decode() or None


async def test_state_is_read_as_of_the_height_that_the_newest_header_proves() -> None:
    read = await FakeApp().client().get_state(keys.head())
    assert read == ProvenValue(HEAD.encode(), 8)


async def test_an_account_and_its_absence_are_both_proven() -> None:
    client = FakeApp().client()
    assert await client.get_account(ALICE) == Account(balance=7)
    assert await client.get_account(BOB) is None


async def test_blocks_that_come_between_the_questions_spoil_no_answer() -> None:
    app = FakeApp()
    app.is_quick = True
    assert await app.client().get_account(CAROL) == Account(balance=9)
    assert app.latest > 11


@pytest.mark.parametrize("height", [0, 6, 10])
async def test_an_answer_as_of_long_ago_or_of_a_height_to_come_is_refused(height: int) -> None:
    class Tardy(FakeApp):
        def abci_query(self, path: str, data: str, prove: bool) -> Any:
            answer = super().abci_query(path, data, prove)
            answer["response"]["height"] = str(height)
            return answer

        def commit(self, height: str) -> Any:
            return super().commit(height) if int(height) <= self.latest else {"signed_header": None}

    with pytest.raises((InvalidProof, RpcError)):
        await Tardy().client().get_head()


async def test_a_query_that_the_application_refuses_ends_in_its_words() -> None:
    app = FakeApp()
    app.refusal = "height 8 is not kept"
    with pytest.raises(RpcError, match="height 8 is not kept"):
        await app.client().get_head()


async def test_a_changed_balance_is_refused() -> None:
    class Liar(FakeApp):
        def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
            _, ops = super().answer(path, key)
            return encode_value(Account(balance=8).encode()), ops

    with pytest.raises(InvalidProof):
        await Liar().client().get_account(ALICE)


async def test_a_hidden_account_is_refused() -> None:
    class Hider(FakeApp):
        def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
            return b"", super().answer(path, key)[1]

    with pytest.raises(InvalidProof):
        await Hider().client().get_account(ALICE)


async def test_an_answer_for_another_key_is_refused() -> None:
    class Swapper(FakeApp):
        def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
            return super().answer(path, keys.account(ALICE) if key != keys.head() else key)

    with pytest.raises(InvalidProof):
        await Swapper().client().get_account(BOB)


async def test_a_value_that_no_state_holds_is_refused() -> None:
    class Bare(FakeApp):
        def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
            return HEAD.encode(), super().answer(path, key)[1]

    with pytest.raises(InvalidProof, match="stored"):
        await Bare().client().get_head()


async def test_a_header_of_another_chain_is_refused() -> None:
    app = FakeApp()
    app.chain_id = "other"
    with pytest.raises(RpcError, match="of other"):
        await app.client().get_head()


@pytest.mark.parametrize("latest", [0, 1])
async def test_a_chain_without_a_provable_state_says_so(latest: int) -> None:
    app = FakeApp()
    app.latest = latest
    with pytest.raises(ChainNotBegun):
        await app.client().get_head()


async def test_weights_are_joined_from_proven_chunks() -> None:
    weights = await FakeApp().client().get_weights(HEAD.weights_root, len(WEIGHTS))
    assert weights == WEIGHTS


async def test_a_head_that_moved_meanwhile_gives_no_weights() -> None:
    app = FakeApp()
    app.weights = WEIGHTS[:-1] + b"!"
    assert await app.client().get_weights(HEAD.weights_root, len(WEIGHTS)) is None


async def test_one_false_chunk_is_refused() -> None:
    class Liar(FakeApp):
        def answer(self, path: str, key: bytes) -> tuple[bytes, list[ProofOp]]:
            value, ops = super().answer(path, key)
            return (value[:-1] + b"!" if key[-1] == 1 else value), ops

    with pytest.raises(InvalidProof, match="another value"):
        await Liar().client().get_weights(HEAD.weights_root, len(WEIGHTS))


async def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(InvalidProof, match="another model"):
        await FakeApp().client().get_weights(HEAD.weights_root, len(WEIGHTS) + 4)


async def test_a_head_of_another_protocol_is_refused() -> None:
    app = FakeApp()
    del app.entries[keys.head()]
    with pytest.raises(InvalidProof, match="no head"):
        await app.client().get_head()
    app.entries[keys.head()] = b"\xff"
    with pytest.raises(InvalidProof, match="not of this protocol"):
        await app.client().get_head()
