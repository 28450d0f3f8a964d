"""A snapshot is the same bytes on every node, and takes nothing but its chain's state elsewhere."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.seed import compute_first_seed
from pol_abci.store import layout
from pol_abci.store.environment import DATA_FILE
from pol_abci.store.errors import DamagedStore, NoPreviousVersion, WrongSnapshot
from pol_abci.store.snapshot_format import (
    MAX_SNAPSHOT_CHUNKS,
    SNAPSHOT_CHUNK_BYTES,
    ContentReader,
    Metadata,
    cut_chunks,
    encode_content,
)
from pol_abci.store.snapshots import METADATA_FILE, SnapshotFolder, write_snapshot
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIGEST = hashlib.sha256(b"genesis").digest()
SMALL_MAP = 1 << 20
ENTRIES = {b"account/%d" % number: b"%d coins" % number for number in range(300)}
WEIGHTS = random.Random(1).randbytes(5 * 2**20 + 77)
Entries = st.dictionaries(st.binary(min_size=1, max_size=508), st.binary(max_size=40), max_size=9)

RESTORER = """
import sys
from pathlib import Path
from pol_abci.store.snapshots import SnapshotFolder
from pol_abci.store.store import Store

source, target, digest, app_hash = sys.argv[1:]
folder = SnapshotFolder(Path(source))
store = Store.open(Path(target), chain_id="test", genesis_digest=bytes.fromhex(digest))
count = len(folder.read_metadata(3).chunk_hashes)
print("begins", flush=True)
store.restore(
    3, bytes.fromhex(app_hash), lambda: (folder.read_chunk(3, index) for index in range(count))
)
print("stands", flush=True)
"""


def open_store(path: Path, map_bytes: int = SMALL_MAP) -> Store:
    return Store.open(path, chain_id="test", genesis_digest=DIGEST, map_bytes=map_bytes)


def commit(
    store: Store, changes: Mapping[bytes, bytes | None], weights: bytes | None = None
) -> None:
    record = (store.height + 1, b"record") if weights is not None else None
    store.commit(store.prepare(changes, weights), store.height + 1, record)


def take(store: Store) -> tuple[Metadata, list[bytes]]:
    """The snapshot of a store's newest version."""
    folder = SnapshotFolder(store.directory / "snapshots")
    folder.clean(store.height)
    copy = folder.get_copy_path(store.height)
    assert store.begin_copy().write(copy)
    metadata = write_snapshot(copy, folder.get_path(store.height))
    copy.unlink()
    assert folder.read_metadata(store.height) == metadata
    count = len(metadata.chunk_hashes)
    return metadata, [folder.read_chunk(store.height, index) for index in range(count)]


def fill(store: Store) -> None:
    """Three commits, the last of height 3."""
    commit(store, dict(list(ENTRIES.items())[:200]) | {b"gone": b"soon"}, WEIGHTS[:100_000])
    commit(store, {b"gone": None}, WEIGHTS)
    commit(store, dict(list(ENTRIES.items())[200:]))


def test_a_restored_store_is_that_of_the_snapshot_and_goes_on(tmp_path: Path) -> None:
    source, target = open_store(tmp_path / "source"), open_store(tmp_path / "target")
    fill(source)
    metadata, chunks = take(source)
    assert metadata.first_seed == compute_first_seed("test", DIGEST)
    assert [len(chunk) for chunk in chunks[:-1]] == [SNAPSHOT_CHUNK_BYTES] * 2
    target.restore(3, source.app_hash, lambda: chunks)
    for _ in range(2):
        assert (target.height, target.app_hash) == (3, source.app_hash)
        assert target.weights() == WEIGHTS
        state = target.state()
        assert {key: state.get(key) for key in [*ENTRIES, b"gone"]} == ENTRIES | {b"gone": None}
        target.verify()
        assert target.records(0, 10) == []  # a history is no part of a snapshot
        with pytest.raises(NoPreviousVersion):
            target.rollback()
        assert target.query_state(b"account/7", 3) == source.query_state(b"account/7", 3)
        assert take(target) == (metadata, chunks)
        target.close()
        target = open_store(tmp_path / "target")
        SnapshotFolder(target.directory / "snapshots").keep_newest(0)
    for store in (source, target):
        commit(store, {b"account/3": b"spent"}, WEIGHTS[::-1])
    assert target.app_hash == source.app_hash
    assert target.rollback() == 3


def test_the_bytes_do_not_depend_on_how_a_node_came_there(tmp_path: Path) -> None:
    source = open_store(tmp_path / "source")
    fill(source)
    snapshot = take(source)
    other = open_store(tmp_path / "other")
    shuffled = list(ENTRIES.items())
    random.Random(2).shuffle(shuffled)
    commit(other, dict(shuffled))
    other.close()
    other = open_store(tmp_path / "other")
    commit(other, {b"more": b"more"}, WEIGHTS)
    commit(other, {b"more": None, b"account/5": b"wrong"}, WEIGHTS[::-1])
    other.rollback()
    commit(other, {b"more": None})
    assert take(other) == snapshot


def test_a_copy_is_of_the_version_at_which_it_was_begun(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", 8 * len(WEIGHTS))
    fill(store)
    app_hash = store.app_hash
    copy, path = store.begin_copy(), tmp_path / "copy.mdb"
    commit(store, {b"account/3": b"later"}, WEIGHTS[::-1])
    writing = threading.Thread(target=copy.write, args=(path,))
    writing.start()
    while not path.exists():
        time.sleep(0.001)
    # Beyond the map, which cannot grow while the copy reads it.
    commit(store, {}, WEIGHTS * 8)
    writing.join()
    write_snapshot(path, tmp_path / "3")
    target = open_store(tmp_path / "target")
    folder = SnapshotFolder(tmp_path)
    target.restore(3, app_hash, lambda: [folder.read_chunk(3, index) for index in range(3)])
    assert target.weights() == WEIGHTS
    assert target.state().get(b"account/3") == b"3 coins"


def test_a_copy_that_is_only_begun_is_given_up(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    fill(store)
    copies = [store.begin_copy() for _ in range(2)]
    assert not copies[0].write(tmp_path / "first")
    store.close()
    assert not copies[1].write(tmp_path / "second")
    assert not list(tmp_path.glob("*o*d"))


def test_a_damaged_copy_makes_no_snapshot(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    fill(store)
    copy = tmp_path / "copy.mdb"
    store.begin_copy().write(copy)
    data = copy.read_bytes()
    for found in (b"77 coins", WEIGHTS[-500:-400]):
        copy.write_bytes(data.replace(found, bytes(len(found))))
        with pytest.raises(DamagedStore):
            write_snapshot(copy, tmp_path / found.hex()[:16])
        assert not (tmp_path / found.hex()[:16]).exists()


def test_nothing_of_a_wrong_snapshot_reaches_the_store(tmp_path: Path) -> None:
    source, target = open_store(tmp_path / "source"), open_store(tmp_path / "target")
    fill(source)
    _, chunks = take(source)
    content = b"".join(chunks)
    data_file = tmp_path / "target" / DATA_FILE
    state_bytes = len(content) - len(WEIGHTS)
    places = [0, 1, 2, 20, state_bytes - 1, state_bytes, state_bytes + 65_536, len(content) - 1]
    wrong = [
        content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places
    ]
    wrong += [b"", content[:-1], content + b"\0", content[: state_bytes - 1], content[:9], b"\0\0"]
    for each in wrong:
        with pytest.raises(WrongSnapshot):
            target.restore(3, source.app_hash, lambda each=each: cut_chunks([each]))  # type: ignore[misc]  # mypy has no type for a lambda's default
        assert (target.height, target.app_hash, target.weights()) == (0, b"", b"")
    with pytest.raises(WrongSnapshot, match="the chain has"):
        target.restore(3, hashlib.sha256(b"other").digest(), lambda: chunks)
    target.close()
    open_store(tmp_path / "target").close()
    assert data_file.exists()


def test_a_process_killed_while_it_restores_leaves_nothing_or_all(tmp_path: Path) -> None:
    source = open_store(tmp_path / "source")
    fill(source)
    take(source)
    folder, target = tmp_path / "source" / "snapshots", tmp_path / "target"
    arguments = [str(folder), str(target), DIGEST.hex(), source.app_hash.hex()]
    command = [sys.executable, "-c", RESTORER, *arguments]
    choose = random.Random(3)
    for _ in range(10):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            time.sleep(choose.random() * 0.1)
            process.kill()
            stands = process.stdout.read() == "stands\n"
        store = open_store(target)
        assert store.height in ({3} if stands else {0, 3})
        if store.height:
            store.verify()
            assert store.weights() == WEIGHTS
        store.close()
        shutil.rmtree(target)


def test_a_store_with_a_past_becomes_the_snapshots(tmp_path: Path) -> None:
    source, target = open_store(tmp_path / "source"), open_store(tmp_path / "target")
    fill(source)
    commit(target, {b"account/1": b"of old", b"of": b"old"}, WEIGHTS[:5_000])
    commit(target, {b"of": b"two"})
    before = target.state()
    _, chunks = take(source)
    target.restore(3, source.app_hash, lambda: chunks)
    target.verify()
    assert target.state().get(b"of") is None
    assert target.records(0, 10) == []
    with pytest.raises(RuntimeError):
        before.get(b"of")


@given(Entries, st.binary(max_size=200), st.integers(1, 50))
def test_content_is_read_as_it_was_written_however_it_is_cut(
    entries: dict[bytes, bytes], weights: bytes, piece_bytes: int
) -> None:
    ordered = sorted(entries.items(), key=lambda item: layout.encode_state_key(item[0]))
    content = b"".join(encode_content(ordered, [weights]))
    pieces = [content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes)]
    reader = ContentReader(pieces)
    assert [(key, payload) for _, key, payload in reader.read_entries()] == ordered
    assert b"".join(reader.read_weights(7)) == weights


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_reading_any_bytes_ends_in_words(pieces: list[bytes]) -> None:
    reader = ContentReader(pieces)
    try:
        places = [place for place, _, _ in reader.read_entries()]
    except WrongSnapshot:
        return
    assert places == sorted(set(places))
    rest = b"".join(reader.read_weights(64))
    assert len(rest) < len(b"".join(pieces))


@pytest.mark.parametrize("length", [0, 32, 63, 65, 32 * (MAX_SNAPSHOT_CHUNKS + 2)])
def test_metadata_of_an_impossible_length_are_refused(length: int) -> None:
    with pytest.raises(WrongSnapshot):
        Metadata.decode(bytes(length))


def test_the_longest_metadata_are_read() -> None:
    metadata = Metadata(bytes(32), (bytes(32),) * MAX_SNAPSHOT_CHUNKS)
    assert Metadata.decode(metadata.encode()) == metadata


def test_a_folder_has_whole_snapshots_only_and_the_newest(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    folder = SnapshotFolder(store.directory / "snapshots")
    assert folder.get_heights() == []
    for height in range(1, 12):
        commit(store, {b"height": b"%d" % height})
        take(store)
    (folder.path / "12.new").mkdir()
    (folder.path / "12.mdb.new").write_bytes(b"half a copy")
    folder.clean(10)  # a rollback took 11 back
    assert folder.get_heights() == list(range(10, 0, -1))
    assert not list(folder.path.glob("*.new"))
    folder.keep_newest(2)
    assert folder.get_heights() == [10, 9]
    assert folder.read_chunk(10, 0)
    assert folder.read_chunk(10, 1) == folder.read_chunk(8, 0) == b""
    (folder.get_path(10) / "0").write_bytes(b"damaged")
    assert folder.read_chunk(10, 0) == b""
    (folder.get_path(9) / METADATA_FILE).write_bytes(b"damaged")
    assert folder.read_metadata(9) is None
