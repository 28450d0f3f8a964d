"""What CometBFT keeps of blocks and validators, and how ABCI's messages carry it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from pol_abci.abci.framing import encode_varint
from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.abci.generated.crypto import keys_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

MAX_TOTAL_POWER = (2**63 - 1) // 8
"""CometBFT's own; what is above it stops the node."""

MessageT = TypeVar("MessageT", bound="Message")


class SpecificationBroken(AssertionError):
    """An answer that CometBFT would stop at, or that would part the chain's nodes."""


@dataclass(frozen=True)
class Block:
    """A decided block and what its execution gave."""

    request: pb.RequestFinalizeBlock
    reply: pb.ResponseFinalizeBlock

    @property
    def height(self) -> int:
        return self.request.height

    @property
    def txs(self) -> tuple[bytes, ...]:
        return tuple(self.request.txs)

    @property
    def codes(self) -> tuple[int, ...]:
        return tuple(result.code for result in self.reply.tx_results)


def copy(message: MessageT) -> MessageT:
    """What arrives at the other end of a socket: nobody shares an object with the application."""
    return type(message).FromString(message.SerializeToString())


def get_hashed(reply: pb.ResponseFinalizeBlock) -> pb.ResponseFinalizeBlock:
    """What all nodes must agree on; of a result's prose nothing, of events all, as indexers do."""
    return pb.ResponseFinalizeBlock(
        events=reply.events,
        tx_results=[
            pb.ExecTxResult(
                code=result.code,
                data=result.data,
                gas_wanted=result.gas_wanted,
                gas_used=result.gas_used,
                events=result.events,
            )
            for result in reply.tx_results
        ],
        validator_updates=reply.validator_updates,
        consensus_param_updates=reply.consensus_param_updates
        if reply.HasField("consensus_param_updates")
        else None,
        app_hash=reply.app_hash,
    )


def change_set(
    validators: dict[bytes, int], updates: Sequence[pb.ValidatorUpdate]
) -> dict[bytes, int]:
    """A validator set after updates, under CometBFT's conditions."""
    keys = [update.pub_key.ed25519 for update in updates]
    if len(set(keys)) != len(keys):
        raise SpecificationBroken("two updates of one validator")
    changed = dict(validators)
    for key, update in zip(keys, updates, strict=True):
        if len(key) != 32 or update.power < 0:
            raise SpecificationBroken(f"not a validator update: {update}")
        if update.power:
            changed[key] = update.power
        elif changed.pop(key, None) is None:
            raise SpecificationBroken(f"removes {key.hex()}, which is no validator")
    total = sum(changed.values())
    if total > MAX_TOTAL_POWER:
        raise SpecificationBroken(f"a total voting power of {total}")
    return changed


def to_update(key: bytes, power: int) -> pb.ValidatorUpdate:
    return pb.ValidatorUpdate(pub_key=keys_pb2.PublicKey(ed25519=key), power=power)


def compute_consensus_address(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:20]


def compute_size_in_block(tx: bytes) -> int:
    """A field's tag, its length and itself."""
    return 1 + len(encode_varint(len(tx))) + len(tx)


def to_timestamp(time_ms: int) -> Timestamp:
    return Timestamp(seconds=time_ms // 1_000, nanos=time_ms % 1_000 * 1_000_000)


def to_ms(time: Timestamp) -> int:
    return time.seconds * 1_000 + time.nanos // 1_000_000
