"""Jail for validators who don't sign; protocol section 11.

Counted over blocks with an accepted proof alone: any change of state makes CometBFT add a block,
so counting the others would keep an idle chain busy for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules import keys
from pol_abci.rules.block import Event
from pol_abci.rules.codec import Liveness
from pol_abci.rules.ledger import get_account, get_owner, set_account

if TYPE_CHECKING:
    from pol_abci.rules.block import CommitVote
    from pol_abci.rules.params import ShareParams
    from pol_abci.rules.state import Overlay

_BYTE_BITS = 8


def process_liveness(
    state: Overlay, params: ShareParams, votes: tuple[CommitVote, ...]
) -> tuple[Event, ...]:
    """Count a block with a proof for each validator of the last commit; jail the absent."""
    events: list[Event] = []
    for vote in votes:
        owner = get_owner(state, vote.address)
        if owner is None:
            continue  # came with CometBFT's genesis, not with ours
        account = get_account(state, owner)
        if account.jailed or account.barred:
            continue  # CometBFT takes two blocks to let it go
        liveness = compute_next_liveness(
            get_liveness(state, params, vote.address), params, missed=not vote.signed
        )
        if count_missed(liveness) > params.liveness_window // 2:
            state.delete(keys.liveness(vote.address))
            set_account(state, owner, replace(account, jailed=True))
            events.append(Event("jail", (("address", owner.hex()),)))
        else:
            state.set(keys.liveness(vote.address), liveness)
    return tuple(events)


def get_liveness(state: Overlay, params: ShareParams, consensus_address: bytes) -> Liveness:
    """What has been counted of a validator; nothing yet after it joins or leaves jail."""
    known = state.get_record(keys.liveness(consensus_address), Liveness)
    if known is not None:
        return known
    return Liveness(observed=0, position=0, missed=bytes(-(-params.liveness_window // _BYTE_BITS)))


def compute_next_liveness(liveness: Liveness, params: ShareParams, *, missed: bool) -> Liveness:
    """One more block in the window, in place of the oldest once the window is full."""
    index, bit = divmod(liveness.position, _BYTE_BITS)
    mask = 0x80 >> bit
    bits = bytearray(liveness.missed)
    bits[index] = bits[index] | mask if missed else bits[index] & ~mask
    return Liveness(
        observed=min(liveness.observed + 1, params.liveness_window),
        position=(liveness.position + 1) % params.liveness_window,
        missed=bytes(bits),
    )


def count_missed(liveness: Liveness) -> int:
    """Blocks of the window that were missed."""
    return int.from_bytes(liveness.missed, "big").bit_count()
