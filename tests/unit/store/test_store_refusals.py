"""Every way in which a store cannot be used is refused in words, and nothing is lost by it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import lmdb
import pytest

from pol_abci.rules.errors import PolError
from pol_abci.rules.merkle import bucket_of
from pol_abci.store import layout
from pol_abci.store.environment import DATA_FILE, Environment, Transaction
from pol_abci.store.errors import (
    DamagedStore,
    ForeignStore,
    OtherChain,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNotWritable,
    UnknownStoreFormat,
)
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DIGEST = hashlib.sha256(b"genesis").digest()
PAGE_BYTES = 4_096


def open_store(path: Path, chain_id: str = "test", digest: bytes = DIGEST) -> Store:
    return Store.open(path, chain_id=chain_id, genesis_digest=digest)


def fill(path: Path) -> tuple[int, bytes]:
    """A store of 300 entries, five chunks and two commits; gives its height and app hash."""
    store = open_store(path)
    state: dict[bytes, bytes | None] = {b"account/%d" % i: b"%d" % i * 20 for i in range(300)}
    weights = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(10_000))
    store.commit(store.prepare(state, weights), 1, (1, b"first"))
    changes: dict[bytes, bytes | None] = {b"account/7": None, b"account/8": b"x", b"new": b"y"}
    changed = weights[:100_000] + b"changed" + weights[100_007:]
    store.commit(store.prepare(changes, changed), 2, (2, b"second"))
    store.close()
    return store.height, store.app_hash


def edit(path: Path, work: Callable[[Transaction], object]) -> None:
    """Write to a store's file behind its back."""
    environment = Environment.open(path, layout.DATABASES, lambda _: None)
    environment.write(work)
    environment.close()


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store until its input ends."""
    program = (
        "import sys; from pathlib import Path; from pol_abci.store.store import Store;"
        f"store = Store.open(Path({str(path)!r}), chain_id='test', genesis_digest={DIGEST!r});"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def test_every_refusal_is_a_store_error() -> None:
    assert issubclass(StoreError, PolError)
    for error in (DamagedStore, ForeignStore, OtherChain, StoreFull, StoreLocked):
        assert issubclass(error, StoreError)
    assert issubclass(StoreNotWritable, StoreError)
    assert issubclass(UnknownStoreFormat, StoreError)


def test_a_second_process_is_refused_and_told_who_holds_the_store(tmp_path: Path) -> None:
    with (
        another_process(tmp_path) as holder,
        pytest.raises(StoreLocked, match=rf"process {holder.pid}\. Stop that one first"),
    ):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_a_second_store_in_the_same_process_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_another_programs_lmdb_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / DATA_FILE
    with lmdb.open(str(data), subdir=False, lib_version=0) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"value")
    content = data.read_bytes()

    with pytest.raises(ForeignStore, match="did not make"):
        open_store(tmp_path)
    assert data.read_bytes() == content


def test_a_file_of_the_newer_lmdb_format_is_refused(tmp_path: Path) -> None:
    data = tmp_path / DATA_FILE
    with lmdb.open(str(data), subdir=False, lib_version=1) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"value")

    with pytest.raises(ForeignStore, match="did not make"):
        open_store(tmp_path)


def test_a_file_that_is_not_lmdb_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_bytes(b"SQLite format 3\x00" * 1_000)
    with pytest.raises(ForeignStore, match="does not begin like a file of LMDB"):
        open_store(tmp_path)


def test_an_unknown_format_is_refused_by_its_number(tmp_path: Path) -> None:
    fill(tmp_path)
    edit(tmp_path, lambda txn: txn.put(layout.ABOUT, layout.FORMAT_KEY, layout.encode_integer(9)))
    with pytest.raises(UnknownStoreFormat, match="has format 9; this program knows format 2"):
        open_store(tmp_path)


def test_another_chains_store_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(OtherChain, match="belongs to chain 'test', not 'other'"):
        open_store(tmp_path, chain_id="other")
    with pytest.raises(OtherChain, match="another genesis"):
        open_store(tmp_path, digest=b"\x00" * 32)
    assert open_store(tmp_path).height == 2


@pytest.mark.parametrize("kept", [0, 100, PAGE_BYTES, 3 * PAGE_BYTES, -70_000, -PAGE_BYTES, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    fill(tmp_path)
    data = tmp_path / DATA_FILE
    size = data.stat().st_size
    os.truncate(data, kept if kept >= 0 else size + kept)
    with pytest.raises((DamagedStore, ForeignStore), match=r"damaged"):
        open_store(tmp_path)


def test_a_file_that_is_gone_beside_its_lock_starts_an_empty_store(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / DATA_FILE).unlink()
    assert open_store(tmp_path).height == 0


def test_a_creation_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / f"{DATA_FILE}.new").write_bytes(b"half a page")
    (tmp_path / f"{DATA_FILE}.new-lock").write_bytes(b"")
    open_store(tmp_path).close()
    assert open_store(tmp_path).height == 0


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """Wherever a byte is flipped: an error in words, or one of the two last commits unharmed."""
    original = tmp_path / "original"
    _, app_hash = fill(original)
    content = (original / DATA_FILE).read_bytes()
    store = open_store(original)
    state = {b"account/%d" % i: store.state().get(b"account/%d" % i) for i in range(300)}
    store.close()
    choose = random.Random(5)
    pages = len(content) // PAGE_BYTES
    places = [*range(16, 168, 8), *range(PAGE_BYTES + 16, PAGE_BYTES + 168, 8)]
    places += [page * PAGE_BYTES + choose.randrange(64) for page in range(2, pages)]
    places += [choose.randrange(len(content)) for _ in range(60)]

    refused = 0
    for place in places:
        path = tmp_path / "flipped"
        path.mkdir()
        flipped = bytearray(content)
        flipped[place] ^= 0x41
        (path / DATA_FILE).write_bytes(flipped)
        try:
            store = open_store(path)
            try:
                store.verify()
                if store.height == 2:
                    assert store.app_hash == app_hash
                    shown = {key: store.state().get(key) for key in state}
                    assert shown == state, f"byte {place}"
                else:
                    assert store.height == 1  # the newest commit's page was not recognised
            finally:
                store.close()
        except (DamagedStore, ForeignStore, OtherChain, UnknownStoreFormat):
            refused += 1
        shutil.rmtree(path)
    assert refused > len(places) // 3


def find_payload(content: bytes, payload: bytes) -> list[int]:
    return [i for i in range(len(content)) if content.startswith(payload, i)]


def test_a_changed_chunk_is_found_when_the_store_is_opened(tmp_path: Path) -> None:
    fill(tmp_path)
    data = tmp_path / DATA_FILE
    content = data.read_bytes()
    for place in find_payload(content, b"changed"):
        data.write_bytes(content[:place] + b"C" + content[place + 1 :])
        with pytest.raises(DamagedStore, match=r"app hash of height 2\. Restore"):
            open_store(tmp_path)


def test_a_changed_entry_is_found_before_it_gets_into_an_app_hash(tmp_path: Path) -> None:
    fill(tmp_path)
    place = layout.encode_state_key(b"account/42")
    riches = layout.encode_entry(b"account/42", b"riches")
    edit(tmp_path, lambda txn: txn.put(layout.STATE, place, riches))
    store = open_store(tmp_path)

    with pytest.raises(DamagedStore, match="do not lead to its root"):
        store.verify()
    with pytest.raises(DamagedStore, match="do not lead to its root"):
        store.prepare({b"account/42": b"more"}, None)


def flip_last_bit(path: Path, database: bytes, key: bytes) -> None:
    def flip(txn: Transaction) -> None:
        value = txn.get(database, key)
        assert value is not None
        txn.put(database, key, value[:-1] + bytes((value[-1] ^ 1,)))

    edit(path, flip)


def test_a_flipped_bit_of_an_entry_is_found_when_it_is_read_or_replaced(tmp_path: Path) -> None:
    fill(tmp_path)
    flip_last_bit(tmp_path, layout.STATE, layout.encode_state_key(b"account/42"))
    store = open_store(tmp_path)
    for use in (
        lambda: store.state().get(b"account/42"),
        lambda: store.state().bucket(bucket_of(b"account/42")),
        lambda: store.query_state(b"account/42", store.height),
        lambda: store.prepare({b"account/42": None}, None),
        store.verify,
    ):
        with pytest.raises(DamagedStore, match=r"under the key b'account/42' is not what was"):
            use()
    assert store.state().get(b"account/41") == b"41" * 20


def test_a_flipped_bit_of_a_record_is_found_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path)
    flip_last_bit(tmp_path, layout.RECORDS, layout.encode_integer(1))
    store = open_store(tmp_path)
    for read in (lambda: store.get_record(1), lambda: store.records(0, 9)):
        with pytest.raises(DamagedStore, match="is not what was written"):
            read()
    assert store.get_record(2) == b"second"


def test_a_lost_entry_is_found(tmp_path: Path) -> None:
    fill(tmp_path)
    edit(tmp_path, lambda txn: txn.delete(layout.STATE, layout.encode_state_key(b"account/42")))
    with pytest.raises(DamagedStore, match=r"all entries of a bucket are gone|do not lead"):
        open_store(tmp_path).verify()


@pytest.mark.parametrize("database", [layout.BUCKET_ROOTS, layout.CHUNK_HEIGHTS, layout.CHUNKS])
def test_a_lost_root_or_chunk_is_found_when_the_store_is_opened(
    tmp_path: Path, database: bytes
) -> None:
    fill(tmp_path)

    def delete_newest(txn: Transaction) -> None:
        key, _ = list(txn.iterate(database))[-1]
        txn.delete(database, key)

    edit(tmp_path, delete_newest)
    with pytest.raises(DamagedStore, match="Restore the folder"):
        open_store(tmp_path)


def test_a_changed_undo_is_found_when_the_store_is_opened(tmp_path: Path) -> None:
    fill(tmp_path)
    place = layout.UNDO_STATE + layout.encode_state_key(b"account/8")
    for entry, found in (
        (b"z", "under the key b'account/8'"),
        (layout.encode_entry(b"account/8", b"z"), "app hash of height 1"),
    ):
        old = layout.encode_optional(entry)
        edit(tmp_path, partial(Transaction.put, database=layout.UNDO, key=place, value=old))
        with pytest.raises(DamagedStore, match=found):
            open_store(tmp_path)


def test_a_changed_height_is_found_when_the_store_is_opened(tmp_path: Path) -> None:
    height, app_hash = fill(tmp_path)
    wrong = bytearray(layout.Commit(height, app_hash).encode())
    wrong[7] ^= 1
    edit(tmp_path, lambda txn: txn.put(layout.ABOUT, layout.VERSION_KEY, bytes(wrong)))
    with pytest.raises(DamagedStore, match="height and app hash"):
        open_store(tmp_path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreNotWritable, match="Check the path"):
        open_store(tmp_path / "file" / "app")
    with pytest.raises(StoreNotWritable, match="Check the path"):
        open_store(tmp_path / "file")


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Nobody may write in `path`; the superuser becomes another user meanwhile."""
    path.chmod(0o500)
    is_superuser = os.geteuid() == 0
    if is_superuser:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_superuser:
            os.seteuid(0)
        path.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    with (
        without_permission(tmp_path),
        pytest.raises(StoreNotWritable, match="its owner and its permissions"),
    ):
        open_store(tmp_path)
    assert open_store(tmp_path).height == 2


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pol_abci.store.errors import StoreFull
from pol_abci.store.store import Store

store = Store.open(Path(sys.argv[1]), chain_id="test", genesis_digest=bytes.fromhex(sys.argv[2]))
before = store.app_hash, store.weights(), store.state()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = (Path(sys.argv[1]) / "data.mdb").stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, hard))
pending = store.prepare({b"account/9": b"lost"}, b"w" * 3_000_000)
for attempt in range(3):
    try:
        store.commit(pending, 3, (3, b"third"))
    except StoreFull as error:
        assert "stays as it was at the last commit; make room" in str(error), error
    else:
        raise AssertionError("3 MB fitted")
assert (store.height, store.app_hash, store.weights()) == (2, before[0], before[1])
assert before[2].get(b"account/9") == b"9" * 20
assert store.get_record(3) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
if sys.argv[3] == "retry":
    store.commit(pending, 3, (3, b"third"))
    assert store.state().get(b"account/9") == b"lost"
print("done")
"""


@pytest.mark.parametrize("after", ["stop", "retry"])
def test_a_full_disk_leaves_the_last_commit(tmp_path: Path, after: str) -> None:
    _, app_hash = fill(tmp_path)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), DIGEST.hex(), after]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("done\n", "")

    store = open_store(tmp_path)
    store.verify()
    assert store.height == (3 if after == "retry" else 2)
    if after == "stop":
        assert store.app_hash == app_hash
        assert store.get_record(3) is None


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    state = store.state()
    store.close()
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        state.get(b"a")
