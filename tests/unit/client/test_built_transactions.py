from __future__ import annotations

import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.transactions import (
    build_proof,
    build_register_validator,
    build_transfer,
    build_unjail,
)
from pol_abci.rules.codec import (
    ProofMessage,
    RegisterValidator,
    Transfer,
    Unjail,
    encode_unstamped_body,
)
from pol_abci.rules.errors import InvalidSignature
from pol_abci.rules.params import Address, Amount
from pol_abci.rules.proof import WalkClaim
from pol_abci.rules.seed import is_stamped
from pol_abci.rules.signing import authenticate, verify_possession

KEY = AccountKey(bytes(range(32)))
FEE = Amount(1_000)


def test_a_proof_is_signed_and_stamped() -> None:
    claim = WalkClaim(
        generation=3,
        address=KEY.address,
        nonce=2**64 - 1,
        steps=2,
        step_digests=bytes(16),
        weights_root=bytes(32),
    )
    seed = b"s" * 32
    tx = authenticate("c", build_proof(KEY, "c", claim, seed=seed, stamp_bits=8))
    assert isinstance(tx.message, ProofMessage)
    assert tx.message.claim == claim
    assert is_stamped(seed, KEY.address, encode_unstamped_body(tx.message), tx.message.stamp, 8)


def test_a_transfer_is_for_its_chain_alone() -> None:
    recipient = Address(b"r" * 20)
    raw = build_transfer(KEY, "c", sequence=4, fee=FEE, recipient=recipient, amount=Amount(5))
    tx = authenticate("c", raw)
    assert (tx.address, tx.sequence, tx.fee) == (KEY.address, 4, FEE)
    assert tx.message == Transfer(recipient, Amount(5))
    with pytest.raises(InvalidSignature):
        authenticate("other", raw)


def test_a_registration_shows_possession() -> None:
    raw = build_register_validator(KEY, "c", sequence=1, fee=FEE, consensus_seed=b"v" * 32)
    message = authenticate("c", raw).message
    assert isinstance(message, RegisterValidator)
    verify_possession("c", KEY.address, message.consensus_key, message.possession)


def test_unjail() -> None:
    assert authenticate("c", build_unjail(KEY, "c", sequence=1, fee=FEE)).message == Unjail()
