"""Reads that the node proves: every answer is checked against a header's app hash.

The app hash of height h stands in the header of h + 1, so the newest state that can be proven is
the one before the newest header (protocol section 12). The application chooses that height when
none is named, and says it; a header, once there, stays, so that no block between the two questions
spoils the answer.

The headers themselves are taken from the node on trust: their commits are not checked, which is
what `cometbft light` in front of a foreign node is for. A proof still ties state and weights to
one and the same header, and lets nothing be damaged on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pol_abci.client.chain import ChainNotBegun, query_application
from pol_abci.client.rpc_errors import RpcError
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, Head
from pol_abci.rules.errors import MalformedRecord
from pol_abci.rules.merkle import (
    CHUNK_BYTES,
    STATE_STORE,
    WEIGHTS_STORE,
    compute_weights_root,
    decode_value,
    encode_chunk_key,
)
from pol_abci.rules.merkle_proofs import InvalidProof, verify_chunk, verify_state

if TYPE_CHECKING:
    from pol_abci.client.answers import BlockHeader, QueryAnswer
    from pol_abci.client.rpc import RpcClient
    from pol_abci.rules.params import Address

RecordType = TypeVar("RecordType", Head, Account)

FIRST_PROVING_HEIGHT = 2
"""Header 1 commits to genesis, of which nothing is answered."""


@dataclass(frozen=True, slots=True)
class ProvenValue:
    """A payload, None when provenly absent, as of `height`."""

    payload: bytes | None
    height: int


class LightClient:
    """Verified reads over one node's RPC."""

    def __init__(self, rpc: RpcClient, chain_id: str) -> None:
        self._rpc = rpc
        self._chain_id = chain_id

    async def get_state(self, key: bytes) -> ProvenValue:
        """Read the value under a state key, or its absence.

        Raises
        ------
        InvalidProof
            The node's answer does not follow from its own header.
        ChainNotBegun, RpcError, NodeUnreachable
            It cannot be asked now.
        """
        latest = (await self._rpc.status()).latest_height
        if latest < FIRST_PROVING_HEIGHT:
            raise ChainNotBegun(f"the chain behind {self._rpc.url} has not begun: no block yet")
        answer, header = await self._ask(STATE_STORE, key)
        if answer.height < latest - 2:  # the app may be a block behind CometBFT
            raise InvalidProof(
                f"{self._rpc.url} is at height {latest} and answered as of {answer.height}"
            )
        payload = _decode(answer.value) if answer.value else None
        verify_state(answer.ops, header.app_hash, key, payload)
        return ProvenValue(payload, header.height - 1)

    async def get_head(self) -> Head:
        """Read the newest provable head, at most one block old; errors as `get_state`."""
        payload = (await self.get_state(keys.head())).payload
        if payload is None:
            raise InvalidProof(f"the state behind {self._rpc.url} has no head: not this protocol")
        return _decode_record(Head, payload)

    async def get_account(self, address: Address) -> Account | None:
        """Read an account, None for one that nothing ever reached; errors as `get_state`."""
        payload = (await self.get_state(keys.account(address))).payload
        return None if payload is None else _decode_record(Account, payload)

    async def get_weights(self, root: bytes, size_bytes: int) -> bytes | None:
        """Download a head's weights by chunks, each proven, and hold the whole against `root`.

        Returns
        -------
        bytes
            `size_bytes` of weights; None when the chain moved to another head meanwhile: read the
            head again.

        Raises
        ------
        InvalidProof
            A chunk does not follow from its header, or has a wrong length.
        RpcError, NodeUnreachable
            It cannot be asked now.
        """
        chunks = []
        for start in range(0, size_bytes, CHUNK_BYTES):
            index = start // CHUNK_BYTES
            answer, header = await self._ask(WEIGHTS_STORE, encode_chunk_key(index))
            chunk = _decode(answer.value)
            verify_chunk(answer.ops, header.app_hash, index, chunk)
            expected = min(CHUNK_BYTES, size_bytes - start)
            if len(chunk) != expected:
                raise InvalidProof(
                    f"chunk {index} of the weights has {len(chunk)} bytes, not {expected}: "
                    f"the node's chain trains another model"
                )
            chunks.append(chunk)
        weights = b"".join(chunks)
        return weights if compute_weights_root(weights) == root else None

    async def _ask(self, store: bytes, key: bytes) -> tuple[QueryAnswer, BlockHeader]:
        """Ask for a value as of the newest provable height; also the header that proves it."""
        path = f"/store/{store.decode()}/key"
        answer = await query_application(self._rpc, path, key, prove=True)
        if answer.height < FIRST_PROVING_HEIGHT - 1:
            raise InvalidProof(f"{self._rpc.url} answered as of height {answer.height}")
        return answer, await self._get_header(answer.height + 1)

    async def _get_header(self, height: int) -> BlockHeader:
        header = await self._rpc.commit(height)
        if header.chain_id != self._chain_id or header.height != height:
            raise RpcError(
                f"{self._rpc.url} gave a header of {header.chain_id} at {header.height}, "
                f"asked for {self._chain_id} at {height}"
            )
        return header


def _decode(stored: bytes) -> bytes:
    try:
        return decode_value(stored)
    except ValueError as error:
        raise InvalidProof(f"the value is not as the state stores any: {error}") from error


def _decode_record(kind: type[RecordType], payload: bytes) -> RecordType:
    try:
        return kind.decode(payload)
    except MalformedRecord as error:
        raise InvalidProof(f"the proven value is not of this protocol: {error}") from error
