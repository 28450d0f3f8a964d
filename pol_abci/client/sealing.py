"""A key's seed under a passphrase: Argon2id makes a key of it, SecretBox locks the seed up.

What the key derivation costs stands in the file, so that it may be raised later.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from nacl.exceptions import CryptoError
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


@dataclass(frozen=True, slots=True)
class Cost:
    """What a guess costs: passes over the memory, and how much memory that is."""

    operations: int
    memory_bytes: int


MODERATE = Cost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""libsodium's middle: 256 MiB and about a second."""


def seal_seed(seed: bytes, passphrase: str, cost: Cost = MODERATE) -> dict[str, Any]:
    """Return what a key file keeps in place of the seed."""
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
    try:
        return bytes(SecretBox(_derive_key(passphrase, salt, cost)).decrypt(box))
    except CryptoError as error:
        raise WrongPassphrase("that is not the passphrase of this key") from error


def _derive_key(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    # Keyboards write the same letter in several ways: one form of it goes in.
    text = unicodedata.normalize("NFKD", passphrase).encode()
    return bytes(argon2id.kdf(SecretBox.KEY_SIZE, text, salt, cost.operations, cost.memory_bytes))
