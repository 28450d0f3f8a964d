"""The ring of shares, and the validators that it makes; protocol section 11.

Learning is what earns a say: an accepted proof takes the oldest slot of the ring, and voting power
is the number of slots that an account holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules import keys
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.block import Event, ValidatorUpdate
from pol_abci.rules.codec import Ring, Validator, ValidatorOwner, ValidatorSet
from pol_abci.rules.errors import BarredValidator, KeyAlreadyBound, NotJailed
from pol_abci.rules.ledger import get_account, get_owner, set_account
from pol_abci.rules.params import Address
from pol_abci.rules.signing import verify_possession

if TYPE_CHECKING:
    from pol_abci.rules.codec import RegisterValidator
    from pol_abci.rules.params import ShareParams
    from pol_abci.rules.state import Overlay, StateReader


def process_register(
    state: Overlay, chain_id: str, address: Address, message: RegisterValidator
) -> tuple[Event, ...]:
    """Bind a consensus key to an account, once for both.

    Raises
    ------
    KeyAlreadyBound, InvalidPossession
    """
    account = get_account(state, address)
    consensus_address = compute_consensus_address(message.consensus_key)
    if account.consensus_key:
        raise KeyAlreadyBound(f"{address.hex()} has a consensus key and keeps it")
    if get_owner(state, consensus_address) is not None:
        raise KeyAlreadyBound("this consensus key has an account: make another")
    verify_possession(chain_id, address, message.consensus_key, message.possession)
    bind_key(state, address, message.consensus_key)
    attributes = (("address", address.hex()), ("consensus_address", consensus_address.hex()))
    return (Event("register_validator", attributes),)


def bind_key(state: Overlay, address: Address, consensus_key: bytes) -> None:
    """Make an account the owner of a consensus key."""
    account = replace(get_account(state, address), consensus_key=consensus_key)
    set_account(state, address, account)
    owner = ValidatorOwner(address=address)
    state.set(keys.validator(compute_consensus_address(consensus_key)), owner)


def process_unjail(state: Overlay, address: Address) -> tuple[Event, ...]:
    """Let an account's slots count again. Its liveness was forgotten when it was jailed.

    Raises
    ------
    BarredValidator, NotJailed
    """
    account = get_account(state, address)
    if account.barred:
        raise BarredValidator(f"{address.hex()} is barred for ever")
    if not account.jailed:
        raise NotJailed(f"{address.hex()} is not in jail")
    set_account(state, address, replace(account, jailed=False))
    return (Event("unjail", (("address", address.hex()),)),)


def process_share(state: Overlay, params: ShareParams, miner: Address) -> None:
    """Give the next slot of the ring to the miner of an accepted proof, if it validates."""
    if get_account(state, miner).is_validating:
        process_slots(state, params, miner, 1)


def process_slots(state: Overlay, params: ShareParams, owner: Address, count: int) -> None:
    """Give the next `count` slots of the ring to an account, whoever holds them."""
    ring = state.get_record(keys.ring(), Ring)
    first = 0 if ring is None else ring.counter
    for taken in range(first, first + count):
        state.set(keys.slot(taken % params.slots), owner)
    state.set(keys.ring(), Ring(counter=first + count))


def process_slot_loss(state: Overlay, params: ShareParams, owner: Address) -> None:
    """Empty every slot of an account; the ring's counter stays where it is."""
    for index in find_slots(state, params, owner):
        state.delete(keys.slot(index))


def find_slots(state: StateReader, params: ShareParams, owner: Address) -> list[int]:
    """Indices of the slots of an account."""
    return [index for index in range(params.slots) if state.get(keys.slot(index)) == owner]


def compute_validators(state: StateReader, params: ShareParams) -> tuple[Validator, ...]:
    """The accounts that validate by the slots they hold: most first, then by address."""
    slots: dict[Address, int] = {}
    for index in range(params.slots):
        owner = state.get(keys.slot(index))
        if owner is not None:
            slots[Address(owner)] = slots.get(Address(owner), 0) + 1
    candidates = []
    for address, power in sorted(slots.items(), key=lambda held: (-held[1], held[0])):
        account = get_account(state, address)
        if account.is_validating:
            candidates.append(Validator(consensus_key=account.consensus_key, power=power))
    return tuple(candidates[: params.max_validators])


def process_validator_set(state: Overlay, params: ShareParams) -> tuple[ValidatorUpdate, ...]:
    """Bring the set up to date; what CometBFT must be told, sorted by consensus key.

    A set that would be empty stays as it was, because CometBFT halts without validators.
    """
    payload = state.get(keys.validators())
    old = ValidatorSet() if payload is None else ValidatorSet.decode(payload)
    new = ValidatorSet(compute_validators(state, params))
    if not new.validators or new == old:
        return ()
    state.set(keys.validators(), new.encode())
    return _compute_updates(old, new)


def _compute_updates(old: ValidatorSet, new: ValidatorSet) -> tuple[ValidatorUpdate, ...]:
    """Powers that differ, and 0 for those who left."""
    before = {each.consensus_key: each.power for each in old.validators}
    after = {each.consensus_key: each.power for each in new.validators}
    return tuple(
        ValidatorUpdate(key, after.get(key, 0))
        for key in sorted({**before, **after})
        if before.get(key, 0) != after.get(key, 0)
    )
