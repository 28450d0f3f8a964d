"""Coins: where each unit is after a payment, a proof or a punishment."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.rules import keys
from pol_abci.rules.errors import InsufficientFunds, InvalidSequence
from pol_abci.rules.ledger import (
    compute_reward,
    compute_supply_gap,
    get_account,
    get_supply,
    is_supply_conserved,
    process_charge,
    process_reward,
    process_reward_burn,
    set_account,
)
from pol_abci.rules.params import Address, Amount
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import process_tx
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from tests.unit.rules.build_chain import Plain

ALICE, CAROL = make.address("alice"), make.address("carol")


def pay(state: Overlay, tx: Plain, proposer: str = "bob") -> None:
    block = make.block_context(make.plain_block(3, 0, proposer))
    process_tx(state, make.chain_context(), block, make.build_tx(tx), {})


def balance(state: Overlay, name: str) -> int:
    return get_account(state, make.address(name)).balance


def test_transfer_pays_recipient_and_proposer() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "dave", 100, fee=11))
    assert [balance(state, name) for name in ("carol", "dave", "bob")] == [849, 100, 311]


def test_a_recipient_s_first_transfer_burns_and_the_next_does_not() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "dave", 100))
    assert (balance(state, "carol"), get_supply(state).burned) == (850, 40)
    pay(state, make.transfer("carol", 2, "dave", 100))
    assert (balance(state, "carol"), get_supply(state).burned) == (740, 40)


def test_the_burn_must_be_there_to_the_unit() -> None:
    state = make.first_state()
    with pytest.raises(InsufficientFunds, match=r"1001 needed \(40 of it burned, for a"):
        pay(state, make.transfer("carol", 1, "dave", 951))
    pay(state, make.transfer("carol", 1, "dave", 950))
    assert (balance(state, "carol"), balance(state, "dave")) == (0, 950)


def test_an_empty_account_is_an_account() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "dave", 950))
    pay(state, make.transfer("dave", 1, "carol", 940))
    pay(state, make.transfer("alice", 1, "dave", 1))
    assert (balance(state, "dave"), get_supply(state).burned) == (1, 40)


@pytest.mark.parametrize("burn", [0, 1])
def test_who_has_no_account_makes_one_only_where_accounts_are_free(burn: int) -> None:
    state = make.first_state()
    params = replace(make.genesis().params.ledger, min_fee=Amount(0), account_burn=Amount(burn))
    stranger = make.build_tx(make.unjail("dave", 1, fee=0))
    with pytest.raises(InsufficientFunds) if burn else nullcontext():
        process_charge(state, params, stranger)
    assert (state.get(keys.account(stranger.address)) is None) == bool(burn)


def test_an_account_of_a_matured_reward_burns_nothing() -> None:
    state, params = make.first_state(), make.genesis().params.ledger
    for generation in range(3):
        process_reward(state, params, generation, make.address("dave"))
    assert (balance(state, "dave"), get_supply(state).burned) == (1001, 0)


def test_transfer_to_oneself_costs_the_fee() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "carol", 990))
    assert [balance(state, "carol"), balance(state, "bob")] == [990, 310]
    with pytest.raises(InsufficientFunds):
        pay(state, make.transfer("carol", 2, "carol", 981))


def test_proposer_gets_its_own_fee_back() -> None:
    state = make.first_state()
    pay(state, make.transfer("bob", 1, "carol", 100, fee=50))
    assert [balance(state, "bob"), balance(state, "carol")] == [200, 1100]


def test_proposer_can_be_the_recipient() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "bob", 100, fee=50))
    assert [balance(state, "carol"), balance(state, "bob")] == [850, 450]


def test_fee_is_burned_where_the_proposer_has_no_account() -> None:
    state = make.first_state()
    pay(state, make.transfer("carol", 1, "alice", 100, fee=50), proposer="nobody")
    assert get_supply(state).burned == 50


def test_sequence_is_used_once() -> None:
    state = make.first_state()
    tx = make.transfer("carol", 1, "dave", 1)
    pay(state, tx)
    with pytest.raises(InvalidSequence, match="the next is 2"):
        pay(state, tx)


def test_failing_transaction_takes_no_fee() -> None:
    state = make.first_state()
    before = make.entries(state)
    with pytest.raises(InsufficientFunds):
        pay(state, make.transfer("carol", 1, "dave", 991))
    assert make.entries(state) == before


@pytest.mark.parametrize(
    ("generation", "reward"), [(0, 1001), (2, 1001), (3, 500), (27, 1), (30, 0), (3 * 64, 0)]
)
def test_reward_halves(generation: int, reward: int) -> None:
    assert compute_reward(make.genesis().params.ledger, generation) == reward


def test_reward_ends_at_64_halvings() -> None:
    params = replace(make.genesis().params.ledger, reward=Amount(2**63 - 1), halving_generations=1)
    assert compute_reward(params, 62) == 1
    assert [compute_reward(params, generation) for generation in (63, 64, 10**9)] == [0, 0, 0]


def test_reward_is_spendable_when_mature() -> None:
    state, params = make.first_state(), make.genesis().params.ledger
    spendable = []
    for generation in range(5):
        process_reward(state, params, generation, CAROL)
        spendable.append(balance(state, "carol"))
    assert spendable == [1000, 1000, 2001, 3002, 4003]
    assert get_supply(state).issued == 6300 + 3 * 1001 + 2 * 500


def test_no_reward_is_recorded_when_there_is_none() -> None:
    state, params = make.first_state(), make.genesis().params.ledger
    process_reward(state, params, 30, CAROL)
    assert state.get(keys.reward(31)) is None


def test_burn_takes_all_that_has_not_matured_and_nothing_else() -> None:
    state, params = make.first_state(), make.genesis().params.ledger
    for generation, miner in enumerate((ALICE, ALICE, CAROL, ALICE)):
        process_reward(state, params, generation, miner)
    assert balance(state, "alice") == 5000 + 2 * 1001
    assert process_reward_burn(state, params, 4, ALICE) == 500
    assert get_supply(state).burned == 500
    process_reward(state, params, 4, ALICE)
    assert balance(state, "carol") == 2001
    process_reward(state, params, 5, ALICE)
    assert balance(state, "alice") == 5000 + 2 * 1001, "what was burned never matures"


def test_supply_check_sees_one_unit_too_many() -> None:
    state = make.first_state()
    entries = {key: value for key, value in state.changes.items() if value is not None}
    assert compute_supply_gap(state, entries.items()) == 0
    richer = replace(get_account(state, CAROL), balance=1001)
    assert compute_supply_gap(state, {**entries, keys.account(CAROL): richer.encode()}.items()) == 1


def test_block_check_sees_coins_made_and_lost() -> None:
    base = make.first_state()
    params = make.genesis().params.ledger
    draft = Overlay(base)
    process_reward(draft, params, 0, CAROL)
    assert is_supply_conserved(base, draft)
    draft.delete(keys.reward(1))
    assert not is_supply_conserved(base, draft)
    richer = Overlay(base)
    set_account(richer, CAROL, replace(get_account(base, CAROL), balance=1001))
    assert not is_supply_conserved(base, richer)


def test_unknown_account_is_empty() -> None:
    account = get_account(DictState(), Address(bytes(20)))
    assert (account.balance, account.sequence, account.is_validating) == (0, 0, False)
