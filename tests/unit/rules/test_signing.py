"""Signatures: who can make them, for what, and which crafted ones are refused everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pol_abci.rules.codec import encode_body, encode_tx
from pol_abci.rules.errors import InvalidPossession, InvalidSignature
from pol_abci.rules.signing import (
    authenticate,
    is_signed,
    sign_body,
    sign_possession,
    verify_possession,
    verify_tx,
)
from tests.unit.rules import build_chain as make
from tests.unit.rules import plain_ed25519 as plain

SECRET, NONCE = 12345, 6789
KEY = plain.encode(plain.multiply(SECRET, plain.BASE))
R = plain.encode(plain.multiply(NONCE, plain.BASE))
KEY_WITH_TORSION = plain.encode(plain.add(plain.multiply(SECRET, plain.BASE), plain.TORSION))
R_WITH_TORSION = plain.encode(plain.add(plain.multiply(NONCE, plain.BASE), plain.TORSION))


def test_address_is_the_start_of_the_key_s_hash() -> None:
    tx = make.build_tx(make.transfer("alice", 1, "bob", 5))
    assert tx.address == make.address("alice")
    assert len(tx.address) == 20


def test_signature_is_for_one_chain() -> None:
    tx = make.build_tx(make.transfer("alice", 1, "bob", 5))
    verify_tx(make.CHAIN_ID, tx)
    with pytest.raises(InvalidSignature):
        verify_tx("pol-other", tx)


def test_another_key_cannot_take_a_body_over() -> None:
    body = encode_body(1, 10, make.make_message(make.transfer("alice", 1, "bob", 5)))
    signature = sign_body(make.account_seed("alice"), make.CHAIN_ID, body)
    with pytest.raises(InvalidSignature):
        authenticate(make.CHAIN_ID, encode_tx(body, make.public_key("carol"), signature))


@given(st.integers(0, 511))
@settings(max_examples=40, deadline=None)
def test_any_changed_bit_of_a_signature_counts(bit: int) -> None:
    tx = make.build_tx(make.transfer("alice", 1, "bob", 5))
    flipped = bytearray(tx.signature)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidSignature):
        verify_tx(make.CHAIN_ID, replace(tx, signature=bytes(flipped)))


def test_possession_is_for_one_account_on_one_chain() -> None:
    key, seed = make.consensus_key("alice"), make.account_seed("alice node")
    possession = sign_possession(seed, make.CHAIN_ID, make.address("alice"))
    verify_possession(make.CHAIN_ID, make.address("alice"), key, possession)
    with pytest.raises(InvalidPossession):
        verify_possession(make.CHAIN_ID, make.address("bob"), key, possession)
    with pytest.raises(InvalidPossession):
        verify_possession("pol-other", make.address("alice"), key, possession)


def test_possession_is_no_signature_of_a_transaction() -> None:
    seed, chain_id = make.account_seed("alice"), make.CHAIN_ID
    assert sign_body(seed, chain_id, make.address("alice")) != sign_possession(
        seed, chain_id, make.address("alice")
    )


def test_plain_ed25519_signs_as_libsodium() -> None:
    for seed, message in ((bytes(32), b""), (bytes(range(32)), b"pol")):
        key, signature = plain.sign(seed, message)
        assert is_signed(key, message, signature)
        assert plain.is_valid(key, message, signature)


def crafted() -> dict[str, tuple[bytes, bytes, bytes]]:
    """Key, message and signature: what lenient libraries take and others don't."""
    message = b"crafted"
    good = plain.sign_with(SECRET, NONCE, KEY, R, message)
    s = int.from_bytes(good[32:], "little")
    low = plain.encode(plain.TORSION)
    neutral, high_neutral = plain.encode(plain.NEUTRAL), (plain.P + 1).to_bytes(32, "little")
    return {
        "S + L": (KEY, message, R + (s + plain.ORDER).to_bytes(32, "little")),
        "key with a torsion part": (
            KEY_WITH_TORSION,
            message,
            plain.sign_with(SECRET, NONCE, KEY_WITH_TORSION, R, message),
        ),
        "R with a torsion part": (
            KEY,
            message,
            plain.sign_with(SECRET, NONCE, KEY, R_WITH_TORSION, message),
        ),
        "key of small order": (low, message, plain.sign_with(0, NONCE, low, R, message)),
        "neutral key": (neutral, message, plain.sign_with(0, NONCE, neutral, R, message)),
        "neutral R": (KEY, message, plain.sign_with(SECRET, 0, KEY, neutral, message)),
        "key >= p": (high_neutral, message, plain.sign_with(0, NONCE, high_neutral, R, message)),
        "R >= p": (KEY, message, plain.sign_with(SECRET, 0, KEY, high_neutral, message)),
        "key off the curve": ((2).to_bytes(32, "little"), message, good),
        "all zero": (bytes(32), message, bytes(64)),
        "all one": (b"\xff" * 32, message, b"\xff" * 64),
    }


@pytest.mark.parametrize("name", sorted(crafted()))
def test_invalid_crafted_signature(name: str) -> None:
    key, message, signature = crafted()[name]
    assert not plain.is_valid(key, message, signature)
    assert not is_signed(key, message, signature)


def test_key_with_torsion_is_judged_without_cofactor() -> None:
    """Such a key signs truly one time in eight: when the challenge is a multiple of 8."""
    answers = []
    for number in range(24):
        message = bytes([number])
        signature = plain.sign_with(SECRET, NONCE, KEY_WITH_TORSION, R, message)
        answers.append(is_signed(KEY_WITH_TORSION, message, signature))
        assert answers[-1] == plain.is_valid(KEY_WITH_TORSION, message, signature)
    assert len(set(answers)) == 2
