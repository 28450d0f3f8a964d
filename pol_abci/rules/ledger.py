"""Accounts, transfers, fees and rewards; protocol section 10.

Base units, integers alone. Each unit is in one account or in one reward that has not matured, or
has been burned: `compute_supply_gap` and `is_supply_conserved` say so to the unit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules import keys
from pol_abci.rules.block import Event
from pol_abci.rules.codec import Account, Reward, Supply, ValidatorOwner
from pol_abci.rules.errors import FeeTooLow, InsufficientFunds, InvalidAmount, InvalidSequence
from pol_abci.rules.params import MAX_SUPPLY, Address
from pol_abci.rules.state import DictState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pol_abci.rules.codec import SignedTx, Transfer
    from pol_abci.rules.params import LedgerParams
    from pol_abci.rules.state import Overlay, StateReader

_AMOUNT_BITS = 64
_ACCOUNT_PREFIX = keys.account(Address(b""))
_REWARD_PREFIX = keys.reward(0)[:-8]


def get_account(state: StateReader, address: Address) -> Account:
    """The account of an address; one that nobody has paid yet is empty."""
    return find_account(state, address) or Account()


def find_account(state: StateReader, address: Address) -> Account | None:
    """The account of an address, or None where there is none."""
    return state.get_record(keys.account(address), Account)


def set_account(state: Overlay, address: Address, account: Account) -> None:
    """Write an account."""
    state.set(keys.account(address), account)


def get_owner(state: StateReader, consensus_address: bytes) -> Address | None:
    """The account that bound the consensus key of this address, if any did."""
    owner = state.get_record(keys.validator(consensus_address), ValidatorOwner)
    return None if owner is None else owner.address


def get_supply(state: StateReader) -> Supply:
    """Base units issued and burned so far."""
    supply = state.get_record(keys.supply(), Supply)
    assert supply is not None, "genesis writes the supply"
    return supply


def process_charge(
    state: Overlay, params: LedgerParams, tx: SignedTx, transfer: Transfer | None = None
) -> None:
    """Take what a transaction costs its sender: sequence number, fee, amount, a new account's burn.

    A transfer's amount is still to be given to its recipient, and the fee to the proposer.

    Raises
    ------
    InvalidSequence, FeeTooLow, InsufficientFunds
    """
    known = find_account(state, tx.address)
    sender = known or Account()
    if tx.sequence != sender.sequence + 1:
        raise InvalidSequence(f"sequence {tx.sequence}: the next is {sender.sequence + 1}")
    if tx.fee < params.min_fee:
        raise FeeTooLow(f"fee {tx.fee}: give at least {params.min_fee}")
    amount, recipient = (transfer.amount, transfer.recipient) if transfer else (0, tx.address)
    is_new = known is None or find_account(state, recipient) is None
    burn = params.account_burn if is_new else 0
    needed = amount + tx.fee + burn
    if sender.balance < needed:
        reason = f" ({burn} of it burned, for a new account)" if burn else ""
        raise InsufficientFunds(f"{needed} needed{reason}, {sender.balance} there")
    charged = replace(sender, balance=sender.balance - needed, sequence=tx.sequence)
    set_account(state, tx.address, charged)
    _burn(state, burn)


def process_fee(state: Overlay, owner: Address | None, fee: int) -> None:
    """Give a fee that was taken to the account behind the proposer, or burn it if there is none."""
    if owner is None:
        _burn(state, fee)
    else:
        _pay(state, owner, fee)


def process_transfer(
    state: Overlay, params: LedgerParams, tx: SignedTx, transfer: Transfer
) -> tuple[Event, ...]:
    """Move coins from the sender to the recipient, who need not have an account yet.

    Raises
    ------
    InvalidAmount, InvalidSequence, FeeTooLow, InsufficientFunds
    """
    amount = transfer.amount
    if not 1 <= amount <= MAX_SUPPLY:
        raise InvalidAmount(f"amount {amount}: give 1 to {MAX_SUPPLY}")
    process_charge(state, params, tx, transfer)
    _pay(state, transfer.recipient, amount)
    sender, recipient = tx.address.hex(), transfer.recipient.hex()
    attributes = (("sender", sender), ("recipient", recipient), ("amount", str(amount)))
    return (Event("transfer", attributes),)


def compute_reward(params: LedgerParams, generation: int) -> int:
    """Base units for the proof that extends the head of `generation`."""
    halvings = generation // params.halving_generations
    return params.reward >> halvings if halvings < _AMOUNT_BITS else 0


def process_reward(state: Overlay, params: LedgerParams, generation: int, miner: Address) -> None:
    """Mint for the proof that extends the head of `generation`, and pay out what matures."""
    amount = compute_reward(params, generation)
    if amount:
        state.set(keys.reward(generation + 1), Reward(address=miner, amount=amount))
        supply = get_supply(state)
        state.set(keys.supply(), replace(supply, issued=supply.issued + amount))
    _process_maturity(state, params, generation + 1)


def process_reward_burn(
    state: Overlay, params: LedgerParams, generation: int, address: Address
) -> int:
    """Burn the rewards of `address` that have not matured at `generation`; how much that is."""
    maturing = find_maturing_rewards(state, params, generation, address)
    for minted in maturing:
        state.delete(keys.reward(minted))
    burned = sum(maturing.values())
    _burn(state, burned)
    return burned


def find_maturing_rewards(
    state: StateReader, params: LedgerParams, generation: int, address: Address
) -> dict[int, int]:
    """Base units that `address` cannot spend yet at `generation`, by the generation they are of."""
    first = max(1, generation + 1 - params.maturity_generations)
    rewards = {
        minted: state.get_record(keys.reward(minted), Reward)
        for minted in range(first, generation + 1)
    }
    return {
        minted: reward.amount
        for minted, reward in rewards.items()
        if reward is not None and reward.address == address
    }


def compute_supply_gap(state: StateReader, entries: Iterable[tuple[bytes, bytes]]) -> int:
    """Base units that exist beyond those issued and not burned: 0, or a bug.

    `entries` are all keys and payloads of `state`.
    """
    payloads = dict(entries)
    listed = DictState(payloads)
    held = sum(_get_held(listed, key) for key in payloads)
    return held - _compute_circulation(state)


def is_supply_conserved(before: StateReader, after: Overlay) -> bool:
    """Whether what was written to `after`, on top of `before`, makes no coins and loses none."""
    held = sum(_get_held(after, key) - _get_held(before, key) for key in after.written)
    return held == _compute_circulation(after) - _compute_circulation(before)


def _process_maturity(state: Overlay, params: LedgerParams, generation: int) -> None:
    """Make the reward that matures at `generation` spendable."""
    minted = generation - params.maturity_generations
    reward = state.get_record(keys.reward(minted), Reward) if minted > 0 else None
    if reward is None:
        return  # burned, or the rewards have run out, or none is so old
    state.delete(keys.reward(minted))
    _pay(state, reward.address, reward.amount)


def _pay(state: Overlay, address: Address, amount: int) -> None:
    """Add to a balance."""
    account = get_account(state, address)
    set_account(state, address, replace(account, balance=account.balance + amount))


def _burn(state: Overlay, amount: int) -> None:
    if amount:
        supply = get_supply(state)
        state.set(keys.supply(), replace(supply, burned=supply.burned + amount))


def _compute_circulation(state: StateReader) -> int:
    """Base units issued and not burned."""
    supply = get_supply(state)
    return supply.issued - supply.burned


def _get_held(state: StateReader, key: bytes) -> int:
    """Base units that an entry of the state holds."""
    if key.startswith(_ACCOUNT_PREFIX):
        account = state.get_record(key, Account)
        return 0 if account is None else account.balance
    if key.startswith(_REWARD_PREFIX):
        reward = state.get_record(key, Reward)
        return 0 if reward is None else reward.amount
    return 0
