"""The transaction that made a generation, out of the block that holds it; not verified."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pol_abci.client.rpc_errors import RpcError
from pol_abci.rules.codec import ProofMessage, decode_tx
from pol_abci.rules.errors import InvalidTx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pol_abci.client.rpc import RpcClient
    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.proof import Claim


class ProofMissing(RpcError):
    """A block that the node does not have, or that is without the proof that a record names."""


async def get_claim(rpc: RpcClient, record: GenerationRecord) -> Claim:
    """Fetch what the proof of a generation claims.

    Raises
    ------
    ProofMissing
        When the node does not have it.
    NodeUnreachable
        When it cannot be asked now.
    """
    try:
        block = await rpc.block(record.height)
    except RpcError as error:
        raise ProofMissing(f"block {record.height} is not to be had: {error}") from error
    return read_claim(find_proof(block.txs, record))


def find_proof(txs: Iterable[bytes], record: GenerationRecord) -> bytes:
    """Return the transaction of a block that made a generation.

    Raises
    ------
    ProofMissing
        When there is none with its hash.
    """
    for raw in txs:
        if hashlib.sha256(raw).digest() == record.tx_hash:
            return raw
    raise ProofMissing(
        f"block {record.height} does not have the proof of generation {record.generation}"
    )


def read_claim(raw: bytes) -> Claim:
    """Read the claim of a proof that is in a block, and so no longer than its chain allows.

    Raises
    ------
    ProofMissing
        When it is no proof.
    """
    try:
        message = decode_tx(raw, len(raw)).message
    except InvalidTx as error:
        raise ProofMissing(f"a generation's proof cannot be read: {error}") from error
    if not isinstance(message, ProofMessage):
        raise ProofMissing("a generation's transaction is no proof")
    return message.claim
