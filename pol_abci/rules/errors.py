"""The ways to be invalid. Each class owns one code, stable for ever (docs/protocol.md, "Codes").

Invalid input is data, never a fault: these are raised for it and nothing else, and only
`InvalidTx` is caught. The message is for people (ABCI's `log`); the code is for programs.

    PolError
     + GenesisError
     + MalformedRecord    in what was stored, or told by a peer
     + InvalidTx          code, in CheckTx; every failure is code 1 in FinalizeBlock
        + MalformedTx, OversizeTx, InvalidSignature, ...
"""

from __future__ import annotations

from typing import ClassVar


class PolError(Exception):
    """Any fault of input that this package reports in words."""


class GenesisError(PolError):
    """A genesis that cannot start a chain, or not this node's chain."""


class MalformedRecord(PolError):
    """Bytes that are no record of the state: a damaged store, or a peer's lie."""


CODE_OK = 0
CODE_FAILED = 1
"""Any failing transaction in FinalizeBlock: its code is hashed, so it has no detail."""
CODESPACE = "pol"


class InvalidTx(PolError):
    """A transaction that cannot be included now, or ever."""

    code: ClassVar[int]


class MalformedTx(InvalidTx):
    """Not the canonical encoding of a transaction."""

    code = 2


class OversizeTx(InvalidTx):
    """Longer than a transaction may be."""

    code = 3


class InvalidSignature(InvalidTx):
    """The signature is not the key's, or not for this chain."""

    code = 4


class InvalidSequence(InvalidTx):
    """Not the account's next sequence number: used before, or ahead of it."""

    code = 5


class FeeTooLow(InvalidTx):
    """Below the chain's smallest fee."""

    code = 6


class InsufficientFunds(InvalidTx):
    """More than the account can spend."""

    code = 7


class InvalidAmount(InvalidTx):
    """Zero, or more than can exist."""

    code = 8


class ChainNotStarted(InvalidTx):
    """Proofs are taken from the third block on."""

    code = 20


class StaleProof(InvalidTx):
    """Starts from a head that is no longer the newest."""

    code = 21


class FutureProof(InvalidTx):
    """Starts from a head that does not exist yet."""

    code = 22


class InvalidSteps(InvalidTx):
    """Fewer or more steps than the chain allows, or digests that do not match their number."""

    code = 23


class InvalidStamp(InvalidTx):
    """The stamp's hash, over the seed of the head, does not begin with enough zero bits."""

    code = 24


class PendingProof(InvalidTx):
    """Not walked yet. The node verifies it and submits it itself when it is good."""

    code = 25


class FalseProof(InvalidTx):
    """The walk is not what the proof says."""

    code = 26


class DifficultyNotMet(InvalidTx):
    """True, but its score is below the difficulty of this moment; it may become good."""

    code = 27


class NoProgress(InvalidTx):
    """True, but the model that it makes classifies too few of the sample."""

    code = 28


class SecondProof(InvalidTx):
    """A block holds at most one proof."""

    code = 29


class ProofRefused(InvalidTx):
    """The node will not walk it now: its queue is full, or the address has been false."""

    code = 30


class OtherScheme(InvalidTx):
    """A proof of another scheme than the chain's."""

    code = 31


class InvalidBatch(InvalidTx):
    """Not the batch size's number of ordinals, or one of them twice."""

    code = 32


class KeyAlreadyBound(InvalidTx):
    """The account has a consensus key, or the key has an account."""

    code = 40


class InvalidPossession(InvalidTx):
    """The consensus key did not sign for this account."""

    code = 41


class NotJailed(InvalidTx):
    """Only a jailed validator can leave jail."""

    code = 42


class BarredValidator(InvalidTx):
    """Misbehaviour has barred this validator for ever."""

    code = 43
