"""The transaction that made a generation is found in its block by its hash, or is said to miss."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.proofs import ProofMissing, find_proof, read_claim
from pol_abci.client.transactions import build_proof, build_unjail
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.params import Amount
from pol_abci.rules.proof import PaperClaim

KEY = AccountKey(bytes(32))
FRAME = bytes(2_000_000)  # more than a walk's transaction may have
CLAIM = PaperClaim(
    generation=2,
    address=KEY.address,
    ordinals=(3, 1, 4, 5),
    weights=FRAME,
    weights_digest=hashlib.sha256(FRAME).digest(),
    weights_root=bytes(32),
)
RAW = build_proof(KEY, "c", CLAIM, seed=b"", stamp_bits=0)
RECORD = GenerationRecord(
    generation=3,
    height=9,
    time_ms=0,
    interval_ms=0,
    difficulty=0,
    score=0,
    correct_head=0,
    correct_ticket=0,
    miner=KEY.address,
    nonce=0,
    steps=1,
    weights_root=bytes(32),
    tx_hash=hashlib.sha256(RAW).digest(),
)


def test_the_proof_is_the_transaction_with_the_hash() -> None:
    assert find_proof((b"other", RAW), RECORD) == RAW
    claim = read_claim(RAW)
    assert claim == CLAIM
    assert isinstance(claim, PaperClaim)
    assert claim.weights == FRAME


def test_a_block_without_it_is_told_by_its_height() -> None:
    with pytest.raises(ProofMissing, match="block 9 does not have the proof of generation 3"):
        find_proof((b"other", RAW), replace(RECORD, tx_hash=bytes(32)))


def test_what_is_no_proof_is_told() -> None:
    with pytest.raises(ProofMissing, match="is no proof"):
        read_claim(build_unjail(KEY, "c", sequence=1, fee=Amount(1)))
    with pytest.raises(ProofMissing, match="cannot be read"):
        read_claim(RAW[:-1])
