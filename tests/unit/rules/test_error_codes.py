"""Codes are for programs of other people: one each, for ever."""

from __future__ import annotations

from pol_abci.rules import errors

CODES = {
    "MalformedTx": 2,
    "OversizeTx": 3,
    "InvalidSignature": 4,
    "InvalidSequence": 5,
    "FeeTooLow": 6,
    "InsufficientFunds": 7,
    "InvalidAmount": 8,
    "ChainNotStarted": 20,
    "StaleProof": 21,
    "FutureProof": 22,
    "InvalidSteps": 23,
    "InvalidStamp": 24,
    "PendingProof": 25,
    "FalseProof": 26,
    "DifficultyNotMet": 27,
    "NoProgress": 28,
    "SecondProof": 29,
    "ProofRefused": 30,
    "OtherScheme": 31,
    "InvalidBatch": 32,
    "KeyAlreadyBound": 40,
    "InvalidPossession": 41,
    "NotJailed": 42,
    "BarredValidator": 43,
}


def test_every_way_to_be_invalid_keeps_its_code() -> None:
    assert {each.__name__: each.code for each in errors.InvalidTx.__subclasses__()} == CODES
    assert len(set(CODES.values())) == len(CODES)
    assert {errors.CODE_OK, errors.CODE_FAILED} == {0, 1}
