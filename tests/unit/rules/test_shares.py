"""Ring, validator set, jail and misbehaviour: who has a say, and what CometBFT is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pol_abci.rules import keys
from pol_abci.rules.block import CommitVote
from pol_abci.rules.codec import Liveness, Ring
from pol_abci.rules.errors import BarredValidator, NotJailed
from pol_abci.rules.ledger import get_account
from pol_abci.rules.liveness import compute_next_liveness, count_missed, process_liveness
from pol_abci.rules.misbehaviour import process_misbehaviour
from pol_abci.rules.params import ShareParams
from pol_abci.rules.shares import (
    compute_validators,
    process_share,
    process_slots,
    process_unjail,
    process_validator_set,
)
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from pol_abci.rules.state import Overlay

PARAMS = make.genesis().params.shares
ALICE, BOB, CAROL = make.address("alice"), make.address("bob"), make.address("carol")


def powers(state: Overlay, params: ShareParams = PARAMS) -> dict[str, int]:
    names = {make.consensus_key(name): name for name in ("alice", "bob", "carol", "dave")}
    return {names[each.consensus_key]: each.power for each in compute_validators(state, params)}


def updates(state: Overlay) -> dict[bytes, int]:
    return {each.consensus_key: each.power for each in process_validator_set(state, PARAMS)}


def count(state: Overlay, *, bob_signed: bool) -> list[str]:
    votes = (
        CommitVote(make.consensus_address("alice"), signed=True),
        CommitVote(make.consensus_address("bob"), bob_signed),
    )
    return [event.type for event in process_liveness(state, PARAMS, votes)]


def test_a_full_turn_of_the_ring_replaces_every_owner() -> None:
    state = make.first_state()
    for _ in range(PARAMS.slots):
        process_share(state, PARAMS, BOB)
    assert powers(state) == {"bob": 5}
    payload = state.get(keys.ring())
    assert payload is not None
    assert Ring.decode(payload).counter == 4 + 5


def test_no_slot_without_a_key() -> None:
    state = make.first_state()
    process_share(state, PARAMS, CAROL)
    assert state.get(keys.slot(4)) is None


def test_ties_go_by_address_and_only_the_top_validates() -> None:
    state = make.first_state()
    process_slots(state, PARAMS, ALICE, 1)
    process_slots(state, PARAMS, BOB, 2)
    assert powers(state) == {"alice": 2, "bob": 3}
    process_slots(state, PARAMS, ALICE, 2)
    one = ShareParams(slots=4, max_validators=1, liveness_window=5)
    assert powers(state, one) == {min((ALICE, "alice"), (BOB, "bob"))[1]: 2}


def test_updates_are_differences_and_told_once() -> None:
    state = make.first_state()
    process_share(state, PARAMS, BOB)
    assert updates(state) == {make.consensus_key("bob"): 2}
    assert updates(state) == {}


def test_leaving_the_set_is_a_power_of_0() -> None:
    state = make.first_state()
    process_misbehaviour(state, make.genesis().params, 0, (make.consensus_address("bob"),))
    assert updates(state) == {make.consensus_key("bob"): 0}


def test_the_last_validator_stays_whatever_it_does() -> None:
    state = make.first_state()
    named = (make.consensus_address("alice"), make.consensus_address("bob"))
    process_misbehaviour(state, make.genesis().params, 0, named)
    assert powers(state) == {}
    assert updates(state) == {}


def test_missing_more_than_half_of_the_window_jails() -> None:
    state = make.first_state()
    assert [count(state, bob_signed=False) for _ in range(3)] == [[], [], ["jail"]]
    assert get_account(state, BOB).jailed
    assert powers(state) == {"alice": 3}
    assert state.get(keys.liveness(make.consensus_address("bob"))) is None
    assert count(state, bob_signed=False) == []


def test_missing_half_of_the_window_for_ever_does_not_jail() -> None:
    state = make.first_state()
    for signed in (False, True, False, True, True) * 6:
        assert count(state, bob_signed=signed) == []


def test_what_left_the_window_is_forgotten() -> None:
    state = make.first_state()
    for signed in (False, False, True, True, True, False, False):
        assert count(state, bob_signed=signed) == []
    assert count(state, bob_signed=False) == ["jail"]


def test_unjail_starts_the_count_anew() -> None:
    state = make.first_state()
    for _ in range(3):
        count(state, bob_signed=False)
    process_unjail(state, BOB)
    assert powers(state) == {"alice": 3, "bob": 1}
    assert [count(state, bob_signed=False) for _ in range(3)] == [[], [], ["jail"]]


def test_invalid_unjail() -> None:
    state = make.first_state()
    for address in (ALICE, CAROL):
        with pytest.raises(NotJailed):
            process_unjail(state, address)


def test_misbehaviour_outlasts_jail() -> None:
    state = make.first_state()
    for _ in range(3):
        count(state, bob_signed=False)
    process_misbehaviour(state, make.genesis().params, 0, (make.consensus_address("bob"),))
    with pytest.raises(BarredValidator):
        process_unjail(state, BOB)
    process_share(state, PARAMS, BOB)
    assert powers(state) == {"alice": 3}


def test_validators_of_comets_genesis_alone_are_passed_over() -> None:
    state = make.first_state()
    before = make.entries(state)
    stranger = make.consensus_address("stranger")
    assert process_liveness(state, PARAMS, (CommitVote(stranger, signed=False),)) == ()
    assert process_misbehaviour(state, make.genesis().params, 0, (stranger,)) == ()
    assert make.entries(state) == before


def test_window_is_a_ring_of_bits() -> None:
    params = ShareParams(slots=5, max_validators=3, liveness_window=10)
    liveness = Liveness(observed=0, position=0, missed=bytes(2))
    for index in range(13):
        liveness = compute_next_liveness(liveness, params, missed=index in {0, 8, 9, 11})
    # Blocks 3 to 12 count; block 11 stands at position 1, 8 and 9 at their own.
    assert liveness == Liveness(observed=10, position=3, missed=b"\x40\xc0")
    assert count_missed(liveness) == 3
