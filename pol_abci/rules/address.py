"""Names of keys: what an ed25519 public key is called on the chain and by CometBFT."""

from __future__ import annotations

import hashlib

from pol_abci.rules.params import Address

ADDRESS_BYTES = 20
PUBLIC_KEY_BYTES = 32


def compute_address(public_key: bytes) -> Address:
    """Account that an ed25519 public key signs for: the first 20 bytes of its SHA-256."""
    return Address(hashlib.sha256(public_key).digest()[:ADDRESS_BYTES])


def compute_consensus_address(consensus_key: bytes) -> bytes:
    """What CometBFT calls a validator: the same rule, of its consensus key."""
    return hashlib.sha256(consensus_key).digest()[:ADDRESS_BYTES]
