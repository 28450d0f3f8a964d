"""Hostile bytes: whatever a transaction holds, nothing but InvalidTx comes out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pol_abci.rules.codec import SignedTx, encode_tx
from pol_abci.rules.errors import InvalidTx
from pol_abci.rules.proof import Claim, TrueWalk, WalkVerdict
from pol_abci.rules.signing import authenticate, sign_body
from pol_abci.rules.state import Overlay
from pol_abci.rules.transition import check_tx, process_block, process_tx
from tests.unit.rules import build_chain as make

T0 = 1_000
CHAIN = make.chain_context()
SAMPLES = tuple(
    make.encode_plain(tx)
    for tx in (
        make.transfer("carol", 1, "dave", 5),
        make.register("carol", 1),
        make.unjail("bob", 1),
        make.proof("alice", 0),
    )
)
bytes_of_a_body = st.one_of(
    st.binary(max_size=120),
    st.tuples(st.sampled_from(SAMPLES), st.binary(min_size=1, max_size=6), st.integers(0, 400)).map(
        lambda parts: parts[0][2 : parts[2] % len(parts[0])] + parts[1]
    ),
)


class EveryWalkIsTrue(dict[Claim, WalkVerdict]):
    def __missing__(self, claim: Claim) -> WalkVerdict:
        return TrueWalk(2**62, 64, 64)


def start() -> Overlay:
    state = make.first_state()
    for height in (1, 2):
        process_block(state, CHAIN, make.block_context(make.plain_block(height, T0)), [], {})
    return state


STARTED = start()


def survives(raw: bytes) -> SignedTx | None:
    """Run raw through each door on a throw-away state; a transaction that came through."""
    block = make.block_context(make.plain_block(3, T0 + 1))
    try:
        tx = authenticate(make.CHAIN_ID, raw)
    except InvalidTx:
        return None
    for attempt in (
        lambda state: process_tx(state, CHAIN, block, tx, EveryWalkIsTrue()),
        lambda state: check_tx(state, CHAIN, tx, T0, EveryWalkIsTrue()),
    ):
        state = Overlay(STARTED)
        try:
            attempt(state)
        except InvalidTx:
            assert state.changes == {}
    outcome = process_block(Overlay(STARTED), CHAIN, block, [tx, tx], EveryWalkIsTrue())
    assert outcome.txs[1].error is not None, "no transaction counts twice"
    return tx


def test_samples_come_through() -> None:
    for raw in SAMPLES:
        assert survives(raw) is not None


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_arbitrary_bytes(raw: bytes) -> None:
    survives(raw)


@given(st.sampled_from(SAMPLES), st.data())
@settings(deadline=None, max_examples=300)
def test_mutated_bytes_never_pass_for_another_transaction(raw: bytes, data: st.DataObject) -> None:
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(("flip", "drop", "insert"))):
            case "flip":
                changed[position] ^= data.draw(st.integers(1, 255))
            case "drop" if len(changed) > 1:
                del changed[position]
            case _:
                changed.insert(position, data.draw(st.integers(0, 255)))
    assert survives(bytes(changed)) is None or bytes(changed) == raw


@given(bytes_of_a_body)
@settings(deadline=None, max_examples=300)
def test_signed_nonsense(body: bytes) -> None:
    signature = sign_body(make.account_seed("carol"), make.CHAIN_ID, body)
    survives(encode_tx(body, make.public_key("carol"), signature))


@given(
    name=st.sampled_from(("alice", "bob", "carol", "erin")),
    sequence=st.integers(0, 2**64 - 1),
    amount=st.integers(0, 2**64 - 1),
    fee=st.integers(0, 2**64 - 1),
)
@settings(deadline=None)
def test_signed_transfers_of_any_numbers(name: str, sequence: int, amount: int, fee: int) -> None:
    survives(make.encode_plain(make.transfer(name, sequence, "dave", amount, fee)))
    survives(make.encode_plain(make.transfer(name, 1, name, amount % 6_000, fee % 6_000)))


@given(
    generation=st.integers(0, 2**64 - 1),
    nonce=st.integers(0, 2**64 - 1),
    steps=st.integers(0, 2**32 - 1),
    digest_bytes=st.integers(0, 200),
)
@settings(deadline=None)
def test_signed_proofs_of_any_numbers(
    generation: int, nonce: int, steps: int, digest_bytes: int
) -> None:
    tx = make.proof("bob", generation, nonce, steps=steps, digest_bytes=digest_bytes)
    survives(make.encode_plain(tx))
    survives(make.encode_plain({**tx, "generation": 0, "steps": 3, "digest_bytes": 24}))
