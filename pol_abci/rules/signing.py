"""What is signed, and by whom; protocol section 10.

Ed25519 by libsodium's rule: S < L, canonical A and R, no point of small order, no cofactor.
Libraries disagree on keys and signatures crafted against the looser rules, so this one rule is
part of consensus; `tests/unit/rules/test_signing.py` holds libsodium to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from pol_abci.rules.address import compute_address, compute_consensus_address
from pol_abci.rules.codec import decode_tx
from pol_abci.rules.errors import InvalidPossession, InvalidSignature
from pol_abci.rules.params import MAX_TX_BYTES
from pol_abci.rules.seed import hash_fields

if TYPE_CHECKING:
    from pol_abci.rules.codec import SignedTx
    from pol_abci.rules.params import Address

__all__ = [
    "authenticate",
    "compute_address",
    "compute_consensus_address",
    "is_signed",
    "sign_body",
    "sign_possession",
    "verify_possession",
    "verify_tx",
]


def authenticate(chain_id: str, raw: bytes, max_tx_bytes: int = MAX_TX_BYTES) -> SignedTx:
    """Read a transaction and check that its sender signed it for this chain.

    Depends on nothing but its arguments, so the answer may be kept by the hash of `raw`.

    Raises
    ------
    MalformedTx, OversizeTx, InvalidSignature
    """
    tx = decode_tx(raw, max_tx_bytes)
    verify_tx(chain_id, tx)
    return tx


def sign_body(seed: bytes, chain_id: str, body: bytes) -> bytes:
    """Signature, 64 bytes, of the key made from a 32-byte seed over H("tx"; chain_id, body)."""
    return SigningKey(seed).sign(_compute_tx_message(chain_id, body)).signature


def verify_tx(chain_id: str, tx: SignedTx) -> None:
    """Check the sender's signature.

    Raises
    ------
    InvalidSignature
        When the transaction's key did not sign this body for this chain.
    """
    if not is_signed(tx.public_key, _compute_tx_message(chain_id, tx.body_bytes), tx.signature):
        raise InvalidSignature(f"sign the body with the key of {tx.address.hex()} for {chain_id}")


def sign_possession(seed: bytes, chain_id: str, address: Address) -> bytes:
    """A consensus key's signature, 64 bytes, for the account that may bind it."""
    return SigningKey(seed).sign(_compute_possession_message(chain_id, address)).signature


def verify_possession(
    chain_id: str, address: Address, consensus_key: bytes, possession: bytes
) -> None:
    """Check that whoever holds a consensus key gave it to this account.

    Raises
    ------
    InvalidPossession
        When the consensus key did not sign for the account.
    """
    message = _compute_possession_message(chain_id, address)
    if not is_signed(consensus_key, message, possession):
        raise InvalidPossession(f"sign for {address.hex()} on {chain_id} with the consensus key")


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of 64 bytes is the key's, 32 bytes, over `message`."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _compute_tx_message(chain_id: str, body: bytes) -> bytes:
    return hash_fields("tx", chain_id.encode(), body)


def _compute_possession_message(chain_id: str, address: Address) -> bytes:
    return hash_fields("validator", chain_id.encode(), address)
