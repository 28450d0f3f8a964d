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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pol_abci.rules.codec import SignedTx, Transfer
    from pol_abci.rules.params import LedgerParams
    from pol_abci.rules.state import Overlay, StateReader

_AMOUNT_BITS = 64
_ACCOUNT_PREFIX = keys.account(Address(b""))
_REWARD_PREFIX = keys.reward(0)[:-8]


def get_account(state: StateReader, address: Address) -> Account:
    """The account of an address; one that nobody has paid yet is empty."""
    payload = state.get(keys.account(address))
    return Account() if payload is None else Account.decode(payload)


def set_account(state: Overlay, address: Address, account: Account) -> None:
    """Write an account."""
    state.set(keys.account(address), account.encode())


def get_owner(state: StateReader, consensus_address: bytes) -> Address | None:
    """The account that bound the consensus key of this address, if any did."""
    payload = state.get(keys.validator(consensus_address))
    return None if payload is None else ValidatorOwner.decode(payload).address


def get_supply(state: StateReader) -> Supply:
    """Base units issued and burned so far."""
    payload = state.get(keys.supply())
    assert payload is not None, "genesis writes the supply"
    return Supply.decode(payload)


def process_charge(
    state: Overlay,
    params: LedgerParams,
    proposer: bytes,
    tx: SignedTx,
    transfer: Transfer | None = None,
) -> None:
    """Take what a transaction costs its sender: sequence number, fee, amount, a new account's burn.

    The fee is the proposer's, and paid when all is taken: a sender can't spend a fee that comes
    back to him as the proposer. A transfer's amount is still to be given to its recipient.

    Raises
    ------
    InvalidSequence, FeeTooLow, InsufficientFunds
    """
    sender = get_account(state, tx.address)
    if tx.sequence != sender.sequence + 1:
        raise InvalidSequence(f"sequence {tx.sequence}: the next is {sender.sequence + 1}")
    if tx.fee < params.min_fee:
        raise FeeTooLow(f"fee {tx.fee}: give at least {params.min_fee}")
    amount, recipient = (transfer.amount, transfer.recipient) if transfer else (0, tx.address)
    is_known = all(state.get(keys.account(each)) is not None for each in (tx.address, recipient))
    burn = 0 if is_known else params.account_burn
    needed = amount + tx.fee + burn
    if sender.balance < needed:
        reason = f" ({burn} of it burned, for a new account)" if burn else ""
        raise InsufficientFunds(f"{needed} needed{reason}, {sender.balance} there")
    charged = replace(sender, balance=sender.balance - needed, sequence=tx.sequence)
    set_account(state, tx.address, charged)
    _burn(state, burn)
    owner = get_owner(state, proposer)
    if owner is None:
        _burn(state, tx.fee)
    else:
        _pay(state, owner, tx.fee)


def process_transfer(
    state: Overlay, params: LedgerParams, proposer: bytes, tx: SignedTx, transfer: Transfer
) -> tuple[Event, ...]:
    """Move coins from the sender to the recipient, who need not have an account yet.

    Raises
    ------
    InvalidAmount, InvalidSequence, FeeTooLow, InsufficientFunds
    """
    amount = transfer.amount
    if not 1 <= amount <= MAX_SUPPLY:
        raise InvalidAmount(f"amount {amount}: give 1 to {MAX_SUPPLY}")
    process_charge(state, params, proposer, tx, transfer)
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
        state.set(keys.reward(generation + 1), Reward(address=miner, amount=amount).encode())
        supply = get_supply(state)
        state.set(keys.supply(), replace(supply, issued=supply.issued + amount).encode())
    _process_maturity(state, params, generation + 1)


def process_reward_burn(
    state: Overlay, params: LedgerParams, generation: int, address: Address
) -> int:
    """Burn the rewards of `address` that have not matured at `generation`; how much that is."""
    burned = 0
    first = max(1, generation + 1 - params.maturity_generations)
    for minted in range(first, generation + 1):
        payload = state.get(keys.reward(minted))
        if payload is None:
            continue
        reward = Reward.decode(payload)
        if reward.address == address:
            state.delete(keys.reward(minted))
            burned += reward.amount
    _burn(state, burned)
    return burned


def compute_supply_gap(state: StateReader, entries: Iterable[tuple[bytes, bytes]]) -> int:
    """Base units that exist beyond those issued and not burned: 0, or a bug.

    `entries` are all keys and payloads of `state`.
    """
    supply = get_supply(state)
    held = sum(_get_held(key, payload) for key, payload in entries)
    return held - (supply.issued - supply.burned)


def is_supply_conserved(before: StateReader, changes: Mapping[bytes, bytes | None]) -> bool:
    """Whether `changes` to a state move coins without making or losing any."""
    held = sum(
        _get_held(key, payload) - _get_held(key, before.get(key))
        for key, payload in changes.items()
    )
    new = changes.get(keys.supply())
    if new is None:
        return held == 0
    then, now = get_supply(before), Supply.decode(new)
    return held == (now.issued - now.burned) - (then.issued - then.burned)


def _process_maturity(state: Overlay, params: LedgerParams, generation: int) -> None:
    """Make the reward that matures at `generation` spendable."""
    minted = generation - params.maturity_generations
    payload = state.get(keys.reward(minted)) if minted > 0 else None
    if payload is None:
        return  # burned, or the rewards have run out, or none is so old
    reward = Reward.decode(payload)
    state.delete(keys.reward(minted))
    _pay(state, reward.address, reward.amount)


def _pay(state: Overlay, address: Address, amount: int) -> None:
    """Add to a balance."""
    account = get_account(state, address)
    set_account(state, address, replace(account, balance=account.balance + amount))


def _burn(state: Overlay, amount: int) -> None:
    if amount:
        supply = get_supply(state)
        state.set(keys.supply(), replace(supply, burned=supply.burned + amount).encode())


def _get_held(key: bytes, payload: bytes | None) -> int:
    """Base units that an entry of the state holds."""
    if payload is None:
        return 0
    if key.startswith(_ACCOUNT_PREFIX):
        return Account.decode(payload).balance
    if key.startswith(_REWARD_PREFIX):
        return Reward.decode(payload).amount
    return 0
