"""What CometBFT hashes and signs of blocks, computed again; its spec/core/data_structures.

Every hash is the root of the same RFC 6962 tree as the application's own, over leaves in protobuf.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from pol_abci.abci.generated.abci.types_pb2 import ExecTxResult
from pol_abci.abci.generated.crypto.keys_pb2 import PublicKey
from pol_abci.abci.generated.types import block_pb2
from pol_abci.abci.generated.types.validator_pb2 import (
    BLOCK_ID_FLAG_ABSENT,
    BLOCK_ID_FLAG_COMMIT,
    BlockIDFlag,
)
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.block import CommitVote
from pol_abci.rules.codec import SIGNATURE_BYTES
from pol_abci.rules.merkle import compute_root, encode_uvarint
from pol_abci.rules.signing import is_signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pol_abci.client.blocks import BlockId, Commit, CommitEntry, FullHeader

PRECOMMIT = 2
_NS = 10**9


@dataclass(frozen=True, slots=True)
class Member:
    """A validator as CometBFT has it."""

    consensus_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """Its consensus address."""
        return compute_consensus_address(self.consensus_key)


def order_members(powers: Mapping[bytes, int]) -> tuple[Member, ...]:
    """Order a set, given as consensus key to power, as CometBFT does: by power, then address."""
    members = [Member(key, power) for key, power in powers.items()]
    return tuple(sorted(members, key=lambda member: (-member.power, member.address)))


def compute_header_hash(header: FullHeader) -> bytes:
    """The hash that names a block."""
    version = block_pb2.Consensus(block=header.block_version, app=header.app_version)
    return compute_root(
        [
            version.SerializeToString(),
            StringValue(value=header.chain_id).SerializeToString(),
            Int64Value(value=header.height).SerializeToString(),
            _to_timestamp(header.time_ns).SerializeToString(),
            _encode_block_id(header.last_block_id).SerializeToString(),
            *(
                BytesValue(value=value).SerializeToString()
                for value in (
                    header.last_commit_hash,
                    header.data_hash,
                    header.validators_hash,
                    header.next_validators_hash,
                    header.consensus_hash,
                    header.app_hash,
                    header.last_results_hash,
                    header.evidence_hash,
                    header.proposer,
                )
            ),
        ]
    )


def compute_data_hash(txs: Iterable[bytes]) -> bytes:
    """Root over the transactions' hashes."""
    return compute_root([hashlib.sha256(tx).digest() for tx in txs])


def compute_commit_hash(commit: Commit) -> bytes:
    """Root over a commit's entries."""
    return compute_root([_encode_entry(entry) for entry in commit.entries])


def compute_validators_hash(members: Iterable[Member]) -> bytes:
    """Root over a validator set, in CometBFT's order."""
    return compute_root(
        [
            block_pb2.SimpleValidator(
                pub_key=PublicKey(ed25519=member.consensus_key), voting_power=member.power
            ).SerializeToString()
            for member in members
        ]
    )


def compute_results_hash(codes: Iterable[int]) -> bytes:
    """Root over what became of a block's transactions; data and gas are empty in this protocol."""
    return compute_root([ExecTxResult(code=code).SerializeToString() for code in codes])


def compute_signed_power(chain_id: str, members: Sequence[Member], commit: Commit) -> int:
    """Power of the members whose signature for the commit's block is right."""
    return sum(
        member.power
        for member, entry in zip(members, commit.entries, strict=True)
        if entry.flag == BLOCK_ID_FLAG_COMMIT
        and entry.address == member.address
        and len(entry.signature) == SIGNATURE_BYTES
        and is_signed(
            member.consensus_key, encode_precommit(chain_id, commit, entry), entry.signature
        )
    )


def encode_precommit(chain_id: str, commit: Commit, entry: CommitEntry) -> bytes:
    """The bytes that a validator has signed when it voted for the commit's block."""
    vote = block_pb2.CanonicalVote(
        type=PRECOMMIT,
        height=commit.height,
        round=commit.round,
        block_id=_encode_block_id(commit.block_id),
        timestamp=_to_timestamp(entry.time_ns),
        chain_id=chain_id,
    ).SerializeToString()
    return encode_uvarint(len(vote)) + vote


def get_votes(members: Sequence[Member], commit: Commit) -> tuple[CommitVote, ...]:
    """What CometBFT tells the application of a commit; nil is a vote, too."""
    return tuple(
        CommitVote(member.address, entry.flag != BLOCK_ID_FLAG_ABSENT)
        for member, entry in zip(members, commit.entries, strict=True)
    )


def _encode_entry(entry: CommitEntry) -> bytes:
    return block_pb2.CommitSig(
        block_id_flag=BlockIDFlag.ValueType(entry.flag),
        validator_address=entry.address,
        timestamp=_to_timestamp(entry.time_ns),
        signature=entry.signature,
    ).SerializeToString()


def _encode_block_id(block_id: BlockId) -> block_pb2.BlockID:
    parts = block_pb2.PartSetHeader(total=block_id.parts, hash=block_id.parts_hash)
    return block_pb2.BlockID(hash=block_id.hash, part_set_header=parts)


def _to_timestamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // _NS, nanos=time_ns % _NS)
