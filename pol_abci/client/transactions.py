"""Transactions made and signed, ready to be sent; protocol section 10.

Each function returns the raw bytes for `RpcClient.broadcast_tx_sync`. `sequence` is the account's
last used one plus one, `fee` in base units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from pol_abci.rules.codec import (
    Message,
    ProofMessage,
    RegisterValidator,
    Transfer,
    Unjail,
    encode_body,
    encode_tx,
    encode_unstamped_body,
)
from pol_abci.rules.seed import find_stamp
from pol_abci.rules.signing import sign_possession

if TYPE_CHECKING:
    from pol_abci.client.keys import AccountKey
    from pol_abci.rules.params import Address, Amount
    from pol_abci.rules.proof import Claim


def build_proof(
    key: AccountKey, chain_id: str, claim: Claim, *, seed: bytes, stamp_bits: int
) -> bytes:
    """Stamp and sign a proof of learning. Takes 2^stamp_bits hashes on average; 0 bits: stamp 0.

    `seed` is s_n of the generation that the walk starts from; the stamp is good for no other.
    """
    assert claim.address == key.address  # a proof is of its own address and no other
    unstamped = encode_unstamped_body(ProofMessage(claim, 0))
    stamp = find_stamp(seed, key.address, unstamped, stamp_bits)
    return _sign(key, chain_id, 0, 0, ProofMessage(claim, stamp))


def build_transfer(
    key: AccountKey,
    chain_id: str,
    *,
    sequence: int,
    fee: Amount,
    recipient: Address,
    amount: Amount,
) -> bytes:
    """Sign a transfer of `amount` base units."""
    return _sign(key, chain_id, sequence, fee, Transfer(recipient, amount))


def build_register_validator(
    key: AccountKey, chain_id: str, *, sequence: int, fee: Amount, consensus_seed: bytes
) -> bytes:
    """Sign the binding of a consensus key, given by its 32-byte seed, with that key too."""
    possession = sign_possession(consensus_seed, chain_id, key.address)
    consensus_key = bytes(SigningKey(consensus_seed).verify_key)
    return _sign(key, chain_id, sequence, fee, RegisterValidator(consensus_key, possession))


def build_unjail(key: AccountKey, chain_id: str, *, sequence: int, fee: Amount) -> bytes:
    """Sign the request to leave jail."""
    return _sign(key, chain_id, sequence, fee, Unjail())


def _sign(key: AccountKey, chain_id: str, sequence: int, fee: int, message: Message) -> bytes:
    body = encode_body(sequence, fee, message)
    return encode_tx(body, key.public_key, key.sign_body(chain_id, body))
