"""Account keys on disk, and how people write addresses and amounts; protocol section 10.

A key file is JSON, readable by its owner alone, and never overwritten: the seed in it is the only
thing that can spend the account. It holds the seed as it is (version 1) or sealed with a
passphrase (version 2); address and public key are in clear either way. Addresses are shown as
bech32 with the prefix `pol`; amounts are integers of base units, a million to the coin, and no
float touches them on the way.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bech32
from nacl.signing import SigningKey

from pol_abci.client.private_files import KeyFileError, read_private_json, write_private_json
from pol_abci.client.sealing import WrongPassphrase, open_seed, seal_seed
from pol_abci.rules.address import ADDRESS_BYTES, PUBLIC_KEY_BYTES, compute_address
from pol_abci.rules.errors import PolError
from pol_abci.rules.params import MAX_SUPPLY, Address, Amount
from pol_abci.rules.signing import sign_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ADDRESS_PREFIX = "pol"
SEED_BYTES = 32
COIN_DECIMALS = 6
COIN = 10**COIN_DECIMALS
"""Base units in a coin."""

_KEY_TYPE = "pol-account-key"
_PLAIN_VERSION, _SEALED_VERSION = 1, 2
_AMOUNT = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,6}))?", re.ASCII)
_CONSENSUS_KEY_TYPE = "tendermint/PrivKeyEd25519"


class InvalidAddress(PolError):
    """Text that is not an address of this chain's accounts."""


class InvalidCoins(PolError):
    """Text that is not an amount of coins."""


class PassphraseMissing(KeyFileError):
    """A sealed key, and nobody to ask for its passphrase."""


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
    def load(cls, path: Path, ask_passphrase: Callable[[], str] | None = None) -> AccountKey:
        """Read a key file; `ask_passphrase` is called for one that has a passphrase.

        Raises
        ------
        WrongPassphrase, PassphraseMissing
            When it is sealed, and does not open.
        KeyFileError
            When it is missing, readable by others, or not a key file of this package.
        """
        return KeyFile.read(path).unlock(ask_passphrase)

    def save(self, path: Path, passphrase: str | None = None, *, replace: bool = False) -> None:
        """Write the key to a file of mode 0600, sealed if there is a passphrase.

        Raises
        ------
        KeyFileError
            When the file exists, since its key would be lost, or cannot be written.
        """
        content = {
            "type": _KEY_TYPE,
            "version": _PLAIN_VERSION if passphrase is None else _SEALED_VERSION,
            "address": format_address(self.address),
            "public_key": self.public_key.hex(),
        }
        if passphrase is None:
            write_private_json(path, content | {"seed": self.seed.hex()}, replace=replace)
        else:
            sealed = seal_seed(self.seed, passphrase)
            write_private_json(path, content | {"sealed_seed": sealed}, replace=replace)

    def sign_body(self, chain_id: str, body: bytes) -> bytes:
        """Return the 64-byte signature over a transaction's body on the chain `chain_id`."""
        return sign_body(self.seed, chain_id, body)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """An account key's file as it was read: what anybody may know of it, and the way to the rest.

    Nothing vouches for `address` and `public_key` until it is unlocked but that they belong to
    each other.
    """

    path: Path
    address: Address
    public_key: bytes
    is_sealed: bool
    _content: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """Read a key file without its passphrase.

        Raises
        ------
        KeyFileError
            When it is missing, readable by others, or not a key file of this package.
        """
        content = read_private_json(path, "account key")
        version = content.get("version")
        if content.get("type") != _KEY_TYPE or version not in (_PLAIN_VERSION, _SEALED_VERSION):
            raise KeyFileError(f"{path} is not an account key of this version; see `pol-abci keys`")
        try:
            public_key = bytes.fromhex(content["public_key"])
            address = parse_address(content["address"])
        except (KeyError, TypeError, ValueError, InvalidAddress) as error:
            raise _call_damaged(path, "it has no address or no public key") from error
        if len(public_key) != PUBLIC_KEY_BYTES or compute_address(public_key) != address:
            raise _call_damaged(path, "its address is not that of its public key")
        return cls(path, address, public_key, version == _SEALED_VERSION, content)

    def unlock(self, ask_passphrase: Callable[[], str] | None = None) -> AccountKey:
        """Return the key; errors as `AccountKey.load`."""
        key = AccountKey(self._open(ask_passphrase) if self.is_sealed else self._take_seed())
        if key.public_key != self.public_key:
            owner = format_address(key.address)
            raise _call_damaged(self.path, f"its seed belongs to {owner}, not to its address")
        return key

    def _take_seed(self) -> bytes:
        try:
            seed = bytes.fromhex(self._content["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._miss_seed() from error
        if len(seed) != SEED_BYTES:
            raise self._miss_seed()
        return seed

    def _miss_seed(self) -> KeyFileError:
        return _call_damaged(self.path, "its seed is not 64 hexadecimal digits")

    def _open(self, ask_passphrase: Callable[[], str] | None) -> bytes:
        if ask_passphrase is None:
            raise PassphraseMissing(f"{self.path} has a passphrase, and nobody gave it")
        passphrase = ask_passphrase()
        try:
            return open_seed(self._content.get("sealed_seed"), passphrase)
        except WrongPassphrase as error:
            raise WrongPassphrase(f"that is not the passphrase of {self.path}") from error
        except ValueError as error:
            raise _call_damaged(self.path, f"its sealed seed cannot be read: {error}") from error


def load_consensus_seed(path: Path) -> bytes:
    """Return the 32-byte ed25519 seed in CometBFT's `priv_validator_key.json`.

    Raises
    ------
    KeyFileError
        When the file is missing, readable by others, or holds no ed25519 key.
    """
    content = read_private_json(path, "consensus key")
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
            f"{text!r} is not an address: write it as `pol-abci keys show` prints it, from "
            f"{ADDRESS_PREFIX}1 on; look for a mistyped or missing character"
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


def _call_damaged(path: Path, why: str) -> KeyFileError:
    return KeyFileError(f"{path} is damaged: {why}; restore it from a copy")
