"""Transactions and records of the state <-> canonical bytes; protocol sections 10 and 12.

Canonical protobuf: fields in order of number, defaults left out, nothing unknown. There is one
encoding of each value, so a transaction has one hash and a state one root. This is the only
module of the rules that sees generated messages: beyond it everything is a typed value.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from pol_abci.rules.address import ADDRESS_BYTES, PUBLIC_KEY_BYTES, compute_address
from pol_abci.rules.errors import MalformedRecord, MalformedTx, OversizeTx
from pol_abci.rules.generated import state_pb2, tx_pb2
from pol_abci.rules.params import MAX_TX_BYTES, Address, Amount
from pol_abci.rules.proof import Claim, PaperClaim, WalkClaim

SIGNATURE_BYTES = 64
ROOT_BYTES = 32

AnyProtobuf = TypeVar("AnyProtobuf", bound=Protobuf)


@dataclass(frozen=True, slots=True)
class ProofMessage:
    """A claim and the stamp that paid for the verifier's attention; protocol section 7.

    The paper's proofs bear no stamp: 0.
    """

    claim: Claim
    stamp: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Coins for an address, which need not be known yet."""

    recipient: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class RegisterValidator:
    """Binds a consensus key to the sender; `possession` is that key's signature for it."""

    consensus_key: bytes
    possession: bytes


@dataclass(frozen=True, slots=True)
class Unjail:
    """Takes the sender's validator out of jail."""


Message = ProofMessage | Transfer | RegisterValidator | Unjail


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTx:
    """A transaction of good form. `hash` is CometBFT's: SHA-256 of all its bytes."""

    body_bytes: bytes
    public_key: bytes
    signature: bytes
    address: Address
    sequence: int
    fee: Amount
    message: Message
    hash: bytes


def encode_body(sequence: int, fee: int, message: Message) -> bytes:
    """Canonical TxBody: what is signed, with the chain's id.

    Raises
    ------
    ValueError
        For a number that its field cannot hold, a mistake of the caller.
    """
    body = tx_pb2.TxBody(sequence=sequence, fee=fee)
    match message:
        case ProofMessage(WalkClaim() as claim, stamp):
            body.proof.CopyFrom(
                tx_pb2.Proof(
                    generation=claim.generation,
                    nonce=claim.nonce,
                    steps=claim.steps,
                    step_digests=claim.step_digests,
                    weights_root=claim.weights_root,
                    stamp=stamp,
                )
            )
        case ProofMessage(PaperClaim() as claim, stamp):
            assert stamp == 0, "the paper's proofs bear no stamp"
            body.paper_proof.CopyFrom(
                tx_pb2.PaperProof(
                    generation=claim.generation,
                    ordinals=claim.ordinals,
                    weights=claim.weights,
                    weights_root=claim.weights_root,
                )
            )
        case Transfer(recipient, amount):
            body.transfer.CopyFrom(tx_pb2.Transfer(recipient=recipient, amount=amount))
        case RegisterValidator(consensus_key, possession):
            body.register_validator.CopyFrom(
                tx_pb2.RegisterValidator(consensus_key=consensus_key, possession=possession)
            )
        case Unjail():
            body.unjail.SetInParent()
    return _serialize(body)


def encode_unstamped_body(message: ProofMessage) -> bytes:
    """The proof's body with stamp = 0: what its stamp covers."""
    return encode_body(0, 0, replace(message, stamp=0))


def encode_tx(body: bytes, public_key: bytes, signature: bytes) -> bytes:
    """Canonical Tx: what is sent."""
    return _serialize(tx_pb2.Tx(body=body, public_key=public_key, signature=signature))


def decode_tx(raw: bytes, max_tx_bytes: int = MAX_TX_BYTES) -> SignedTx:
    """Read a transaction, looking at its form alone.

    Raises
    ------
    OversizeTx
        When it is longer than `max_tx_bytes`, which the chain's scheme says.
    MalformedTx
        When it is not the canonical encoding of a transaction, or a field has a wrong length.
    """
    if len(raw) > max_tx_bytes:
        raise OversizeTx(f"{len(raw)} bytes: a transaction has at most {max_tx_bytes}")
    tx = _parse_tx(tx_pb2.Tx, raw)
    if not _is_canonical(tx, raw):
        raise MalformedTx("encode the transaction canonically")
    _check_length("public_key", tx.public_key, PUBLIC_KEY_BYTES)
    _check_length("signature", tx.signature, SIGNATURE_BYTES)
    address = compute_address(tx.public_key)
    body = _parse_tx(tx_pb2.TxBody, tx.body)
    message = _decode_message(body, address)
    if not _is_canonical(body, tx.body):
        raise MalformedTx("encode the body canonically")
    if isinstance(message, ProofMessage) and (body.sequence or body.fee):
        raise MalformedTx("leave sequence and fee of a proof at 0")
    return SignedTx(
        body_bytes=tx.body,
        public_key=tx.public_key,
        signature=tx.signature,
        address=address,
        sequence=body.sequence,
        fee=Amount(body.fee),
        message=message,
        hash=hashlib.sha256(raw).digest(),
    )


def _parse_tx(kind: type[AnyProtobuf], raw: bytes) -> AnyProtobuf:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise MalformedTx(f"not a protobuf {kind.DESCRIPTOR.name}") from error


def _is_canonical(message: Protobuf, raw: bytes) -> bool:
    """Whether what was understood of `raw` is all of it, in its one encoding.

    Anything unknown, repeated, out of order or oddly encoded differs when it is written anew.
    """
    message.DiscardUnknownFields()
    return _serialize(message) == raw


def _decode_message(body: tx_pb2.TxBody, address: Address) -> Message:
    match body.WhichOneof("message"):
        case "proof":
            return _decode_proof(body.proof, address)
        case "paper_proof":
            return _decode_paper_proof(body.paper_proof, address)
        case "transfer":
            recipient = body.transfer.recipient
            _check_length("recipient", recipient, ADDRESS_BYTES)
            return Transfer(Address(recipient), Amount(body.transfer.amount))
        case "register_validator":
            register = body.register_validator
            _check_length("consensus_key", register.consensus_key, PUBLIC_KEY_BYTES)
            _check_length("possession", register.possession, SIGNATURE_BYTES)
            return RegisterValidator(register.consensus_key, register.possession)
        case "unjail":
            return Unjail()
        case None:
            raise MalformedTx("the body has no message")


def _decode_proof(proof: tx_pb2.Proof, address: Address) -> ProofMessage:
    _check_length("weights_root", proof.weights_root, ROOT_BYTES)
    claim = WalkClaim(
        generation=proof.generation,
        address=address,
        nonce=proof.nonce,
        steps=proof.steps,
        step_digests=proof.step_digests,
        weights_root=proof.weights_root,
    )
    return ProofMessage(claim, proof.stamp)


def _decode_paper_proof(proof: tx_pb2.PaperProof, address: Address) -> ProofMessage:
    _check_length("weights_root", proof.weights_root, ROOT_BYTES)
    claim = PaperClaim(
        generation=proof.generation,
        address=address,
        ordinals=tuple(proof.ordinals),
        weights=proof.weights,
        weights_digest=hashlib.sha256(proof.weights).digest(),
        weights_root=proof.weights_root,
    )
    return ProofMessage(claim, 0)


def _check_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise MalformedTx(f"{name} has {len(value)} bytes: give {length}")


class Record:
    """A value of the state whose fields are those of its protobuf message."""

    __slots__ = ()
    PROTOBUF: ClassVar[type[Protobuf]]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def encode(self) -> bytes:
        """Canonical bytes.

        Raises
        ------
        ValueError
            For a number that its field cannot hold, a bug of the caller.
        """
        names = self.__dataclass_fields__
        return _serialize(self.PROTOBUF(**{name: getattr(self, name) for name in names}))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` made.

        Raises
        ------
        MalformedRecord
            For bytes that are no such record: damage, or a peer's lie.
        """
        message = _parse_record(cls.PROTOBUF, payload)
        return cls(**{name: getattr(message, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Record):
    """How far the chain has started: 0 genesis, 1 one block, 2 t_0 is set, proofs are taken."""

    PROTOBUF = state_pb2.Chain
    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Record):
    """The newest generation. `difficulty` in 1/65,536 bit, `time_ms` of its block's header."""

    PROTOBUF = state_pb2.Head
    generation: int
    seed: bytes
    difficulty: int
    time_ms: int
    weights_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Record):
    """Spendable base units, last sequence used, and the standing of its validator."""

    PROTOBUF = state_pb2.Account
    balance: int = 0
    sequence: int = 0
    consensus_key: bytes = b""
    jailed: bool = False
    barred: bool = False

    @property
    def is_validating(self) -> bool:
        """Whether its slots give voting power and its proofs take slots; protocol section 11."""
        return bool(self.consensus_key) and not self.jailed and not self.barred


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorOwner(Record):
    """The account that bound a consensus key."""

    PROTOBUF = state_pb2.ValidatorOwner
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward(Record):
    """Base units minted by a proof and not yet spendable."""

    PROTOBUF = state_pb2.Reward
    address: Address
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply(Record):
    """Base units issued so far, at genesis and by proofs, and burned so far."""

    PROTOBUF = state_pb2.Supply
    issued: int
    burned: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring(Record):
    """Slots of the share ring taken so far; the next is `counter` mod slots."""

    PROTOBUF = state_pb2.Ring
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness(Record):
    """Which of the last blocks with a proof a validator missed.

    `observed` blocks count, at most the window; `position` is where in the window the next one
    goes; `missed` has one bit a block, position 0 being the first byte's highest bit.
    """

    PROTOBUF = state_pb2.Liveness
    observed: int
    position: int
    missed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator(Record):
    """A consensus key and its voting power."""

    PROTOBUF = state_pb2.Validator
    consensus_key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The set last given to CometBFT, by power, then the account's address."""

    validators: tuple[Validator, ...] = ()

    def encode(self) -> bytes:
        """Canonical bytes."""
        validators = [
            state_pb2.Validator(consensus_key=each.consensus_key, power=each.power)
            for each in self.validators
        ]
        return _serialize(state_pb2.ValidatorSet(validators=validators))

    @classmethod
    def decode(cls, payload: bytes) -> ValidatorSet:
        """Read what `encode` made; MalformedRecord for other bytes."""
        message = _parse_record(state_pb2.ValidatorSet, payload)
        return cls(
            tuple(
                Validator(consensus_key=each.consensus_key, power=each.power)
                for each in message.validators
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord(Record):
    """What a node remembers of a generation, not authenticated; fields as in state.proto."""

    PROTOBUF = state_pb2.GenerationRecord
    generation: int
    height: int
    time_ms: int
    interval_ms: int
    difficulty: int
    score: int
    correct_head: int
    correct_ticket: int
    miner: Address
    nonce: int
    steps: int
    weights_root: bytes
    tx_hash: bytes
    has_accuracy: bool = False
    correct_all: int = 0
    size_all: int = 0
    batch: bytes = b""


def _serialize(message: Protobuf) -> bytes:
    return message.SerializeToString(deterministic=True)


def _parse_record(kind: type[AnyProtobuf], payload: bytes) -> AnyProtobuf:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise MalformedRecord(f"not the record {kind.DESCRIPTOR.name}") from error
