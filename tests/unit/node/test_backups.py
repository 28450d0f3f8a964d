"""A home goes into one file and comes out of it again, and its validator does not sign twice."""

from __future__ import annotations

import json
import stat
import tarfile
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
import zstandard

from pol_abci.node.backup import (
    LIST_NAME,
    BackupFailed,
    InvalidBackup,
    restore_backup,
    write_backup,
)
from pol_abci.node.binary import find_cometbft
from pol_abci.node.init import create_home
from pol_abci.node.layout import (
    HomeError,
    get_consensus_key_file,
    get_node_key_file,
    get_signing_state_file,
)
from pol_abci.node.occupancy import HomeInUse, lock_home
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.errors import StoreLocked
from pol_abci.store.store import Store
from tests.e2e.quick_home import get_free_port

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

COMMITS = 3
SIGNED = {"height": "41", "round": 1, "step": 2, "signature": "c2ln", "signbytes": "AB"}


@pytest.fixture(scope="module")
def cometbft() -> Path:
    return find_cometbft(print)


@pytest.fixture
def home(tmp_path: Path, cometbft: Path) -> Home:
    """A home whose app has committed, and whose validator has signed."""
    made = create_home(
        tmp_path / "home",
        cometbft=cometbft,
        preset="digits",
        chain_id="trial-1",
        report=lambda _: None,
        difficulty_bits=9.5,
        rpc_port=get_free_port(),
        p2p_port=get_free_port(),
    )
    with open_store(made) as store:
        for height in range(1, COMMITS + 1):
            store.commit(store.prepare({b"key": str(height).encode()}, b"weights"), height, None)
    get_signing_state_file(made.path).write_text(json.dumps(SIGNED))
    blocks = made.cometbft_folder / "data" / "blockstore.db"
    blocks.mkdir()
    (blocks / "000001.ldb").write_bytes(bytes(range(256)) * 99)
    (made.path / "logs").mkdir()
    (made.path / "logs" / "app.log").write_text("much to say")
    return made


def read_signed(home: Home) -> dict[str, object]:
    document: dict[str, object] = json.loads(get_signing_state_file(home.path).read_text())
    return document


def read_files(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.path)): path.read_bytes()
        for path in home.path.rglob("*")
        if path.is_file()
    }


def test_what_goes_in_comes_out_but_for_logs_and_locks(
    home: Home, tmp_path: Path, cometbft: Path
) -> None:
    out = tmp_path / "node.tar.zst"
    made = write_backup(home, out)
    assert (made.chain_id, made.height, made.size) == ("trial-1", COMMITS, out.stat().st_size)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    restored = restore_backup(out, tmp_path / "new", signs_after=0, cometbft=cometbft)
    old, new = read_files(home), read_files(restored)
    assert {name for name in old if name not in new} == {
        "app/data.mdb-lock",
        "app/store.lock",
        "logs/app.log",
        "up.lock",
    }
    assert all(old[name] == content for name, content in new.items())
    assert all(stat.S_IMODE((restored.path / name).stat().st_mode) == 0o600 for name in new)
    with open_store(restored) as store:
        assert store.height == COMMITS


@pytest.mark.parametrize("signs_after", [41, 900])
def test_a_restored_validator_has_nothing_left_to_sign_up_to_that_height(
    home: Home, tmp_path: Path, cometbft: Path, signs_after: int
) -> None:
    write_backup(home, tmp_path / "file")
    restored = restore_backup(
        tmp_path / "file", tmp_path / "new", signs_after=signs_after, cometbft=cometbft
    )
    last_of_all = {"height": str(signs_after), "round": 2**31 - 1, "step": 3}
    assert read_signed(restored) == (last_of_all if signs_after > 41 else SIGNED)
    assert get_consensus_key_file(restored.path).read_bytes() == (
        get_consensus_key_file(home.path).read_bytes()
    )


def test_new_keys_share_nothing_with_the_old_but_the_account(
    home: Home, tmp_path: Path, cometbft: Path
) -> None:
    write_backup(home, tmp_path / "file")
    restored = restore_backup(
        tmp_path / "file", tmp_path / "new", signs_after=None, cometbft=cometbft
    )
    for get_file in (get_consensus_key_file, get_node_key_file):
        assert get_file(restored.path).read_bytes() != get_file(home.path).read_bytes()
    assert read_signed(restored)["height"] == "0"
    assert restored.account_file.read_bytes() == home.account_file.read_bytes()
    assert restored.genesis_file.read_bytes() == home.genesis_file.read_bytes()


def test_a_home_without_account_that_never_ran_can_be_backed_up(
    home: Home, tmp_path: Path, cometbft: Path
) -> None:
    for file in home.store_folder.iterdir():
        file.unlink()
    home.store_folder.rmdir()
    home.account_file.unlink()  # kept on another machine
    assert write_backup(home, tmp_path / "file").height == 0
    restored = restore_backup(tmp_path / "file", tmp_path / "new", signs_after=0, cometbft=cometbft)
    assert not home.store_folder.exists()
    assert not restored.store_folder.exists()


def test_a_node_that_runs_is_refused_and_no_file_is_left(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "file"
    with lock_home(home.path), pytest.raises(HomeInUse):
        write_backup(home, out)
    with open_store(home), pytest.raises(StoreLocked):  # `start`, whose CometBFT is down
        write_backup(home, out)
    assert not [path for path in tmp_path.iterdir() if "file" in path.name]


def test_no_file_is_overwritten(home: Home, tmp_path: Path, cometbft: Path) -> None:
    out = tmp_path / "file"
    out.write_text("precious")
    with pytest.raises(BackupFailed, match="exists; nothing is overwritten"):
        write_backup(home, out)
    assert out.read_text() == "precious"
    write_backup(home, tmp_path / "good")
    with pytest.raises(HomeError, match="exists and is not empty"):
        restore_backup(tmp_path / "good", home.path, signs_after=0, cometbft=cometbft)
    with pytest.raises(BackupFailed, match="cannot write"):
        write_backup(home, tmp_path / "absent" / "file")


def expect_refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    new = path.with_name("new")
    with pytest.raises(InvalidBackup, match=words):
        restore_backup(path, new, signs_after=0, cometbft=path)
    assert not new.exists()


def test_what_is_cut_off_damaged_or_no_backup_is_refused_and_nothing_is_made(
    home: Home, tmp_path: Path
) -> None:
    write_backup(home, tmp_path / "good")
    whole = (tmp_path / "good").read_bytes()
    bad = tmp_path / "bad"
    for size in (0, 100, len(whole) // 2, len(whole) - 20):
        expect_refused(bad, whole[:size], "cut off or damaged")
    for place in (10, len(whole) // 3, len(whole) // 2):
        flipped = bytes((whole[place] ^ 0x10,))
        expect_refused(bad, whole[:place] + flipped + whole[place + 1 :], "damaged")
    expect_refused(bad, b"text", "no backup of a home")
    with pytest.raises(InvalidBackup, match="there is no backup at"):
        restore_backup(tmp_path / "absent", tmp_path / "new", signs_after=0, cometbft=bad)


def pack(files: dict[str, bytes], *, link: str | None = None) -> bytes:
    """An archive with these members, compressed."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo("app")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return zstandard.ZstdCompressor().compress(packed.getvalue())


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "app/../../outside", "else/file", "app//file", "."]
)
def test_a_member_leads_nowhere_but_into_the_home(tmp_path: Path, name: str) -> None:
    expect_refused(tmp_path / "bad", pack({name: b"x"}), "which is no part of a home")


def test_links_and_members_behind_the_list_are_refused(tmp_path: Path) -> None:
    listed = json.dumps({"format": 1, "files": {}}).encode()
    bad = tmp_path / "bad"
    expect_refused(bad, pack({}, link=str(tmp_path)), "no backup of a home")
    expect_refused(bad, pack({LIST_NAME: listed, "app/data.mdb": b""}), "no backup of a home")


def test_another_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    listed = json.dumps({"format": 2, "files": {}}).encode()
    words = r"format 2; this program knows format 1\. Restore it with the version that made it"
    expect_refused(tmp_path / "bad", pack({LIST_NAME: listed}), words)
    expect_refused(tmp_path / "bad", pack({LIST_NAME: b"[" * 9_999}), "is not JSON")


def test_without_a_note_of_what_was_signed_only_new_keys_are_given(
    home: Home, tmp_path: Path, cometbft: Path
) -> None:
    get_signing_state_file(home.path).unlink()
    write_backup(home, tmp_path / "file")
    with pytest.raises(InvalidBackup, match="nobody knows what its validator has signed"):
        restore_backup(tmp_path / "file", tmp_path / "new", signs_after=9, cometbft=cometbft)
    restore_backup(tmp_path / "file", tmp_path / "new", signs_after=None, cometbft=cometbft)


def open_store(home: Home) -> closing[Store]:
    """The app's store, until the context ends."""
    digest = compute_genesis_digest(home.genesis)
    return closing(
        Store.open(home.store_folder, chain_id=home.settings.chain_id, genesis_digest=digest)
    )
