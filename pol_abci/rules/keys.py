"""Every key of the authenticated state, one function each; protocol section 12.

Keys are never empty and never begin with "x:", which CometBFT's key paths read as hexadecimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pol_abci.rules.params import Address


def chain() -> bytes:
    """`Chain`: how far the chain has started."""
    return b"chain"


def head() -> bytes:
    """`Head`: the newest generation."""
    return b"head"


def account(address: Address) -> bytes:
    """`Account` of a 20-byte address."""
    return b"account/" + address


def validator(consensus_address: bytes) -> bytes:
    """`ValidatorOwner`: the account behind a 20-byte consensus address."""
    return b"validator/" + consensus_address


def reward(generation: int) -> bytes:
    """`Reward` that this generation's proof minted, until it matures."""
    return b"reward/" + generation.to_bytes(8, "big")


def supply() -> bytes:
    """`Supply`: base units issued and burned."""
    return b"supply"


def ring() -> bytes:
    """`Ring`: how many slots proofs have taken so far."""
    return b"ring"


def slot(index: int) -> bytes:
    """Address of the owner of one slot of the share ring, 20 bytes."""
    return b"slot/" + index.to_bytes(4, "big")


def liveness(consensus_address: bytes) -> bytes:
    """`Liveness` of the validator with this 20-byte consensus address."""
    return b"liveness/" + consensus_address


def validators() -> bytes:
    """`ValidatorSet`: the set last given to CometBFT."""
    return b"validators"
