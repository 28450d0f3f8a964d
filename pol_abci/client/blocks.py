"""Whole blocks, with everything that their header is a hash of, for those who check it.

The other reads of this package take what they need of a block; these take all. Nothing here is
verified: `pol_abci.audit` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.rpc_errors import UnexpectedAnswer

if TYPE_CHECKING:
    from pol_abci.client.reading import Reading
    from pol_abci.client.rpc import RpcClient

LIGHT_CLIENT_ATTACK = "tendermint/LightClientAttackEvidence"
DUPLICATE_VOTE = "tendermint/DuplicateVoteEvidence"
LARGEST_COUNT = 2**31 - 1
"""Also of heights: a chain of a block a second gets there in 68 years."""


@dataclass(frozen=True, slots=True)
class BlockId:
    """What names a block: the hash of its header, and of the parts that it travels in."""

    hash: bytes
    parts: int
    parts_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEntry:
    """What one validator of a set did about a block; `flag` is CometBFT's BlockIDFlag.

    Address, time (nanoseconds since 1970) and signature are empty or of the year 1 for an absent
    one.
    """

    flag: int
    address: bytes
    time_ns: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The votes that decided a block, one entry a validator, in CometBFT's order."""

    height: int
    round: int
    block_id: BlockId
    entries: tuple[CommitEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FullHeader:
    """A header, every field. `app_hash` and `last_results_hash` are of the height before."""

    block_version: int
    app_version: int
    chain_id: str
    height: int
    time_ns: int
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FullBlock:
    """A block. `misbehaviour` has a consensus address for each validator that evidence names.

    `hash` is what the node calls the block.
    """

    hash: bytes
    header: FullHeader
    txs: tuple[bytes, ...]
    last_commit: Commit
    misbehaviour: tuple[bytes, ...]


async def get_last_height(rpc: RpcClient) -> int:
    """Return the height of the newest block that a node, or `cometbft inspect`, has."""
    return (await rpc.call("blockchain")).integer("last_height")


async def get_full_block(rpc: RpcClient, height: int) -> FullBlock:
    """Fetch a block whole.

    Raises
    ------
    RpcError
        When the node does not have it (any more).
    """
    reading = await rpc.call("block", height=str(height))
    block = reading.at("block")
    return FullBlock(
        hash=reading.at("block_id").hex("hash"),
        header=_read_header(block.at("header")),
        txs=tuple(block.at("data").base64_list("txs")),
        last_commit=_read_commit(block.at("last_commit")),
        misbehaviour=tuple(
            address
            for item in block.at("evidence").items("evidence")
            for address in _read_misbehaviour(item)
        ),
    )


async def get_commit(rpc: RpcClient, height: int) -> Commit:
    """Fetch the votes that decided a block; for the newest those that the node has seen."""
    reading = await rpc.call("commit", height=str(height))
    return _read_commit(reading.at("signed_header").at("commit"))


def _read_header(reading: Reading) -> FullHeader:
    version = reading.at("version")
    return FullHeader(
        block_version=_read_count(version, "block"),
        app_version=_read_count(version, "app"),
        chain_id=reading.text("chain_id"),
        height=_read_count(reading, "height"),
        time_ns=reading.time_ns("time"),
        last_block_id=_read_block_id(reading.at("last_block_id")),
        last_commit_hash=reading.hex("last_commit_hash"),
        data_hash=reading.hex("data_hash"),
        validators_hash=reading.hex("validators_hash"),
        next_validators_hash=reading.hex("next_validators_hash"),
        consensus_hash=reading.hex("consensus_hash"),
        app_hash=reading.hex("app_hash"),
        last_results_hash=reading.hex("last_results_hash"),
        evidence_hash=reading.hex("evidence_hash"),
        proposer=reading.hex("proposer_address"),
    )


def _read_block_id(reading: Reading) -> BlockId:
    parts = reading.at("parts")
    return BlockId(reading.hex("hash"), _read_count(parts, "total"), parts.hex("hash"))


def _read_commit(reading: Reading) -> Commit:
    return Commit(
        height=_read_count(reading, "height"),
        round=_read_count(reading, "round"),
        block_id=_read_block_id(reading.at("block_id")),
        entries=tuple(
            CommitEntry(
                flag=_read_count(item, "block_id_flag"),
                address=item.hex("validator_address"),
                time_ns=item.time_ns("timestamp"),
                signature=item.base64("signature"),
            )
            for item in reading.items("signatures")
        ),
    )


def _read_count(reading: Reading, name: str) -> int:
    """A number that has room in every message that CometBFT hashes; 0 where there is none."""
    value = reading.integer(name, 0)
    if not 0 <= value <= LARGEST_COUNT:
        raise UnexpectedAnswer(f"a block's {name} is {value}: not one of CometBFT's")
    return value


def _read_misbehaviour(item: Reading) -> list[bytes]:
    """Whom a piece of evidence names, as CometBFT tells the application."""
    kind, value = item.text("type"), item.at("value")
    if kind == LIGHT_CLIENT_ATTACK:
        return [validator.hex("address") for validator in value.items("ByzantineValidators")]
    if kind == DUPLICATE_VOTE:
        return [value.at("vote_a").hex("validator_address")]
    raise UnexpectedAnswer(f"a block holds evidence of a kind that CometBFT v0.38 lacks: {kind}")
