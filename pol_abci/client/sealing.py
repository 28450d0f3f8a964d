"""A key's seed under a passphrase: Argon2id makes a key of it, SecretBox locks the seed up.

What the key derivation costs stands in the file, so that it may be raised later.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import nacl.exceptions
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random

from pol_abci.client.private_files import KeyFileError

PASSPHRASE_VARIABLE = "POL_PASSPHRASE"  # noqa: S105 (a name)
"""Where programs find the passphrase in their environment."""
MAX_OPERATIONS = 64
MAX_MEMORY_BYTES = 1 << 30
"""More than any file of this program asks for: a damaged one must not take the machine down."""

_DERIVATION, _CIPHER = "argon2id", "xsalsa20-poly1305"


class WrongPassphrase(KeyFileError):
    """Not the passphrase that the seed was sealed with."""


class UnusablePassphrase(KeyFileError):
    """A passphrase that no key can be derived from here."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a guess costs: passes over the memory, and how much memory that is."""

    operations: int
    memory_bytes: int


MODERATE = Cost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""libsodium's middle: 256 MiB and about a second."""


def seal_seed(seed: bytes, passphrase: str, cost: Cost = MODERATE) -> dict[str, Any]:
    """Return what a key file keeps in place of the seed.

    Raises
    ------
    UnusablePassphrase
        When no key can be derived from the passphrase.
    """
    salt = random(argon2id.SALTBYTES)
    box = SecretBox(_derive_key(passphrase, salt, cost))
    return {
        "derivation": _DERIVATION,
        "operations": cost.operations,
        "memory_bytes": cost.memory_bytes,
        "salt": salt.hex(),
        "cipher": _CIPHER,
        "box": bytes(box.encrypt(seed)).hex(),  # its random nonce comes first
    }


def open_seed(sealed: Any, passphrase: str) -> bytes:
    """Return the seed.

    Raises
    ------
    WrongPassphrase
        When the passphrase does not open it.
    UnusablePassphrase
        When no key can be derived from it.
    ValueError
        When `sealed` is not what `seal_seed` makes.
    """
    try:
        if (sealed["derivation"], sealed["cipher"]) != (_DERIVATION, _CIPHER):
            raise ValueError("it is sealed in a way that this version does not know")
        cost = Cost(int(sealed["operations"]), int(sealed["memory_bytes"]))
        salt, box = bytes.fromhex(sealed["salt"]), bytes.fromhex(sealed["box"])
    except (KeyError, TypeError) as error:
        raise ValueError("a part of it is missing") from error
    if (
        not argon2id.OPSLIMIT_MIN <= cost.operations <= MAX_OPERATIONS
        or not argon2id.MEMLIMIT_MIN <= cost.memory_bytes <= MAX_MEMORY_BYTES
        or len(salt) != argon2id.SALTBYTES
        or len(box) <= SecretBox.NONCE_SIZE + SecretBox.MACBYTES
    ):
        raise ValueError("a part of it is out of range")
    key = _derive_key(passphrase, salt, cost)
    try:
        return bytes(SecretBox(key).decrypt(box))
    except nacl.exceptions.CryptoError as error:
        raise WrongPassphrase("that is not the passphrase of this key") from error


def _derive_key(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    try:
        # Keyboards write the same letter in several ways: one form of it goes in.
        text = unicodedata.normalize("NFKD", passphrase).encode()
    except UnicodeEncodeError as error:
        raise UnusablePassphrase(
            "the passphrase is not UTF-8 text: give it in this terminal's encoding"
        ) from error
    try:
        key = argon2id.kdf(SecretBox.KEY_SIZE, text, salt, cost.operations, cost.memory_bytes)
    except nacl.exceptions.RuntimeError as error:
        raise UnusablePassphrase(
            f"no key can be derived from the passphrase: that takes {cost.memory_bytes >> 20} MiB "
            "of memory, which this machine does not give"
        ) from error
    return bytes(key)
