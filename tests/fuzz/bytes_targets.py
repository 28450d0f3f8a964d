"""What reads bytes: framing, ABCI requests, transactions, records, proofs, genesis."""

from __future__ import annotations

import hashlib
import json
import zlib

from google.protobuf.message import DecodeError

from pol_abci.abci.framing import FrameReader, FramingError, encode_frame
from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.abci.generated.crypto import proof_pb2
from pol_abci.abci.server import UnknownRequest, decode_request
from pol_abci.rules import codec, keys
from pol_abci.rules.address import ADDRESS_BYTES, PUBLIC_KEY_BYTES
from pol_abci.rules.errors import GenesisError, InvalidTx, MalformedRecord
from pol_abci.rules.genesis import decode_genesis, genesis_to_json, parse_genesis
from pol_abci.rules.merkle import (
    CHUNK_BYTES,
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_bucket_root,
    compute_chunk_hashes,
    compute_weights_root,
)
from pol_abci.rules.merkle_proofs import (
    InvalidProof,
    ProofOp,
    prove_state_entry,
    prove_weights_chunk,
    verify_chunk,
    verify_state,
)
from pol_abci.rules.signing import authenticate, sign_body
from pol_abci.store.errors import WrongSnapshot
from pol_abci.store.layout import Commit, encode_state_key
from pol_abci.store.snapshot_format import ContentReader, Metadata, encode_content
from tests.fuzz.loop import Target, describe_refusal
from tests.fuzz.mutate import mutate_json
from tests.unit.rules import build_chain as make

MAX_FRAME_BYTES = 300
SEED, PUBLIC_KEY = make.account_seed("alice"), make.public_key("alice")
RECORDS = (
    codec.Chain, codec.Head, codec.Account, codec.ValidatorOwner, codec.Reward, codec.Supply,
    codec.Ring, codec.Liveness, codec.ValidatorSet, codec.GenerationRecord,
)  # fmt: skip


PLAIN_TXS = (
    make.transfer("alice", 1, "bob", 7),
    make.transfer("carol", 2**64 - 1, "dave", 2**64 - 1, 2**64 - 1),
    make.register("carol", 1),
    make.unjail("bob", 3),
    make.proof("alice", 0, 5),
    make.proof("bob", 2**40, 2**64 - 1, steps=1),
)
SIGNED = tuple(make.encode_plain(tx) for tx in PLAIN_TXS)
BODIES = tuple(codec.decode_tx(raw).body_bytes for raw in SIGNED)

STATE = make.first_state()
HELD_KEY, NO_KEY = keys.head(), keys.account(make.address("nobody"))
HELD = STATE.get(HELD_KEY)
WEIGHTS = bytes(range(256)) * 600
CHUNK = WEIGHTS[CHUNK_BYTES : 2 * CHUNK_BYTES]
TREE = BucketTree.from_roots(
    {bucket_of(key): compute_bucket_root(STATE.bucket(bucket_of(key))) for key in STATE.changes}
)
WEIGHTS_ROOT = compute_weights_root(WEIGHTS)
APP_HASH = compute_app_hash(TREE.root, WEIGHTS_ROOT)


ENTRIES = [
    (key, payload)
    for key, payload in sorted(STATE.changes.items(), key=lambda item: encode_state_key(item[0]))
    if payload is not None
]


def run_framing(data: bytes) -> str:
    """However the stream is cut, the same frames and the same fault."""
    whole, fault = _read_frames([data])
    step = 1 + len(data) * (zlib.crc32(data) % 8) // 16
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert _read_frames(pieces) == (whole, fault)
    assert sum(map(len, whole)) <= len(data)
    assert not whole or max(map(len, whole)) <= MAX_FRAME_BYTES
    joined = b"".join(encode_frame(frame) for frame in whole)
    assert _read_frames([joined]) == (whole, "")
    return f"ok {min(len(whole), 8)}" if not fault else f"refused {fault[-40:]}"


def _read_frames(pieces: list[bytes]) -> tuple[list[bytes], str]:
    reader, frames = FrameReader(MAX_FRAME_BYTES), []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
        except FramingError as error:
            return frames, str(error)
    return frames, ""


def run_request(data: bytes) -> str:
    """An ABCI request, or UnknownRequest."""
    try:
        kind, message = decode_request(data)
    except UnknownRequest as error:
        return describe_refusal(error)
    assert message.SerializeToString() is not None
    return f"ok {kind}"


def run_decode(data: bytes) -> str:
    """A transaction has one encoding, and hash and address are those of its bytes."""
    try:
        tx = codec.decode_tx(data)
    except InvalidTx as error:
        return describe_refusal(error)
    assert codec.encode_tx(tx.body_bytes, tx.public_key, tx.signature) == data
    assert codec.encode_body(tx.sequence, tx.fee, tx.message) == tx.body_bytes
    assert tx.hash == hashlib.sha256(data).digest()
    assert tx.address == hashlib.sha256(tx.public_key).digest()[:20]
    return f"ok {type(tx.message).__name__}"


def run_authenticate(data: bytes) -> str:
    """Bytes that are not ones that were signed here are nobody's."""
    try:
        tx = authenticate(make.CHAIN_ID, data)
    except InvalidTx as error:
        return describe_refusal(error)
    assert data in SIGNED, "a signature was made by change"
    return f"ok {type(tx.message).__name__}"


def run_signed_body(data: bytes) -> str:
    """Whatever a sender signs: taken if it is canonical, else refused in words."""
    raw = codec.encode_tx(data, PUBLIC_KEY, sign_body(SEED, make.CHAIN_ID, data))
    try:
        tx = authenticate(make.CHAIN_ID, raw)
    except InvalidTx as error:
        return describe_refusal(error)
    assert codec.encode_body(tx.sequence, tx.fee, tx.message) == data
    match tx.message:
        case codec.Transfer(recipient):
            assert len(recipient) == ADDRESS_BYTES
        case codec.RegisterValidator(key, possession):
            assert (len(key), len(possession)) == (PUBLIC_KEY_BYTES, codec.SIGNATURE_BYTES)
        case codec.ProofMessage(claim):
            assert len(claim.weights_root) == codec.ROOT_BYTES
    return f"ok {type(tx.message).__name__}"


def run_record(data: bytes) -> str:
    """Each record of the state: read, and the same after another writing; or MalformedRecord."""
    taken = 0
    for kind in RECORDS:
        try:
            record = kind.decode(data)
        except MalformedRecord:
            continue
        assert kind.decode(record.encode()) == record
        taken += 1
    commit = Commit.decode(data)
    assert commit is None or commit.encode() == data
    return f"ok {taken}" if taken else "refused"


def run_state_proof(data: bytes) -> str:
    """A proof that is believed proves what is true."""
    ops, truths = _decode_ops(data), {HELD_KEY: HELD, NO_KEY: None}
    outcome = ""
    for key, payload in ((HELD_KEY, HELD), (HELD_KEY, None), (NO_KEY, None), (NO_KEY, b"lie")):
        try:
            verify_state(ops, APP_HASH, key, payload)
        except InvalidProof as error:
            outcome = outcome or describe_refusal(error)
        else:
            assert payload == truths[key], "a lie was proven"
            outcome = "ok"
    return outcome


def run_chunk_proof(data: bytes) -> str:
    """Likewise of the weights."""
    ops = _decode_ops(data)
    outcome = ""
    for index, chunk in ((1, CHUNK), (1, b"lie"), (0, CHUNK)):
        try:
            verify_chunk(ops, APP_HASH, index, chunk)
        except InvalidProof as error:
            outcome = outcome or describe_refusal(error)
        else:
            assert (index, chunk) == (1, CHUNK), "a lie was proven"
            outcome = "ok"
    return outcome


def _decode_ops(data: bytes) -> list[ProofOp]:
    try:
        message = proof_pb2.ProofOps.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        return []
    return [ProofOp(type=op.type, key=op.key, data=op.data) for op in message.ops]


def _encode_ops(ops: list[ProofOp]) -> bytes:
    encoded = [proof_pb2.ProofOp(type=op.type, key=op.key, data=op.data) for op in ops]
    return proof_pb2.ProofOps(ops=encoded).SerializeToString()


def run_snapshot(data: bytes) -> str:
    """A content is read to its end and is the same after another writing, or WrongSnapshot."""
    step = 1 + zlib.crc32(data) % 50
    reader = ContentReader(data[start : start + step] for start in range(0, len(data), step))
    try:
        entries = [(key, payload) for _, key, payload in reader.read_entries()]
    except WrongSnapshot as error:
        return describe_refusal(error)
    assert b"".join(encode_content(entries, reader.read_weights(100))) == data
    return f"ok {min(len(entries), 8)}"


def run_snapshot_metadata(data: bytes) -> str:
    """Metadata have one encoding, or WrongSnapshot."""
    try:
        metadata = Metadata.decode(data)
    except WrongSnapshot as error:
        return describe_refusal(error)
    assert metadata.encode() == data
    assert metadata.hash == hashlib.sha256(data).digest()
    return f"ok {len(metadata.chunk_hashes)}"


def run_genesis(data: bytes) -> str:
    """A genesis that is the same after another writing, or GenesisError."""
    try:
        genesis = decode_genesis(data)
    except GenesisError as error:
        return describe_refusal(error)
    assert parse_genesis(genesis_to_json(genesis)) == genesis
    return "ok"


def _prove(key: bytes) -> bytes:
    index = bucket_of(key)
    return _encode_ops(prove_state_entry(key, STATE.bucket(index), TREE.prove(index), WEIGHTS_ROOT))


REQUESTS = (
    abci.Request(flush=abci.RequestFlush()),
    abci.Request(check_tx=abci.RequestCheckTx(tx=SIGNED[0], type=abci.RECHECK)),
    abci.Request(query=abci.RequestQuery(path=b"/status", height=3, prove=True)),
    abci.Request(finalize_block=abci.RequestFinalizeBlock(txs=SIGNED, height=9)),
    abci.Request(init_chain=abci.RequestInitChain(chain_id="c", app_state_bytes=b"{}")),
)
ENCODED_REQUESTS = tuple(request.SerializeToString() for request in REQUESTS)
BYTES_TARGETS = (
    Target(
        name="framing",
        share=0.21,
        seeds=[b"".join(map(encode_frame, ENCODED_REQUESTS)), encode_frame(bytes(290))],
        run=run_framing,
    ),
    Target(name="abci requests", share=0.1, seeds=ENCODED_REQUESTS, run=run_request),
    Target(name="transactions", share=0.25, seeds=SIGNED, run=run_decode),
    Target(name="signatures", share=0.05, seeds=SIGNED, run=run_authenticate),
    Target(name="signed bodies", share=0.1, seeds=BODIES, run=run_signed_body),
    Target(
        name="records",
        share=0.05,
        seeds=[payload for payload in STATE.changes.values() if payload],
        run=run_record,
    ),
    Target(name="state proofs", share=0.05, seeds=[_prove(HELD_KEY)], run=run_state_proof),
    Target(
        name="absence proofs",
        share=0.03,
        seeds=[_prove(NO_KEY), _prove(HELD_KEY)],
        run=run_state_proof,
    ),
    Target(
        name="weights proofs",
        share=0.02,
        seeds=[_encode_ops(prove_weights_chunk(1, compute_chunk_hashes(WEIGHTS), TREE.root))],
        run=run_chunk_proof,
    ),
    Target(
        name="snapshots",
        share=0.03,
        seeds=[b"".join(encode_content(ENTRIES, [WEIGHTS[:300]]))],
        run=run_snapshot,
    ),
    Target(
        name="snapshot metadata",
        share=0.01,
        seeds=[Metadata(bytes(32), (bytes(32),) * count).encode() for count in (1, 3)],
        run=run_snapshot_metadata,
    ),
    Target(
        name="genesis",
        share=0.01,
        seeds=[json.dumps(make.genesis_json()).encode()],
        run=run_genesis,
        mutate=mutate_json,
    ),
)
