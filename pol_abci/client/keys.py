"""Account keys on disk, and how people write addresses and amounts; protocol section 10.

A key file is JSON, readable by its owner alone, and never overwritten: the seed in it is the only
thing that can spend the account. Addresses are shown as bech32 with the prefix `pol`; amounts are
integers of base units, a million to the coin, and no float touches them on the way.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bech32
from nacl.signing import SigningKey

from pol_abci.rules.address import ADDRESS_BYTES, compute_address
from pol_abci.rules.errors import PolError
from pol_abci.rules.params import MAX_SUPPLY, Address, Amount
from pol_abci.rules.signing import sign_body

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS_PREFIX = "pol"
SEED_BYTES = 32
COIN_DECIMALS = 6
COIN = 10**COIN_DECIMALS
"""Base units in a coin."""

_KEY_TYPE = "pol-account-key"
_KEY_VERSION = 1
_AMOUNT = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,6}))?", re.ASCII)
_CONSENSUS_KEY_TYPE = "tendermint/PrivKeyEd25519"


class KeyFileError(PolError):
    """A key file that cannot be read or written as asked."""


class InvalidAddress(PolError):
    """Text that is not an address of this chain's accounts."""


class InvalidCoins(PolError):
    """Text that is not an amount of coins."""


@dataclass(frozen=True, slots=True)
class AccountKey:
    """An ed25519 key of an account, made from its 32-byte seed. The seed stays out of `repr`."""

    seed: bytes = field(repr=False)
    public_key: bytes = field(init=False)
    address: Address = field(init=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise KeyFileError(f"an account key's seed has 32 bytes, not {len(self.seed)}")
        public_key = bytes(SigningKey(self.seed).verify_key)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "address", compute_address(public_key))

    @classmethod
    def generate(cls) -> AccountKey:
        """Return a new key from the operating system's randomness."""
        return cls(bytes(SigningKey.generate()))

    @classmethod
    def load(cls, path: Path) -> AccountKey:
        """Read a key file.

        Raises
        ------
        KeyFileError
            When it is missing, readable by others, or not a key file of this package.
        """
        content = _read_private_json(path, "account key")
        if content.get("type") != _KEY_TYPE or content.get("version") != _KEY_VERSION:
            raise KeyFileError(f"{path} is not an account key of this version; see `pol-abci keys`")
        try:
            key = cls(bytes.fromhex(content["seed"]))
        except (KeyError, TypeError, ValueError, KeyFileError) as error:
            raise KeyFileError(
                f"{path} is damaged: its seed is not 64 hexadecimal digits; restore it from a copy"
            ) from error
        if content.get("address") != format_address(key.address):
            raise KeyFileError(
                f"{path} is damaged: its seed belongs to {format_address(key.address)}, "
                f"not to the address in it; restore it from a copy"
            )
        return key

    def save(self, path: Path) -> None:
        """Write the key to a new file of mode 0600.

        Raises
        ------
        KeyFileError
            When the file exists, since its key would be lost, or cannot be written.
        """
        text = json.dumps(
            {
                "type": _KEY_TYPE,
                "version": _KEY_VERSION,
                "address": format_address(self.address),
                "public_key": self.public_key.hex(),
                "seed": self.seed.hex(),
            },
            indent=2,
        )
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise KeyFileError(
                f"{path} exists; a key is never overwritten, name another file"
            ) from error
        except OSError as error:
            raise KeyFileError(f"cannot write {path}: {error.strerror}") from error
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink()  # half a key is no key
            raise KeyFileError(f"cannot write {path}: {error.strerror}") from error

    def sign_body(self, chain_id: str, body: bytes) -> bytes:
        """Return the 64-byte signature over a transaction's body on the chain `chain_id`."""
        return sign_body(self.seed, chain_id, body)


def load_consensus_seed(path: Path) -> bytes:
    """Return the 32-byte ed25519 seed in CometBFT's `priv_validator_key.json`.

    Raises
    ------
    KeyFileError
        When the file is missing, readable by others, or holds no ed25519 key.
    """
    content = _read_private_json(path, "consensus key")
    private_key = content.get("priv_key")
    if not isinstance(private_key, dict) or private_key.get("type") != _CONSENSUS_KEY_TYPE:
        raise KeyFileError(f"{path} holds no {_CONSENSUS_KEY_TYPE}; only ed25519 validators exist")
    try:
        raw = base64.b64decode(private_key["value"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise KeyFileError(f"{path} is damaged: its private key is not base64") from error
    seed = raw[:SEED_BYTES]
    if len(raw) != 2 * SEED_BYTES or bytes(SigningKey(seed).verify_key) != raw[SEED_BYTES:]:
        raise KeyFileError(f"{path} is damaged: its private key does not match its public key")
    return seed


def format_address(address: Address) -> str:
    """Return the bech32 text of a 20-byte address."""
    words = bech32.convertbits(address, 8, 5)
    assert words is not None
    assert len(address) == ADDRESS_BYTES
    return str(bech32.bech32_encode(ADDRESS_PREFIX, words))


def parse_address(text: str) -> Address:
    """Return the 20 bytes of a bech32 address, or raise `InvalidAddress` with what is wrong."""
    prefix, words = bech32.bech32_decode(text)
    if prefix is None or words is None:
        raise InvalidAddress(
            f"{text!r} is not a bech32 address: look for a mistyped or missing character"
        )
    if prefix != ADDRESS_PREFIX:
        raise InvalidAddress(f"{text!r} begins with {prefix!r}; this chain's begin with 'pol'")
    content = bech32.convertbits(words, 5, 8, False)
    if content is None or len(content) != ADDRESS_BYTES:
        raise InvalidAddress(f"{text!r} does not hold 20 bytes, so it is no account's address")
    return Address(bytes(content))


def format_amount(amount: Amount) -> str:
    """Return base units as coins in decimal, without trailing zeros: 1,500,000 is `1.5`."""
    whole, rest = divmod(amount, COIN)
    return f"{whole}.{rest:0{COIN_DECIMALS}d}".rstrip("0").rstrip(".")


def parse_amount(text: str) -> Amount:
    """Return the base units of a decimal number of coins, or raise `InvalidCoins`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidCoins(
            f"{text!r} is not an amount of coins: write it as 12 or 12.5, "
            f"with at most {COIN_DECIMALS} decimals"
        )
    whole, rest = match.groups(default="")
    amount = int(whole) * COIN + int(rest.ljust(COIN_DECIMALS, "0"))
    if amount > MAX_SUPPLY:
        raise InvalidCoins(f"{text} coins are more than can ever exist")
    return Amount(amount)


def _read_private_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file that only its owner may read."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileError(
                    f"others can read the {what} {path} (mode {mode:04o}); run: chmod 600 {path}"
                )
            content = json.load(file)
    except FileNotFoundError as error:
        raise KeyFileError(f"there is no {what} at {path}") from error
    except OSError as error:
        raise KeyFileError(f"cannot read the {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{path} is not JSON, so it holds no {what}") from error
    if not isinstance(content, dict):
        raise KeyFileError(f"{path} is not a JSON object, so it holds no {what}")
    return content
