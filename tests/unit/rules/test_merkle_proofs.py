"""Whoever holds the right app hash cannot be made to believe anything else."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.merkle import (
    EMPTY_ROOT,
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_bucket_leaves,
    compute_bucket_root,
    compute_chunk_hashes,
    compute_leaf,
    compute_weights_root,
    encode_chunk_key,
    hash_leaf,
)
from pol_abci.rules.merkle_proofs import (
    InvalidProof,
    ProofOp,
    _decode_op,
    _encode_op,
    _Membership,
    prove_state_entry,
    prove_weights_chunk,
    verify_chunk,
    verify_state,
)

KEY = b"account/1"
BUCKET = bucket_of(KEY)


def find_keys_beside(key: bytes, number: int) -> list[bytes]:
    keys = (b"beside/%d" % i for i in count())
    return list(islice((found for found in keys if bucket_of(found) == bucket_of(key)), number))


*BESIDE, ABSENT = find_keys_beside(KEY, 5)
ENTRIES = sorted([(KEY, b"payload"), *((key, b"other " + key) for key in BESIDE)])
LONELY = next(b"lonely/%d" % i for i in count() if bucket_of(b"lonely/%d" % i) != BUCKET)
WEIGHTS = bytes(range(256)) * 900
CHUNKS = [WEIGHTS[i : i + 65_536] for i in range(0, len(WEIGHTS), 65_536)]
CHUNK_HASHES = compute_chunk_hashes(WEIGHTS)
WEIGHTS_ROOT = compute_weights_root(WEIGHTS)
TREE = BucketTree.from_roots({BUCKET: compute_bucket_root(ENTRIES), 9: hash_leaf(b"")})
APP_HASH = compute_app_hash(TREE.root, WEIGHTS_ROOT)


def prove(key: bytes) -> list[ProofOp]:
    entries = ENTRIES if bucket_of(key) == BUCKET else []
    return prove_state_entry(key, entries, TREE.prove(bucket_of(key)), WEIGHTS_ROOT)


@pytest.mark.parametrize(("key", "payload"), ENTRIES)
def test_every_entry_is_proven(key: bytes, payload: bytes) -> None:
    verify_state(prove(key), APP_HASH, key, payload)


@pytest.mark.parametrize("key", [ABSENT, LONELY])
def test_absence_is_proven_in_full_and_empty_buckets(key: bytes) -> None:
    verify_state(prove(key), APP_HASH, key, None)


@pytest.mark.parametrize("index", range(len(CHUNKS)))
def test_every_chunk_is_proven(index: int) -> None:
    ops = prove_weights_chunk(index, CHUNK_HASHES, TREE.root)
    verify_chunk(ops, APP_HASH, index, CHUNKS[index])


@pytest.mark.parametrize("payload", [None, b"", b"payloae", b"\x01payload"])
def test_proof_of_a_payload_proves_no_other_and_no_absence(payload: bytes | None) -> None:
    with pytest.raises(InvalidProof):
        verify_state(prove(KEY), APP_HASH, KEY, payload)


def test_proof_of_absence_proves_no_payload() -> None:
    for payload in (b"", b"payload"):
        with pytest.raises(InvalidProof, match="not of a value"):
            verify_state(prove(ABSENT), APP_HASH, ABSENT, payload)


def test_proof_is_of_the_key_asked_for() -> None:
    other = ENTRIES[0][0] if ENTRIES[0][0] != KEY else ENTRIES[1][0]
    for key, payload in ((other, b"payload"), (LONELY, b"payload"), (LONELY, None)):
        with pytest.raises(InvalidProof, match="another key"):
            verify_state(prove(KEY), APP_HASH, key, payload)


def test_absence_is_of_the_bucket_that_would_hold_the_key() -> None:
    # The bucket of LONELY is empty and so holds no KEY: true, and no proof that KEY is absent.
    _, bucket, store = prove(LONELY)
    with pytest.raises(InvalidProof, match="another place"):
        verify_state([ProofOp("pol:absent", KEY, b""), bucket, store], APP_HASH, KEY, None)


def test_absence_cannot_be_claimed_by_leaving_the_entry_out() -> None:
    _, bucket, store = prove(KEY)
    for left_out in range(len(ENTRIES) + 1):
        leaves = compute_bucket_leaves(ENTRIES)
        kept = b"".join(leaves[:left_out] + leaves[left_out + 1 :])
        with pytest.raises(InvalidProof):
            verify_state([ProofOp("pol:absent", KEY, kept), bucket, store], APP_HASH, KEY, None)


def test_absence_cannot_be_claimed_by_splitting_leaves_elsewhere() -> None:
    # A longer first key that swallows the rest of the bucket is another leaf, hence another root.
    _, bucket, store = prove(KEY)
    data = b"".join(compute_bucket_leaves(ENTRIES))
    for length in range(len(data) - 33):
        forged = bytes([length % 128 | 128, length // 128]) + data[: length + 33]
        with pytest.raises(InvalidProof):
            verify_state([ProofOp("pol:absent", KEY, forged), bucket, store], APP_HASH, KEY, None)


def tamper(op: ProofOp) -> list[ProofOp]:
    data = [
        replace(op, data=op.data[:i] + bytes([op.data[i] ^ bit]) + op.data[i + 1 :])
        for i in range(len(op.data))
        for bit in (1, 128)
    ]
    keys = [
        replace(op, key=op.key[:i] + bytes([op.key[i] ^ 1]) + op.key[i + 1 :])
        for i in range(len(op.key))
    ]
    others = [
        replace(op, data=op.data + b"\x00"),
        replace(op, data=op.data + op.data[-34:] + b"\x22"),
        replace(op, key=op.key + b"\x00"),
        replace(op, type=op.type + " "),
        replace(op, type="pol:absent" if op.type == "simple:v" else "simple:v"),
    ]
    shorter = [replace(op, data=op.data[:size]) for size in range(len(op.data))]
    return [*data, *keys, *others, *shorter]


@pytest.mark.parametrize(("key", "payload"), [(KEY, b"payload"), (ABSENT, None), (LONELY, None)])
def test_any_tampered_byte_of_a_state_proof_is_refused(key: bytes, payload: bytes | None) -> None:
    ops = prove(key)
    for level, op in enumerate(ops):
        for tampered in tamper(op):
            with pytest.raises(InvalidProof):
                verify_state([*ops[:level], tampered, *ops[level + 1 :]], APP_HASH, key, payload)


def test_any_tampered_byte_of_a_weights_proof_is_refused() -> None:
    ops = prove_weights_chunk(1, CHUNK_HASHES, TREE.root)
    for level, op in enumerate(ops):
        for tampered in tamper(op):
            with pytest.raises(InvalidProof):
                verify_chunk([*ops[:level], tampered, *ops[level + 1 :]], APP_HASH, 1, CHUNKS[1])


@pytest.mark.parametrize("total", [3, 5, 6, 7, 8, 100, 2**62])
def test_no_total_makes_another_payload_true(total: int) -> None:
    # `total` is covered by no hash: whatever it says, only what is in the bucket is proven.
    entry, bucket, store = prove(KEY)
    proof = _decode_op(entry)
    for index in range(8):
        forged = _encode_op(KEY, replace(proof, total=total, index=index))
        with pytest.raises(InvalidProof):
            verify_state([forged, bucket, store], APP_HASH, KEY, b"forged")


def test_one_proof_has_one_form() -> None:
    entries = [(LONELY, b"payload")]
    index = bucket_of(LONELY)
    tree = BucketTree.from_roots({index: compute_bucket_root(entries)})
    app_hash = compute_app_hash(tree.root, WEIGHTS_ROOT)
    entry, bucket, store = prove_state_entry(LONELY, entries, tree.prove(index), WEIGHTS_ROOT)
    verify_state([entry, bucket, store], app_hash, LONELY, b"payload")
    only, one_of_many = _decode_op(entry), _decode_op(bucket)
    for proof in (
        replace(only, total=0),
        replace(only, index=1),
        replace(only, aunts=(bytes(32),)),
    ):
        forged = [_encode_op(LONELY, proof), bucket, store]
        with pytest.raises(InvalidProof):
            verify_state(forged, app_hash, LONELY, b"payload")
    for proof in (
        replace(one_of_many, total=65_535),
        replace(one_of_many, index=index ^ 1),
        replace(one_of_many, aunts=one_of_many.aunts[:-1]),
    ):
        with pytest.raises(InvalidProof):
            verify_state([entry, _encode_op(b"", proof), store], app_hash, LONELY, b"payload")


@pytest.mark.parametrize("byte", range(32))
def test_app_hash_is_compared_in_full(byte: int) -> None:
    wrong = bytes(b ^ (i == byte) for i, b in enumerate(APP_HASH))
    with pytest.raises(InvalidProof, match="trusted header"):
        verify_state(prove(KEY), wrong, KEY, b"payload")
    ops = prove_weights_chunk(0, CHUNK_HASHES, TREE.root)
    with pytest.raises(InvalidProof, match="trusted header"):
        verify_chunk(ops, wrong, 0, CHUNKS[0])


def test_levels_left_out_or_added_are_refused() -> None:
    entry, bucket, store = prove(KEY)
    lists: tuple[list[ProofOp], ...] = (
        [],
        [entry],
        [bucket, store],
        [entry, bucket, store, store],
        [store, bucket, entry],
    )
    for ops in lists:
        with pytest.raises(InvalidProof):
            verify_state(ops, APP_HASH, KEY, b"payload")
        with pytest.raises(InvalidProof):
            verify_chunk(ops, APP_HASH, 0, CHUNKS[0])


def test_value_cannot_pose_as_root_of_a_subtree() -> None:
    # The attacker's account holds a payload that is the root of a bucket of its own making, in
    # which KEY holds more. Its stored form has another length, so the chain of ops breaks.
    forged_root = compute_bucket_root([(KEY, b"a million")])
    holder = ENTRIES[0][0]
    for payload in (forged_root, forged_root[1:]):
        entries = [(holder, payload)]
        tree = BucketTree.from_roots({BUCKET: compute_bucket_root(entries)})
        app_hash = compute_app_hash(tree.root, WEIGHTS_ROOT)
        ops = prove_state_entry(holder, entries, tree.prove(BUCKET), WEIGHTS_ROOT)
        verify_state(ops, app_hash, holder, payload)
        leaf = hash_leaf(compute_leaf(KEY, b"\x01a million"))
        posed = _encode_op(KEY, _Membership(1, 0, leaf, ()))
        for forged in ([posed, *ops], [posed, *ops[1:]]):
            with pytest.raises(InvalidProof):
                verify_state(forged, app_hash, KEY, b"a million")


def test_state_entry_cannot_pose_as_weights_chunk() -> None:
    # A state key may be any bytes, a chunk's key too: what tells them apart is the store.
    key = encode_chunk_key(0)
    entries = [(key, CHUNKS[0])]
    tree = BucketTree.from_roots({bucket_of(key): compute_bucket_root(entries)})
    app_hash = compute_app_hash(tree.root, WEIGHTS_ROOT)
    ops = prove_state_entry(key, entries, tree.prove(bucket_of(key)), WEIGHTS_ROOT)
    with pytest.raises(InvalidProof):
        verify_chunk([ops[0], ops[2]], app_hash, 0, CHUNKS[0])


@given(st.binary(max_size=200))
def test_any_bytes_as_data_are_refused_in_words(data: bytes) -> None:
    entry, bucket, store = prove(KEY)
    for ops in (
        [replace(entry, data=data), bucket, store],
        [entry, replace(bucket, data=data), store],
        [entry, bucket, replace(store, data=data)],
    ):
        with pytest.raises(InvalidProof):
            verify_state(ops, APP_HASH, KEY, b"payload")
    with pytest.raises(InvalidProof):
        verify_state([ProofOp("pol:absent", ABSENT, data), bucket, store], APP_HASH, ABSENT, None)


def test_empty_tree_proves_absence_of_everything() -> None:
    tree = BucketTree()
    app_hash = compute_app_hash(tree.root, EMPTY_ROOT)
    ops = prove_state_entry(KEY, [], tree.prove(BUCKET), EMPTY_ROOT)
    verify_state(ops, app_hash, KEY, None)
