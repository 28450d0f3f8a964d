from __future__ import annotations

import base64
import json
import os
import stat
from typing import TYPE_CHECKING

import bech32
import nacl.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.pwhash import argon2id
from nacl.signing import SigningKey, VerifyKey

from pol_abci.client import keys as keys_module
from pol_abci.client.keys import (
    AccountKey,
    InvalidAddress,
    InvalidCoins,
    KeyFile,
    PassphraseMissing,
    format_address,
    format_amount,
    load_consensus_seed,
    parse_address,
    parse_amount,
)
from pol_abci.client.private_files import KeyFileError
from pol_abci.client.sealing import Cost, UnusablePassphrase, WrongPassphrase, seal_seed
from pol_abci.rules.params import MAX_SUPPLY, Address, Amount

if TYPE_CHECKING:
    from pathlib import Path


NINETEEN_BYTES = bech32.bech32_encode("pol", bech32.convertbits(bytes(19), 8, 5) or [])


def test_a_saved_key_loads_as_the_same_account(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    key = AccountKey.generate()
    key.save(path)
    assert AccountKey.load(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_mode_is_0600_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    before = os.umask(0)
    try:
        AccountKey.generate().save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    first = AccountKey.generate()
    first.save(path)
    with pytest.raises(KeyFileError, match="never overwritten"):
        AccountKey.generate().save(path)
    assert AccountKey.load(path) == first


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "account.json"
    AccountKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        AccountKey.load(path)


CHEAP = Cost(argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
ADDRESS = format_address(AccountKey(bytes(32)).address)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing without the second that it takes to keep guessers out."""
    monkeypatch.setattr(keys_module, "seal_seed", lambda seed, text: seal_seed(seed, text, CHEAP))


@pytest.mark.usefixtures("cheap")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    seed=st.binary(min_size=32, max_size=32),
    before=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
    after=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_a_key_survives_any_change_of_passphrase(
    tmp_path: Path, seed: bytes, before: str | None, after: str | None
) -> None:
    path = tmp_path / "account.json"
    path.unlink(missing_ok=True)
    key = AccountKey(seed)
    key.save(path, before)
    AccountKey.load(path, lambda: before or "").save(path, after, replace=True)
    assert AccountKey.load(path, lambda: after or "") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (seed.hex() in path.read_text()) == (after is None)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("cheap")
def test_a_passphrase_given_through_a_link_leaves_no_plain_seed(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    file, link = tmp_path / "vault" / "account.json", tmp_path / "link.json"
    key = AccountKey.generate()
    key.save(file)
    link.symlink_to(file)
    key.save(link, "open", replace=True)
    assert link.is_symlink()
    assert KeyFile.read(file).is_sealed
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.usefixtures("cheap")
def test_a_sealed_key_is_known_and_stays_shut_without_its_passphrase(tmp_path: Path) -> None:
    path, key = tmp_path / "account.json", AccountKey.generate()
    key.save(path, "caf\u00e9")
    file = KeyFile.read(path)
    assert (file.is_sealed, file.address, file.public_key) == (True, key.address, key.public_key)
    with pytest.raises(PassphraseMissing):
        AccountKey.load(path)
    with pytest.raises(WrongPassphrase, match=r"account\.json"):
        AccountKey.load(path, lambda: "cafe")
    assert AccountKey.load(path, lambda: "cafe\u0301") == key  # typed on another keyboard


@pytest.mark.usefixtures("cheap")
def test_a_passphrase_in_another_encoding_is_not_taken_for_damage(tmp_path: Path) -> None:
    path, key, passphrase = tmp_path / "account.json", AccountKey.generate(), os.fsdecode(b"\xff")
    with pytest.raises(UnusablePassphrase, match="not UTF-8"):
        key.save(path, passphrase)
    assert not path.exists()
    key.save(path, "open")
    with pytest.raises(UnusablePassphrase, match="not UTF-8"):
        AccountKey.load(path, lambda: passphrase)


@pytest.mark.usefixtures("cheap")
def test_too_little_memory_is_not_taken_for_a_wrong_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise nacl.exceptions.RuntimeError("Unexpected failure in key derivation")

    path = tmp_path / "account.json"
    AccountKey.generate().save(path, "open")
    monkeypatch.setattr(argon2id, "kdf", fail)
    with pytest.raises(UnusablePassphrase, match="MiB of memory, which this machine"):
        AccountKey.load(path, lambda: "open")


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    "change",
    [
        {"box": "00"},
        {"box": None},
        {"salt": "00"},
        {"memory_bytes": 1 << 50},
        {"operations": 0},
        {"operations": "many"},
        {"derivation": "scrypt"},
        {"cipher": "none"},
    ],
)
def test_a_damaged_sealed_key_is_told_apart(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "account.json"
    AccountKey.generate().save(path, "open")
    content = json.loads(path.read_text())
    content["sealed_seed"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="damaged"):
        AccountKey.load(path, lambda: "open")
    del content["sealed_seed"]
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="damaged"):
        AccountKey.load(path, lambda: "open")


@pytest.mark.usefixtures("cheap")
def test_a_box_of_another_key_is_damage(tmp_path: Path) -> None:
    path, other = tmp_path / "account.json", tmp_path / "other.json"
    AccountKey.generate().save(path, "open")
    AccountKey.generate().save(other, "open")
    content = json.loads(path.read_text()) | {
        "sealed_seed": json.loads(other.read_text())["sealed_seed"]
    }
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="damaged: its seed belongs to pol1"):
        AccountKey.load(path, lambda: "open")


def test_a_change_that_cannot_be_written_leaves_the_old_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = tmp_path / "account.json", AccountKey.generate()
    key.save(path)

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyFileError, match="No space left"):
        key.save(path, "open", replace=True)
    assert AccountKey.load(path) == key
    assert list(tmp_path.iterdir()) == [path]


def write_private(path: Path, content: str | bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"type": "other", "version": 1}', b"\xff"]
)
def test_a_file_that_is_no_key_is_refused_in_words(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(KeyFileError):
        AccountKey.load(write_private(tmp_path / "account.json", content))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "00" * 31},
        {"seed": "zz" * 32},
        {"seed": None},
        {"seed": "00" * 32},
        {"address": ADDRESS},
        {"address": 3},
        {"public_key": "00" * 31},
        {"public_key": None},
    ],
)
def test_a_damaged_key_is_told_apart(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "account.json"
    AccountKey.generate().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeyFileError, match="damaged"):
        AccountKey.load(path)


def test_missing_key_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="there is no account key"):
        AccountKey.load(tmp_path / "account.json")
    with pytest.raises(KeyFileError, match="No such file or directory"):
        AccountKey.generate().save(tmp_path / "none" / "account.json")


def test_the_seed_is_not_shown() -> None:
    key = AccountKey(bytes(range(32)))
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)


def test_the_address_is_of_the_public_key_that_signs() -> None:
    key = AccountKey(bytes(range(32)))
    signature = key.sign_body("chain", b"body")
    assert signature != key.sign_body("other", b"body")
    with pytest.raises(Exception, match="forged"):
        VerifyKey(key.public_key).verify(b"body", signature)  # not over the bare body
    assert len(key.address) == 20


@given(st.binary(min_size=20, max_size=20))
def test_addresses_round_trip(raw: bytes) -> None:
    text = format_address(Address(raw))
    assert text.startswith("pol1")
    assert parse_address(text) == raw
    assert parse_address(text.upper()) == raw


def test_bad_addresses_are_refused() -> None:
    good = format_address(Address(bytes(20)))
    wrong_letter = good[:-1] + ("q" if good[-1] != "q" else "p")
    for text in ("", "pol1", wrong_letter, good[:-1], good + "q", "cosmos" + good[3:]):
        with pytest.raises(InvalidAddress):
            parse_address(text)
    with pytest.raises(InvalidAddress, match="begin with 'pol'"):
        parse_address("a12uel5l")
    with pytest.raises(InvalidAddress, match="20 bytes"):
        parse_address(NINETEEN_BYTES)


@given(st.integers(min_value=0, max_value=MAX_SUPPLY))
def test_amounts_round_trip(amount: int) -> None:
    assert parse_amount(format_amount(Amount(amount))) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("1", 1_000_000), ("0.000001", 1), ("12.50", 12_500_000), ("007", 7_000_000)],
)
def test_amounts_are_read_as_coins(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.0000001", "1,5", " 1", "1\n", "٣", "nan"]
)
def test_amounts_that_are_not_decimal_coins_are_refused(text: str) -> None:
    with pytest.raises(InvalidCoins):
        parse_amount(text)


def test_an_amount_above_all_supply_is_refused() -> None:
    with pytest.raises(InvalidCoins, match="more than can ever exist"):
        parse_amount("9223372036854.775808")


def write_consensus_key(path: Path, value: bytes, kind: str = "tendermint/PrivKeyEd25519") -> Path:
    content = {"priv_key": {"type": kind, "value": base64.b64encode(value).decode()}}
    return write_private(path, json.dumps(content))


def test_cometbfts_key_is_read(tmp_path: Path) -> None:
    seed = bytes(range(32))
    raw = seed + bytes(SigningKey(seed).verify_key)
    assert load_consensus_seed(write_consensus_key(tmp_path / "key.json", raw)) == seed


def test_cometbfts_key_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    with pytest.raises(KeyFileError, match="does not match"):
        load_consensus_seed(write_consensus_key(path, bytes(64)))
    with pytest.raises(KeyFileError, match="only ed25519"):
        load_consensus_seed(write_consensus_key(path, bytes(64), "tendermint/PrivKeySecp256k1"))
