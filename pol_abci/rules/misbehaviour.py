"""The end of a validator that CometBFT has evidence against; protocol section 11."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules import keys
from pol_abci.rules.block import Event
from pol_abci.rules.ledger import get_account, get_owner, process_reward_burn, set_account
from pol_abci.rules.shares import process_slot_loss

if TYPE_CHECKING:
    from pol_abci.rules.params import Params
    from pol_abci.rules.state import Overlay


def process_misbehaviour(
    state: Overlay, params: Params, generation: int, misbehaviour: tuple[bytes, ...]
) -> tuple[Event, ...]:
    """Take slots and unmatured rewards from each validator named, and bar it for ever.

    `generation` is the head's. Both kinds, signing twice and attacking light clients, are one.
    """
    events: list[Event] = []
    for consensus_address in misbehaviour:
        owner = get_owner(state, consensus_address)
        if owner is None:
            continue  # came with CometBFT's genesis, not with ours
        process_slot_loss(state, params.shares, owner)
        burned = process_reward_burn(state, params.ledger, generation, owner)
        state.delete(keys.liveness(consensus_address))
        set_account(state, owner, replace(get_account(state, owner), barred=True))
        events.append(Event("bar", (("address", owner.hex()), ("burned", str(burned)))))
    return tuple(events)
