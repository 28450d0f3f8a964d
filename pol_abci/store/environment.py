"""The LMDB environment under the store: who may open it, and how it grows and fails.

Everything that is particular to LMDB and to the file system stays here. A data file is looked
over page by page with ordinary reads before it is mapped, because LMDB trusts what it maps: a
damaged page can crash the process and a truncated file kills it with SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import lmdb
from lmdb.verify import VerifyError, verify

from pol_abci.store.errors import (
    DamagedStore,
    ForeignStore,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNotWritable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DATA_FILE = "data.mdb"
LOCK_FILE = "store.lock"
FIRST_MAP_BYTES = 64 * 1_024 * 1_024
MAX_KEY_BYTES = 511
"""LMDB's own limit."""

LMDB_MAJOR = 0
"""File format 0.9. The wheels carry 1.0 too, and neither reads the other's files."""
_MAGIC = 0xBEEFC0DE.to_bytes(4, sys.byteorder)
_MAGIC_OFFSET = 16
"""Behind the page header of format 0.9; format 1.0 has a longer one."""
_SPARE_READERS = 4

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM}
_NOT_ALLOWED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}

Result = TypeVar("Result")


class Environment:
    """An LMDB environment that this process alone has open, with its named databases."""

    def __init__(self, directory: Path, names: tuple[bytes, ...], map_bytes: int) -> None:
        self._directory = directory
        self._names = names
        self._map_bytes = map_bytes
        self._lock: int | None = _lock(directory)
        self._env: lmdb.Environment | None = None
        self._databases: dict[bytes, lmdb._Database] = {}
        self._copy: Copy | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        names: tuple[bytes, ...],
        first_write: Callable[[Transaction], None],
        map_bytes: int = FIRST_MAP_BYTES,
    ) -> Environment:
        """Open the environment in `directory`, making both where they are not there.

        `first_write` fills a new environment. It appears under its own name only when that is on
        disk, so a data file is never half made.

        Raises
        ------
        StoreError
            StoreLocked, StoreNotWritable, StoreFull, ForeignStore or DamagedStore.
        """
        with _as_store_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            environment = cls(directory, names, map_bytes)
            try:
                data = directory / DATA_FILE
                if not data.exists():
                    environment._create(first_write)
                environment._check_file()
                environment._map(DATA_FILE, create=False)
            except BaseException:
                environment.close()
                raise
        return environment

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A snapshot to read from; it must be left before anything is written.

        Raises
        ------
        DamagedStore
            When LMDB meets a page that cannot be right.
        """
        with _as_store_error(self._directory), self._get_env().begin() as transaction:
            yield Transaction(transaction, self._databases)

    def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Do `work` in one transaction, synced to disk: all of it happens, or nothing.

        `work` runs again from the start when the map had to grow.

        Raises
        ------
        StoreFull
            When it does not fit on the disk; what was there stays as it was.
        """
        with _as_store_error(self._directory):
            while True:
                env = self._get_env()
                try:
                    with env.begin(write=True) as transaction:
                        return work(Transaction(transaction, self._databases))
                except lmdb.MapFullError:
                    self._end_copy()  # nothing may read the map while it moves
                    env.set_mapsize(2 * env.info()["map_size"])

    def begin_copy(self) -> Copy:
        """Hold on to what is committed now, for a copy that another thread writes meanwhile.

        There is one at a time: an older one that is not written yet is given up.
        """
        self._end_copy()
        with _as_store_error(self._directory):
            self._copy = Copy(self._get_env(), self._directory)
        return self._copy

    def _end_copy(self) -> None:
        """Wait for the copy that is being written; one that is only begun is given up."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def close(self) -> None:
        """Unmap the file and let other processes have it; closing twice is nothing."""
        self._end_copy()
        if self._env is not None:
            self._env.close()
            self._env = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _get_env(self) -> lmdb.Environment:
        if self._env is None:
            raise RuntimeError("the store is closed")
        return self._env

    def _create(self, first_write: Callable[[Transaction], None]) -> None:
        """Make the data file under another name and move it to its own when it is whole."""
        new = f"{DATA_FILE}.new"
        for name in (new, f"{new}-lock"):
            (self._directory / name).unlink(missing_ok=True)
        self._map(new, create=True)
        self.write(first_write)
        self._get_env().close()
        self._env = None
        (self._directory / f"{new}-lock").unlink(missing_ok=True)
        (self._directory / new).replace(self._directory / DATA_FILE)
        sync_folder(self._directory)

    def _check_file(self) -> None:
        """Refuse a data file whose pages are not a whole and sound LMDB file."""
        path = self._directory / DATA_FILE
        with path.open("rb") as file:
            file.seek(_MAGIC_OFFSET)
            is_lmdb = file.read(len(_MAGIC)) == _MAGIC
        if not is_lmdb:
            raise ForeignStore(
                f"{path} does not begin like a file of LMDB 0.9: this program did not make it, or "
                "its start is damaged. Give another folder, or restore this one from a backup"
            )
        try:
            problems = verify(str(path), subdir=False)  # type: ignore[no-untyped-call]  # untyped module of a typed package
        except VerifyError as error:
            problems = [str(error)]
        if problems:
            raise damaged(self._directory, str(problems[0]))

    def _map(self, name: str, *, create: bool) -> None:
        path = self._directory / name
        size = path.stat().st_size if path.exists() else 0
        try:
            self._env = lmdb.open(
                str(path),
                subdir=False,
                map_size=max(self._map_bytes, size),
                max_dbs=len(self._names),
                max_spare_txns=_SPARE_READERS,
                mode=0o600,
                lib_version=LMDB_MAJOR,
            )
            self._databases = {
                database: self._env.open_db(database, create=create) for database in self._names
            }
        except (lmdb.NotFoundError, lmdb.IncompatibleError, lmdb.VersionMismatchError) as error:
            raise ForeignStore(
                f"{path} is an LMDB file that this program did not make ({error}), or the names "
                "in it are damaged. Give another folder, or restore this one from a backup"
            ) from error


class Copy:
    """The environment as it was when this was made. Only `write` may run in another thread."""

    def __init__(self, env: lmdb.Environment, directory: Path) -> None:
        self._env = env
        self._directory = directory
        self._lock = threading.Lock()
        self._transaction: lmdb.Transaction[bytes] | None = env.begin()

    def write(self, path: Path) -> bool:
        """Write the file `path`, without what is free in the original; whether there was a copy.

        LMDB does it, so that Python's other threads run on.

        Raises
        ------
        StoreFull
            When it does not fit on the disk.
        """
        with self._lock, _as_store_error(self._directory):
            if self._transaction is None:
                return False
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                self._env.copyfd(file, compact=True, txn=self._transaction)
            finally:
                os.close(file)
                self._abort()
            return True

    def close(self) -> None:
        """Let go of what is held, after a `write` that is under way."""
        with self._lock:
            self._abort()

    def _abort(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None


@contextmanager
def read_copy(path: Path, names: tuple[bytes, ...]) -> Iterator[Transaction]:
    """Read the file that a `Copy` has written, and that nobody writes any more.

    Raises
    ------
    DamagedStore
        When LMDB meets a page that cannot be right.
    """
    with (
        _as_store_error(path),
        lmdb.open(
            str(path),
            subdir=False,
            readonly=True,
            lock=False,
            max_dbs=len(names),
            lib_version=LMDB_MAJOR,
        ) as env,
    ):
        databases = {name: env.open_db(name, create=False) for name in names}
        with env.begin() as transaction:
            yield Transaction(transaction, databases)


class Transaction:
    """Reads and writes of the named databases within one LMDB transaction."""

    def __init__(
        self, transaction: lmdb.Transaction[bytes], databases: dict[bytes, lmdb._Database]
    ) -> None:
        self._transaction = transaction
        self._databases = databases
        self._cursors: dict[bytes, lmdb.Cursor[bytes]] = {}

    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Value under `key`, or None."""
        return self._transaction.get(key, db=self._databases[database])

    def put(self, database: bytes, key: bytes, value: bytes | memoryview) -> bytes | None:
        """Write a value and give the one that it replaced."""
        return self._transaction.replace(key, value, db=self._databases[database])

    def put_all(self, database: bytes, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Write values over what is there; sorted by key is quickest."""
        self._get_cursor(database).putmulti(items)

    def delete(self, database: bytes, key: bytes) -> bytes | None:
        """Delete a value and give it; nothing happens where there is none."""
        return self._transaction.pop(key, db=self._databases[database])

    def discard(self, database: bytes, key: bytes) -> None:
        """Delete a value, however large, without reading it."""
        self._transaction.delete(key, db=self._databases[database])

    def clear(self, database: bytes) -> None:
        """Delete everything in a database."""
        self._transaction.drop(self._databases[database], delete=False)

    def iterate(self, database: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of keys, from the first key >= `start`."""
        with self._transaction.cursor(self._databases[database]) as cursor:
            if cursor.set_range(start):
                yield from cursor

    def read_prefix(self, database: bytes, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """What follows `prefix` in the keys that begin with it, and their values, in order."""
        cursor = self._get_cursor(database)
        skipped = len(prefix)
        found = []
        if cursor.set_range(prefix):
            for key, value in cursor:
                if key[:skipped] != prefix:
                    break
                found.append((key[skipped:], value))
        return found

    def iterate_prefix(self, database: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the keys that begin with `prefix`, in order."""
        with self._transaction.cursor(self._databases[database]) as cursor:
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not key.startswith(prefix):
                        return
                    yield key, value

    def _get_cursor(self, database: bytes) -> lmdb.Cursor[bytes]:
        """The cursor for calls that leave nothing open; making one takes as long as a read."""
        if database not in self._cursors:
            self._cursors[database] = self._transaction.cursor(self._databases[database])
        return self._cursors[database]


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def damaged(directory: Path, found: str) -> DamagedStore:
    """What to say, and to do, about a store whose content cannot be right."""
    return DamagedStore(
        f"the store in {directory} is damaged: {found}. Restore the folder from a backup, or "
        "delete it and let the node replay the chain or sync from others; check the disk first"
    )


def _lock(directory: Path) -> int:
    """Take this program's own lock: LMDB's would let a second process in and wait for its turn.

    The kernel gives it back when the process ends in whatever way.
    """
    path = directory / LOCK_FILE
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise StoreLocked(
            f"the store in {directory} is in use by process {holder}. Stop that one first, or "
            "give this one a folder of its own"
        ) from error
    except OSError:
        os.close(file)
        raise
    return file


@contextmanager
def _as_store_error(directory: Path) -> Iterator[None]:
    """Say in words what LMDB and the system report by number."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        described = _describe(error, directory)
        if described is None:
            raise
        raise described from error


def _describe(error: lmdb.Error | OSError, directory: Path) -> StoreError | None:
    """The store's error for one of LMDB or the system; None for a bug."""
    code = error.code if isinstance(error, lmdb.Error) else error.errno
    if code in _NO_ROOM or isinstance(error, lmdb.PanicError):
        return StoreFull(
            f"the disk under the store in {directory} refused ({error}): it or a quota is full, "
            "or it fails. The store stays as it was at the last commit; make room and start again"
        )
    if code in _NOT_ALLOWED:
        return StoreNotWritable(
            f"the store in {directory} cannot be opened for writing ({error}). Check the path, "
            "its owner and its permissions"
        )
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError):
        return damaged(directory, str(error))
    return None
