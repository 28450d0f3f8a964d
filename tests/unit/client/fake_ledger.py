"""A node in this process for tests of accounts: the rules are real, CometBFT and walks are not.

Blocks come when `make_block` says so, or, with `is_quick`, whenever a transaction is looked for.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import httpx

from pol_abci.app.info import find_holdings
from pol_abci.client.holdings import HOLDINGS_PATH
from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.rules import keys
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.codec import SignedTx, ValidatorSet, encode_tx
from pol_abci.rules.errors import CODE_OK, InvalidTx
from pol_abci.rules.genesis import genesis_to_json
from pol_abci.rules.merkle import (
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_bucket_root,
    encode_value,
)
from pol_abci.rules.merkle_proofs import prove_state_entry
from pol_abci.rules.params import Address
from pol_abci.rules.signing import authenticate
from pol_abci.rules.state import Overlay
from pol_abci.rules.transition import check_tx, process_block
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from pol_abci.rules.block import TxOutcome

URL = "http://node.test:1"
WEIGHTS_ROOT = bytes(32)


def key_of(name: str) -> AccountKey:
    """The key of alice, bob or carol."""
    return AccountKey(make.account_seed(name))


class FakeLedger:
    """One node: `state`, a mempool, and blocks with what became of their transactions."""

    def __init__(self, *, is_quick: bool = True) -> None:
        self.chain_id = make.CHAIN_ID
        self.is_quick = is_quick
        self.has_index = True
        self.base = 1
        self.state = make.first_state()
        self.blocks: list[tuple[tuple[SignedTx, ...], tuple[TxOutcome, ...]]] = []
        self.mempool: list[SignedTx] = []
        self.offered: list[SignedTx] = []
        # Transactions of others, which each come in just before one that is offered.
        self.before_check: list[bytes] = []
        self.is_losing_answers = False
        # What a method answers in place of a result.
        self.method_errors: dict[str, str] = {}
        self.versions: list[dict[bytes, bytes]] = []
        self.voting = self.get_powers()
        for _ in range(3):
            self.make_block()

    def client(self) -> RpcClient:
        """A client of this node."""
        return RpcClient(URL, transport=httpx.MockTransport(self.handle))

    def handle(self, request: httpx.Request) -> httpx.Response:
        call = json.loads(request.content)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            answer["result"] = self.answer(call["method"], call["params"])
        except LookupError as error:
            answer["error"] = {"code": -32603, "message": "Internal error", "data": error.args[0]}
        return httpx.Response(200, json=answer)

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        if method in self.method_errors:
            raise LookupError(self.method_errors[method])
        return getattr(self, f"rpc_{method}")(**params)

    @property
    def height(self) -> int:
        return len(self.blocks)

    def get_powers(self) -> dict[bytes, int]:
        payload = self.state.get(keys.validators())
        assert payload is not None
        return {
            compute_consensus_address(each.consensus_key): each.power
            for each in ValidatorSet.decode(payload).validators
        }

    def make_block(self) -> None:
        """Put all that waits into a block."""
        txs, self.mempool = tuple(self.mempool), []
        plain = make.plain_block(self.height + 1, 1_000 * (self.height + 1))
        outcome = process_block(
            self.state, make.chain_context(), make.block_context(plain), txs, {}
        )
        self.blocks.append((txs, outcome.txs))
        self.versions.append(
            {key: value for key, value in self.state.changes.items() if value is not None}
        )

    def pending(self) -> Overlay:
        """The state once all that waits is in a block."""
        overlay = Overlay(self.state)
        for tx in self.mempool:
            check_tx(overlay, make.chain_context(), tx, 0, {})
        return overlay

    def add(self, raw: bytes) -> tuple[int, str]:
        """What CheckTx says."""
        try:
            tx = authenticate(self.chain_id, raw)
            check_tx(self.pending(), make.chain_context(), tx, 0, {})
        except InvalidTx as error:
            return error.code, str(error)
        self.mempool.append(tx)
        return CODE_OK, ""

    # CometBFT's RPC

    def rpc_status(self) -> Any:
        sync = {
            "latest_block_height": str(self.height),
            "latest_block_time": "2026-11-23T06:21:43Z",
            "catching_up": False,
        }
        return {"node_info": {"network": self.chain_id, "version": "0"}, "sync_info": sync}

    def rpc_genesis_chunked(self, chunk: str) -> Any:
        document = {
            "chain_id": self.chain_id,
            "initial_height": "1",
            "app_state": genesis_to_json(make.genesis()),
        }
        return {"total": "1", "chunk": chunk, "data": encode(json.dumps(document).encode())}

    def rpc_commit(self, height: str) -> Any:
        if int(height) < self.base:
            raise LookupError(f"height {height} is not available, lowest height is {self.base}")
        tree = make_tree(self.versions[int(height) - 2])
        header = {
            "chain_id": self.chain_id,
            "height": height,
            "time": f"2026-11-23T06:21:{int(height):02d}Z",
            "app_hash": compute_app_hash(tree.root, WEIGHTS_ROOT).hex().upper(),
            "proposer_address": "",
        }
        return {"signed_header": {"header": header}}

    def rpc_validators(self, page: str, per_page: str) -> Any:
        del per_page
        validators = [
            {"address": address.hex().upper(), "voting_power": str(power)}
            for address, power in self.voting.items()
        ]
        shown = validators if page == "1" else []
        total = str(len(validators))
        return {"block_height": str(self.height), "validators": shown, "total": total}

    def rpc_abci_query(self, path: str, data: str, prove: bool) -> Any:
        key = bytes.fromhex(data)
        at = self.height - 1 if prove else self.height
        response: dict[str, Any] = {"code": 0, "height": str(at), "key": encode(key)}
        if path == "/account":
            account = self.pending().get(keys.account(make_address(key)))
            return {"response": response | {"value": encode(account or b"")}}
        if path == HOLDINGS_PATH:
            holdings = find_holdings(self.state, make.genesis().params, make_address(key))
            return {"response": response | {"value": encode(holdings.encode())}}
        assert path == "/store/state/key"
        if not prove:
            return {"response": response | {"value": encode(self.state.get(key) or b"")}}
        entries = self.versions[self.height - 2]
        bucket = sorted(item for item in entries.items() if bucket_of(item[0]) == bucket_of(key))
        aunts = make_tree(entries).prove(bucket_of(key))
        ops = prove_state_entry(key, bucket, aunts, WEIGHTS_ROOT)
        listed = [{"type": op.type, "key": encode(op.key), "data": encode(op.data)} for op in ops]
        value = encode_value(entries[key]) if key in entries else b""
        return {"response": response | {"value": encode(value), "proofOps": {"ops": listed}}}

    def rpc_broadcast_tx_sync(self, tx: str) -> Any:
        raw = base64.b64decode(tx)
        if self.before_check:
            self.add(self.before_check.pop(0))
        self.offered.append(authenticate(self.chain_id, raw))
        if any(each.hash == self.offered[-1].hash for each in self.mempool):
            raise LookupError("tx already exists in cache")
        code, log = self.add(raw)
        if self.is_losing_answers:
            raise httpx.ReadTimeout("no answer")
        return {"code": code, "log": log, "hash": self.offered[-1].hash.hex().upper()}

    def rpc_tx(self, hash: str, prove: bool) -> Any:  # noqa: A002 (CometBFT's name)
        assert not prove
        if not self.has_index:
            raise LookupError("transaction indexing is disabled")
        if self.is_quick:
            self.make_block()
        wanted = base64.b64decode(hash)
        for found in self.list_txs():
            if found["hash"] == wanted.hex().upper():
                return drop_events(found)
        raise LookupError(f"tx ({wanted.hex().upper()}) not found, err: %!w(<nil>)")

    def rpc_tx_search(self, query: str, page: str, per_page: str, order_by: str) -> Any:
        assert order_by == "desc"
        kind, name, value = re.fullmatch(r"(\w+)\.(\w+)='(\w+)'", query).groups()  # type: ignore[union-attr]
        found = [
            each
            for each in reversed(self.list_txs())
            if any(
                event.type == kind and (name, value) in event.attributes for event in each["events"]
            )
        ]
        start = (int(page) - 1) * int(per_page)
        shown = [drop_events(each) for each in found[start : start + int(per_page)]]
        return {"txs": shown, "total_count": str(len(found))}

    def list_txs(self) -> list[dict[str, Any]]:
        return [
            {
                "hash": tx.hash.hex().upper(),
                "height": str(number),
                "index": index,
                "tx_result": {"code": 1 if outcome.error else 0},
                "tx": encode(make_raw(tx)),
                "events": outcome.events,
            }
            for number, (txs, outcomes) in enumerate(self.blocks, 1)
            for index, (tx, outcome) in enumerate(zip(txs, outcomes, strict=True))
        ]


def drop_events(found: dict[str, Any]) -> dict[str, Any]:
    """As CometBFT would show it, as far as anybody reads it."""
    return {name: value for name, value in found.items() if name != "events"}


def make_raw(tx: SignedTx) -> bytes:
    return encode_tx(tx.body_bytes, tx.public_key, tx.signature)


def make_address(raw: bytes) -> Address:
    assert len(raw) == 20
    return Address(raw)


def make_tree(entries: dict[bytes, bytes]) -> BucketTree:
    buckets: dict[int, list[tuple[bytes, bytes]]] = {}
    for item in sorted(entries.items()):
        buckets.setdefault(bucket_of(item[0]), []).append(item)
    return BucketTree.from_roots(
        {index: compute_bucket_root(items) for index, items in buckets.items()}
    )


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
