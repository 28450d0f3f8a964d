"""What a store shows after commits, rollbacks and reopening, held against a plain model."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pol_abci.rules.merkle import (
    BUCKETS,
    CHUNK_BYTES,
    EMPTY_ROOT,
    bucket_of,
    compute_app_hash,
    compute_bucket_root,
    compute_leaf,
    compute_root,
    compute_weights_root,
)
from pol_abci.rules.merkle_proofs import verify_chunk, verify_state
from pol_abci.rules.state import Overlay
from pol_abci.store import layout
from pol_abci.store.errors import HeightUnavailable, NoPreviousVersion
from pol_abci.store.store import Store

DIGEST = hashlib.sha256(b"genesis").digest()


def open_store(path: Path, map_bytes: int = 1 << 20) -> Store:
    return Store.open(path, chain_id="test", genesis_digest=DIGEST, map_bytes=map_bytes)


def find_neighbours(count: int) -> list[bytes]:
    """Keys that share one bucket, so that range scans have several entries to keep apart."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = b"account/%d" % number
        if bucket_of(key) >> 8 == 0x42 and (not found or bucket_of(key) == bucket_of(found[0])):
            found.append(key)
        number += 1
    return found


NEIGHBOURS = find_neighbours(3)
KEYS = [*NEIGHBOURS, b"chain", b"head", b"k" * 400]


def compute_naive_app_hash(entries: dict[bytes, bytes], weights: bytes) -> bytes:
    return compute_app_hash_of_items(tuple(sorted(entries.items())), weights)


@cache
def compute_app_hash_of_items(items: tuple[tuple[bytes, bytes], ...], weights: bytes) -> bytes:
    buckets: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, payload in items:
        buckets.setdefault(bucket_of(key), []).append((key, payload))
    empty = compute_leaf(b"", EMPTY_ROOT)
    leaves = [empty] * BUCKETS
    for index, content in buckets.items():
        leaves[index] = compute_leaf(b"", compute_bucket_root(content))
    return compute_app_hash(compute_root(leaves), compute_weights_root(weights))


class StoreAgainstModel(RuleBasedStateMachine):
    """Commits, rollbacks, rewritten records and reopenings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.store = open_store(self.path)
        self.versions: list[tuple[int, dict[bytes, bytes], bytes, dict[int, bytes]]] = []

    @initialize()
    def begin(self) -> None:
        self.versions = [(0, {}, b"", {})]

    @rule(
        changes=st.dictionaries(
            st.sampled_from(KEYS), st.none() | st.binary(max_size=40), max_size=4
        ),
        weights=st.none()
        | st.tuples(st.integers(0, 2), st.integers(1, 40), st.binary(min_size=1, max_size=1)),
        record=st.none() | st.tuples(st.integers(0, 3), st.binary(max_size=8)),
    )
    def commit(
        self,
        changes: dict[bytes, bytes | None],
        weights: tuple[int, int, bytes] | None,
        record: tuple[int, bytes] | None,
    ) -> None:
        height, entries, old_weights, records = self.versions[-1]
        new_weights = old_weights
        if weights is not None:
            whole, rest, byte = weights
            new_weights = b"w" * (whole * CHUNK_BYTES) + byte * rest
        merged = {**entries, **changes}
        new_entries = {key: payload for key, payload in merged.items() if payload is not None}
        pending = self.store.prepare(changes, None if weights is None else new_weights)
        assert pending.app_hash == compute_naive_app_hash(new_entries, new_weights)
        height = height + 1 if height else 7
        self.store.commit(pending, height, record)
        new_records = {**records, **dict([record] if record else [])}
        self.versions = [*self.versions[-1:], (height, new_entries, new_weights, new_records)]

    @rule(generation=st.integers(4, 6), content=st.binary(max_size=8))
    def rewrite_record(self, generation: int, content: bytes) -> None:
        self.store.put_record(generation, content)
        for _, _, _, records in self.versions:
            records[generation] = content

    @precondition(lambda self: len(self.versions) == 2)
    @rule()
    def rollback(self) -> None:
        self.versions.pop()
        assert self.store.rollback() == self.versions[-1][0]

    @precondition(lambda self: len(self.versions) == 1)
    @rule()
    def refuse_second_rollback(self) -> None:
        with pytest.raises(NoPreviousVersion, match=r"no version before|nothing is committed"):
            self.store.rollback()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.path)

    @invariant()
    def shows_the_model(self) -> None:
        if not self.versions:
            return
        height, entries, weights, records = self.versions[-1]
        assert self.store.height == height
        expected = compute_naive_app_hash(entries, weights) if height else b""
        assert self.store.app_hash == expected
        assert self.store.weights() == weights
        assert dict(self.store.records(0, 100)) == records
        state = self.store.state()
        for key in KEYS:
            assert state.get(key) == entries.get(key)
        bucket = bucket_of(NEIGHBOURS[0])
        in_bucket = [(key, entries[key]) for key in sorted(entries) if bucket_of(key) == bucket]
        assert list(state.bucket(bucket)) == in_bucket
        self.store.verify()

    @invariant()
    def proves_both_versions(self) -> None:
        for height, entries, weights, _ in self.versions:
            if not height:
                with pytest.raises(HeightUnavailable):
                    self.store.query_state(b"chain", height)
                continue
            app_hash = compute_naive_app_hash(entries, weights)
            for key in KEYS:
                answer = self.store.query_state(key, height)
                assert answer.payload == entries.get(key)
                verify_state(answer.ops, app_hash, key, entries.get(key))
            chunks = -(-len(weights) // CHUNK_BYTES)
            for index in range(chunks):
                answer = self.store.query_chunk(index, height)
                assert answer.payload == weights[index * CHUNK_BYTES :][:CHUNK_BYTES]
                verify_chunk(answer.ops, app_hash, index, answer.payload)
            assert self.store.query_chunk(chunks, height).payload is None

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.path)


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=8, stateful_step_count=12, deadline=None, derandomize=True
)


def test_state_taken_before_a_commit_shows_what_it_showed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(store.prepare({b"a": b"1", b"b": b"1"}, None), 1, None)
    before = store.state()
    check_tx = Overlay(before)
    check_tx.set(b"c", b"mine")
    store.commit(store.prepare({b"a": b"2", b"b": None, b"d": b"2"}, None), 2, None)

    assert [before.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"1", b"1", None, None]
    assert [check_tx.get(key) for key in (b"a", b"c")] == [b"1", b"mine"]
    assert list(before.bucket(bucket_of(b"b"))) == [(b"b", b"1")]
    assert list(before.bucket(bucket_of(b"d"))) == []
    assert store.state().get(b"a") == b"2"

    store.commit(store.prepare({}, None), 3, None)
    with pytest.raises(RuntimeError, match="take a new one"):
        before.get(b"a")


def test_state_taken_before_a_rollback_is_refused_after_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(store.prepare({b"a": b"1"}, None), 1, None)
    store.commit(store.prepare({b"a": b"2"}, None), 2, None)
    undone = store.state()
    store.rollback()
    store.commit(store.prepare({b"a": b"3"}, None), 2, None)

    with pytest.raises(RuntimeError, match="take a new one"):
        undone.get(b"a")


def test_only_a_version_prepared_from_the_newest_can_be_committed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    stale = store.prepare({b"a": b"1"}, None)
    store.commit(store.prepare({b"a": b"2"}, None), 1, None)

    with pytest.raises(ValueError, match="another version"):
        store.commit(stale, 2, None)
    with pytest.raises(ValueError, match="height 3 does not follow 1"):
        store.commit(store.prepare({b"a": b"3"}, None), 3, None)
    assert store.state().get(b"a") == b"2"


def test_preparing_writes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.prepare({b"a": b"1"}, b"weights")
    store.close()

    again = open_store(tmp_path)
    assert (again.height, again.app_hash, again.weights()) == (0, b"", b"")
    assert again.state().get(b"a") is None


def test_a_key_too_long_for_the_file_is_a_bug_to_write_and_absent_to_ask(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    key = b"k" * 600
    with pytest.raises(ValueError, match="not 600"):
        store.prepare({key: b"1"}, None)
    store.commit(store.prepare({b"a": b"1"}, None), 1, None)

    for asked in (key, b""):
        assert store.state().get(asked) is None
        answer = store.query_state(asked, 1)
        assert answer.payload is None
        verify_state(answer.ops, store.app_hash, asked, None)


def test_other_heights_are_refused_with_those_that_can_be_asked(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(HeightUnavailable, match="none"):
        store.query_state(b"a", 0)
    for height in (5, 6, 7):
        store.commit(store.prepare({b"a": b"%d" % height}, b"w"), height, None)
    for height in (0, 5, 8):
        with pytest.raises(HeightUnavailable, match="7 and 6"):
            store.query_state(b"a", height)
        with pytest.raises(HeightUnavailable, match="7 and 6"):
            store.query_chunk(0, height)


def test_the_map_grows_within_a_commit_and_when_opened_again(tmp_path: Path) -> None:
    weights = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(100_000))
    store = open_store(tmp_path, map_bytes=256 * 1024)
    store.commit(store.prepare({b"a": b"1"}, weights), 1, (1, b"first"))
    store.commit(store.prepare({b"a": b"2"}, weights[::-1]), 2, None)
    store.close()

    again = open_store(tmp_path, map_bytes=256 * 1024)
    assert again.weights() == weights[::-1]
    again.commit(again.prepare({b"a": b"3"}, weights), 3, None)
    assert again.state().get(b"a") == b"3"
    assert again.get_record(1) == b"first"


def test_superseded_chunks_do_not_pile_up(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sizes = []
    for height in range(1, 25):
        weights = b"%08d" % height * (8 * CHUNK_BYTES // 8)
        store.commit(store.prepare({}, weights), height, None)
        sizes.append((tmp_path / "data.mdb").stat().st_size)
    assert sizes[-1] == sizes[8]


def test_chunks_of_a_commit_that_was_rolled_back_are_deleted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit(store.prepare({}, b"first"), 1, None)
    store.commit(store.prepare({}, b"second" * CHUNK_BYTES), 2, None)
    store.rollback()

    with store._environment.read() as transaction:
        assert [chunk for _, chunk in transaction.iterate(layout.CHUNKS)] == [b"first"]


def test_history_is_read_in_order_from_a_generation_on(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for generation in (1, 2, 256, 257):
        store.put_record(generation, b"%d" % generation)

    assert store.records(2, 2) == [(2, b"2"), (256, b"256")]
    assert store.records(300, 2) == []
    store.put_record(2, b"with accuracy")
    assert store.get_record(2) == b"with accuracy"
    assert store.get_record(3) is None
