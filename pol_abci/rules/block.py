"""What a block brings to the rules and what they make of it: values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pol_abci.rules.scheme import get_scheme

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.errors import InvalidTx
    from pol_abci.rules.params import Params
    from pol_abci.rules.scheme import Scheme


@dataclass(frozen=True, slots=True)
class ChainContext:
    """What genesis fixed for ever, and the scheme that it chose."""

    chain_id: str
    params: Params
    scheme: Scheme = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", get_scheme(self.params))


@dataclass(frozen=True, slots=True)
class CommitVote:
    """A validator of the last height, by its 20-byte consensus address, and whether it signed."""

    address: bytes
    signed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContext:
    """What CometBFT says of a block. Addresses are consensus addresses, 20 bytes.

    `time_ms` is floor(header time in ns / 10^6); `misbehaviour` names a validator once for each
    piece of evidence, of either kind.
    """

    height: int
    initial_height: int
    time_ms: int
    proposer: bytes
    votes: tuple[CommitVote, ...] = ()
    misbehaviour: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that people and indexers want to know of. Not part of consensus."""

    type: str
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ValidatorUpdate:
    """A consensus key and its new voting power; 0 takes it out of the set."""

    consensus_key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class TxOutcome:
    """What became of one transaction: `error` is None when it was applied."""

    error: InvalidTx | None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOutcome:
    """What became of a block. `accepted` is the generation that its proof made, if it had one."""

    txs: tuple[TxOutcome, ...]
    validator_updates: tuple[ValidatorUpdate, ...]
    accepted: GenerationRecord | None
    events: tuple[Event, ...]
