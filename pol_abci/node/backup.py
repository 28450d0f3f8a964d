"""A home in one file, and a home made of such a file again.

The file is a tar archive, compressed with zstd. Its last member lists the others with their
SHA-256, so that a file that was cut off or damaged is refused. It holds private keys, and is of
mode 0600.

What CometBFT notes of its own signatures (`priv_validator_state.json`) is as old as the backup. A
validator restored from it would sign again at heights at which it has signed since, and that bars
its key for ever. So whoever restores says up to which height it must not sign, or has the home get
new keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

import zstandard

from pol_abci.client.private_files import sync_folder
from pol_abci.node.building import build_home, make_cometbft_files
from pol_abci.node.home import load_home
from pol_abci.node.layout import (
    SETTINGS_FILE,
    get_account_file,
    get_cometbft_folder,
    get_consensus_key_file,
    get_node_key_file,
    get_signing_state_file,
    get_store_folder,
)
from pol_abci.node.occupancy import lock_home
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.environment import DATA_FILE
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.node.home import Home

FORMAT = 1
LIST_NAME = "backup.json"
"""Last member of the archive: what it is of, and what is in it."""
MAX_LIST_BYTES = 2**26
SIGNED_ALL = {"round": 2**31 - 1, "step": 3}
"""As CometBFT notes that nothing is left to sign at a height. Rounds are of 32 bits there."""

_CHUNK_BYTES = 2**20


class BackupFailed(PolError):
    """A backup that could not be written."""


class InvalidBackup(PolError):
    """A file that is no backup, is not whole, or is of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup is of: `height` is the application's, `size` the file's in bytes."""

    chain_id: str
    height: int
    size: int


class _Hashed:
    """A file's bytes on their way, and the hash of those that have passed."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        data = self._source.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        """Of what was read, as hexadecimal digits."""
        return self._hash.hexdigest()


def write_backup(home: Home, out: Path) -> Backup:
    """Write all of a stopped node's home that is needed to go on into a new file.

    Logs and audits are left out. `up` does not start in the home meanwhile.

    Raises
    ------
    HomeInUse, PortInUse, StoreLocked
        The node runs.
    StoreError
        Its store is damaged.
    BackupFailed
        The file exists or cannot be written; nothing is left of it.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_home(home.path))
        home.check_ports()
        height = 0
        if (home.store_folder / DATA_FILE).exists():  # else the node has never run
            store = Store.open(
                home.store_folder,
                chain_id=home.settings.chain_id,
                genesis_digest=compute_genesis_digest(home.genesis),
            )
            stack.callback(store.close)
            height = store.height
        file = stack.enter_context(_create_file(out))
        _write_archive(file, home, height)
        home.check_ports()  # nor was a CometBFT started by hand meanwhile
        size = file.tell()
    return Backup(chain_id=home.settings.chain_id, height=height, size=size)


def restore_backup(file: Path, path: Path, *, signs_after: int | None, cometbft: Path) -> Home:
    """Make a new home of a backup.

    Its validator will sign nothing at height `signs_after` or below. With None the binary
    `cometbft` makes new keys for it, both as validator and as peer; the account stays the same.

    Raises
    ------
    InvalidBackup
        The file is no backup, or not all of one.
    HomeError
        The home exists or cannot be made, or what was restored is no home.
    """
    with build_home(path) as folder:
        _read_archive(file, folder)
        if signs_after is None:
            for key in (get_consensus_key_file, get_signing_state_file, get_node_key_file):
                key(folder).unlink(missing_ok=True)
            make_cometbft_files(get_cometbft_folder(folder), cometbft)
        else:
            _raise_signing_state(get_signing_state_file(folder), signs_after)
        load_home(folder)
    return load_home(path)


@contextlib.contextmanager
def _create_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file of mode 0600 that appears at `path` when it is whole and on the disk."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(draft)  # unlike a rename, it never takes an existing file's place
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except FileExistsError as error:
        raise BackupFailed(f"{path} exists; nothing is overwritten, name another file") from error
    except OSError as error:
        raise BackupFailed(f"cannot write {path}: {error}") from error


def _find_files(home: Home) -> Iterator[Path]:
    """Find the files of a home that a backup holds, in order."""
    yield home.path / SETTINGS_FILE
    if home.account_file.exists():  # a node that does not mine needs none
        yield home.account_file
    for part in ("config", "data"):
        for folder, folders, names in os.walk(home.cometbft_folder / part, followlinks=True):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))
    if (home.store_folder / DATA_FILE).exists():
        yield home.store_folder / DATA_FILE


def _write_archive(file: IO[bytes], home: Home, height: int) -> None:
    compressor = zstandard.ZstdCompressor(threads=-1)
    with (
        compressor.stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=cast("IO[bytes]", stream), mode="w|") as archive,
    ):
        digests = {}
        for path in _find_files(home):
            name = path.relative_to(home.path).as_posix()
            with path.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                digests[name] = _add_member(archive, name, content, size)
        document = {
            "format": FORMAT,
            "chain_id": home.settings.chain_id,
            "height": height,
            "files": digests,
        }
        listed = json.dumps(document, indent=2).encode()
        _add_member(archive, LIST_NAME, BytesIO(listed), len(listed))


def _add_member(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> str:
    """Add a file of `size` bytes to the archive; its digest."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, stat.S_IRUSR | stat.S_IWUSR
    hashed = _Hashed(content)
    archive.addfile(member, cast("IO[bytes]", hashed))
    return hashed.digest


def _read_archive(file: Path, folder: Path) -> None:
    """Write the files of a backup into `folder`, and hold them against its list."""
    digests: dict[str, str] = {}
    listed: dict[str, Any] | None = None
    try:
        with (
            file.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as stream,
            tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or listed is not None:
                    raise InvalidBackup(f"{file} holds {member.name!r}: it is no backup of a home")
                if member.name == LIST_NAME:
                    listed = _parse_list(file, content.read(MAX_LIST_BYTES))
                else:
                    target = folder / _check_name(file, member.name)
                    digests[member.name] = _write_file(target, content)
    except FileNotFoundError as error:
        if file.exists():
            raise
        raise InvalidBackup(f"there is no backup at {file}") from error
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise InvalidBackup(
            f"{file} is no backup of a home, or was cut off or damaged ({error}); take another one"
        ) from error
    if listed is None or listed["files"] != digests:
        raise InvalidBackup(
            f"{file} was cut off or damaged: its files are not those that it lists; take another"
        )


def _parse_list(file: Path, text: bytes) -> dict[str, Any]:
    """Read the list of a backup's files."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidBackup(f"{file} is damaged: its {LIST_NAME} is not JSON") from error
    if not isinstance(document, dict) or "files" not in document:
        raise InvalidBackup(f"{file} is damaged: its {LIST_NAME} lists no files")
    if document.get("format") != FORMAT:
        raise InvalidBackup(
            f"{file} is a backup of format {document.get('format')}; this program knows format "
            f"{FORMAT}. Restore it with the version that made it"
        )
    return document


def _check_name(file: Path, name: str) -> Path:
    """Return a member's place within a home; a name may lead nowhere else."""
    path = PurePosixPath(name)
    home = Path()
    parts = [get_account_file(home), get_cometbft_folder(home), get_store_folder(home)]
    known = {SETTINGS_FILE, *(part.name for part in parts)}
    if path.as_posix() != name or ".." in path.parts or not known.intersection(path.parts[:1]):
        raise InvalidBackup(f"{file} holds {name!r}, which is no part of a home")
    return Path(path)


def _write_file(path: Path, content: IO[bytes]) -> str:
    """Write a new file, on the disk when this returns; its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = _Hashed(content)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        while data := hashed.read(_CHUNK_BYTES):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashed.digest


def _raise_signing_state(file: Path, height: int) -> None:
    """Have CometBFT take it that its validator has signed all there was up to a height."""
    try:
        signed = int(json.loads(file.read_text(encoding="utf-8"))["height"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidBackup(
            f"the backup has no {file.name} that can be read, so nobody knows what its validator "
            f"has signed: restore it with --new-keys"
        ) from error
    if signed < height:
        document = {"height": str(height), **SIGNED_ALL}
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
