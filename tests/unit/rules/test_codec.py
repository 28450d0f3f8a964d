"""One encoding of each transaction and record: what is off it by a byte is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.codec import (
    Account,
    GenerationRecord,
    Head,
    Liveness,
    ProofMessage,
    Record,
    Reward,
    Ring,
    Supply,
    Unjail,
    Validator,
    ValidatorOwner,
    ValidatorSet,
    decode_tx,
    encode_body,
    encode_tx,
    encode_unstamped_body,
)
from pol_abci.rules.errors import MalformedRecord, MalformedTx, OversizeTx
from pol_abci.rules.params import MAX_TX_BYTES, Address
from pol_abci.rules.proof import WalkClaim
from tests.unit.rules import build_chain as make
from tests.unit.rules.plain_chain import Plain, binary, fixed, integer, varint
from tests.unit.rules.reference import sha256

KEY, SIGNATURE = bytes(range(32)), bytes(range(64))
SAMPLES: dict[str, Plain] = {
    "transfer": make.transfer("alice", 7, "bob", 2**63),
    "register": make.register("carol", 1),
    "unjail": make.unjail("bob", 300),
    "proof": make.proof("alice", 2**64 - 1, 2**64 - 1),
}


def write_message(tx: Plain) -> bytes:
    """The body's message, by hand."""
    message = make.make_message(tx)
    match tx["type"]:
        case "transfer":
            value = binary(1, bytes.fromhex(tx["recipient"])) + integer(2, tx["amount"])
            return binary(4, value)
        case "register":
            assert not isinstance(message, ProofMessage)
            possession = getattr(message, "possession", b"")
            return binary(5, binary(1, bytes.fromhex(tx["key"])) + binary(2, possession))
        case "unjail":
            return binary(6, b"", always=True)
        case _:
            assert isinstance(message, ProofMessage)
            assert isinstance(message.claim, WalkClaim)
            value = integer(1, tx["generation"]) + fixed(2, tx["nonce"]) + integer(3, tx["steps"])
            value += binary(4, message.claim.step_digests) + binary(5, bytes.fromhex(tx["root"]))
            return binary(3, value + fixed(6, message.stamp))


def write_body(tx: Plain) -> bytes:
    return integer(1, tx.get("sequence", 0)) + integer(2, tx.get("fee", 0)) + write_message(tx)


def wrap(body: bytes) -> bytes:
    return binary(1, body) + binary(2, KEY) + binary(3, SIGNATURE)


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_transaction_is_written_as_by_hand_and_read_back(kind: str) -> None:
    tx = SAMPLES[kind]
    message = make.make_message(tx)
    body = encode_body(tx.get("sequence", 0), tx.get("fee", 0), message)
    assert body == write_body(tx)
    raw = encode_tx(body, make.public_key(tx["name"]), SIGNATURE)
    assert raw == binary(1, body) + binary(2, make.public_key(tx["name"])) + binary(3, SIGNATURE)
    read = decode_tx(raw)
    assert read.message == message
    assert (read.sequence, read.fee) == (tx.get("sequence", 0), tx.get("fee", 0))
    assert (read.body_bytes, read.signature, read.hash) == (body, SIGNATURE, sha256(raw))
    assert read.address.hex() == tx["sender"]


BODY = write_body(SAMPLES["transfer"])
PROOF = write_message(SAMPLES["proof"])
RECIPIENT = bytes(20)
ODD: dict[str, bytes] = {
    "nothing": b"",
    "no protobuf": b"\xff\xff",
    "end of a group": b"\x0c",
    "unknown field of the transaction": wrap(BODY) + binary(4, b"x"),
    "unknown field of the body": wrap(BODY + integer(15, 1)),
    "unknown field of the message": wrap(binary(4, binary(1, RECIPIENT) + integer(9, 1))),
    "fields out of order": binary(2, KEY) + binary(1, BODY) + binary(3, SIGNATURE),
    "body's fields out of order": wrap(write_message(SAMPLES["unjail"]) + integer(1, 1)),
    "field twice": wrap(integer(1, 6) + BODY),
    "two messages": wrap(BODY + binary(6, b"", always=True)),
    "default written out": wrap(b"\x08\x00" + write_message(SAMPLES["unjail"])),
    "long varint": wrap(b"\x08\x81\x00" + write_message(SAMPLES["unjail"])),
    "number of 65 bits": wrap(b"\x08" + varint(2**64 + 1) + write_message(SAMPLES["unjail"])),
    "steps of 33 bits": wrap(binary(3, integer(3, 2**32 + 3) + binary(5, bytes(31) + b"1"))),
    "other wire type": wrap(fixed(1, 5) + write_message(SAMPLES["unjail"])),
    "no message": wrap(integer(1, 1)),
    "no body": binary(2, KEY) + binary(3, SIGNATURE),
    "short key": binary(1, BODY) + binary(2, KEY[1:]) + binary(3, SIGNATURE),
    "long key": binary(1, BODY) + binary(2, KEY + b"x") + binary(3, SIGNATURE),
    "short signature": binary(1, BODY) + binary(2, KEY) + binary(3, SIGNATURE[1:]),
    "no signature": binary(1, BODY) + binary(2, KEY),
    "short recipient": wrap(binary(4, binary(1, RECIPIENT[1:]) + integer(2, 1))),
    "short consensus key": wrap(binary(5, binary(1, KEY[1:]) + binary(2, SIGNATURE))),
    "short possession": wrap(binary(5, binary(1, KEY) + binary(2, SIGNATURE[1:]))),
    "short weights root": wrap(binary(3, integer(3, 3) + binary(5, KEY[1:]))),
    "proof with a sequence": wrap(integer(1, 1) + PROOF),
    "proof with a fee": wrap(integer(2, 1) + PROOF),
    "cut off": wrap(BODY)[:-1],
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_invalid_form(name: str) -> None:
    with pytest.raises(MalformedTx):
        decode_tx(ODD[name])


def test_the_odd_ones_are_odd_by_one_thing_only() -> None:
    assert decode_tx(wrap(BODY)).message == make.make_message(SAMPLES["transfer"])
    assert decode_tx(wrap(integer(1, 1) + write_message(SAMPLES["unjail"]))).message == Unjail()
    assert isinstance(decode_tx(wrap(PROOF)).message, ProofMessage)


def test_size_ends_at_the_limit() -> None:
    overhead = len(wrap(b"x" * MAX_TX_BYTES)) - MAX_TX_BYTES
    with pytest.raises(MalformedTx):
        decode_tx(wrap(b"\xff" * (MAX_TX_BYTES - overhead)))
    with pytest.raises(OversizeTx):
        decode_tx(wrap(b"\xff" * (MAX_TX_BYTES - overhead + 1)))


@given(st.binary(max_size=300))
def test_whatever_is_read_has_one_encoding(raw: bytes) -> None:
    try:
        tx = decode_tx(raw)
    except MalformedTx:
        return
    assert encode_tx(tx.body_bytes, tx.public_key, tx.signature) == raw


def test_stamp_covers_all_of_a_proof_but_itself() -> None:
    message = make.make_message(SAMPLES["proof"])
    assert isinstance(message, ProofMessage)
    other = make.make_message({**SAMPLES["proof"], "nonce": 5})
    assert isinstance(other, ProofMessage)
    assert encode_unstamped_body(message) == encode_unstamped_body(ProofMessage(message.claim, 9))
    assert encode_unstamped_body(message) != encode_unstamped_body(other)


def test_number_out_of_range_is_the_caller_s_mistake() -> None:
    with pytest.raises(ValueError, match="range"):
        encode_body(2**64, 0, Unjail())


OWNER = Address(bytes(range(20)))
RECORDS: list[tuple[Record | ValidatorSet, bytes]] = [
    (Account(), b""),
    (
        Account(balance=1, sequence=2, consensus_key=KEY, jailed=True, barred=True),
        integer(1, 1) + integer(2, 2) + binary(3, KEY) + integer(4, 1) + integer(5, 1),
    ),
    (
        Head(generation=1, seed=KEY, difficulty=3, time_ms=2**41, weights_root=KEY),
        integer(1, 1) + binary(2, KEY) + integer(3, 3) + integer(4, 2**41) + binary(5, KEY),
    ),
    (ValidatorOwner(address=OWNER), binary(1, OWNER)),
    (Reward(address=OWNER, amount=2**63 - 1), binary(1, OWNER) + integer(2, 2**63 - 1)),
    (Supply(issued=5, burned=4), integer(1, 5) + integer(2, 4)),
    (Ring(counter=300), integer(1, 300)),
    (
        Liveness(observed=3, position=3, missed=b"\x40\x00"),
        integer(1, 3) + integer(2, 3) + binary(3, b"\x40\x00"),
    ),
    (ValidatorSet(), b""),
    (
        ValidatorSet(
            (Validator(consensus_key=KEY, power=2), Validator(consensus_key=KEY[::-1], power=1))
        ),
        binary(1, binary(1, KEY) + integer(2, 2)) + binary(1, binary(1, KEY[::-1]) + integer(2, 1)),
    ),
    (
        GenerationRecord(
            generation=1,
            height=2,
            time_ms=3,
            interval_ms=4,
            difficulty=5,
            score=6,
            correct_head=7,
            correct_ticket=8,
            miner=OWNER,
            nonce=10,
            steps=11,
            weights_root=KEY,
            tx_hash=KEY[::-1],
            has_accuracy=True,
            correct_all=15,
            size_all=16,
        ),
        b"".join(integer(number, number) for number in range(1, 9))
        + binary(9, OWNER)
        + fixed(10, 10)
        + integer(11, 11)
        + binary(12, KEY)
        + binary(13, KEY[::-1])
        + integer(14, 1)
        + integer(15, 15)
        + integer(16, 16),
    ),
]


@pytest.mark.parametrize(("record", "payload"), RECORDS)
def test_record_is_written_as_by_hand_and_read_back(
    record: Record | ValidatorSet, payload: bytes
) -> None:
    assert record.encode() == payload
    assert type(record).decode(payload) == record


def test_damaged_record_is_told() -> None:
    with pytest.raises(MalformedRecord, match="Account"):
        Account.decode(b"\xff")
    with pytest.raises(MalformedRecord, match="ValidatorSet"):
        ValidatorSet.decode(b"\x0a\x05")


def test_a_remembered_record_is_no_other_one() -> None:
    supply, ring = Supply(issued=7), Ring(counter=7)
    assert supply.encode() == ring.encode()
    assert Supply.decode(ring.encode()) == supply
    assert Ring.decode(supply.encode()) == ring
