"""What happened to an account by transactions: found in a node's index, not proven."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.rpc_errors import BlockPruned, UnexpectedAnswer
from pol_abci.client.tx_index import search_txs
from pol_abci.rules.codec import decode_tx
from pol_abci.rules.errors import InvalidTx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pol_abci.client.rpc import RpcClient
    from pol_abci.client.tx_index import FoundTx
    from pol_abci.rules.codec import SignedTx
    from pol_abci.rules.params import Address

EVENTS = (
    "transfer.sender",
    "transfer.recipient",
    "proof.miner",
    "register_validator.address",
    "unjail.address",
)
"""Attributes that name an account; protocol section 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A transaction of a block; no time where the node has only its index of that block left."""

    height: int
    time_ms: int | None
    tx: SignedTx


async def get_account_history(
    rpc: RpcClient, address: Address, *, limit: int, skip: int = 0
) -> tuple[HistoryEntry, ...]:
    """Return the newest transactions that concern an account, newest first, but for `skip`.

    Raises
    ------
    IndexDisabled, RpcError, NodeUnreachable
        When the node cannot tell.
    """
    queries = [f"{attribute}='{address.hex()}'" for attribute in EVENTS]
    answers = await asyncio.gather(*(search_txs(rpc, query, skip + limit) for query in queries))
    places = {(each.height, each.index): each for answer in answers for each in answer}
    newest = [places[place] for place in sorted(places, reverse=True)][skip : skip + limit]
    times_ms = await _get_times_ms(rpc, newest)
    try:
        return tuple(
            HistoryEntry(height=each.height, time_ms=times_ms[each.height], tx=_read_tx(each.raw))
            for each in newest
        )
    except InvalidTx as error:
        raise UnexpectedAnswer(f"{rpc.url} sent a transaction that is none: {error}") from error


def _read_tx(raw: bytes) -> SignedTx:
    """Read what a block holds: it was no longer than its chain allows."""
    return decode_tx(raw, len(raw))


async def _get_times_ms(rpc: RpcClient, found: Sequence[FoundTx]) -> dict[int, int | None]:
    heights = sorted({each.height for each in found})
    times_ms = await asyncio.gather(*(_find_time_ms(rpc, height) for height in heights))
    return dict(zip(heights, times_ms, strict=True))


async def _find_time_ms(rpc: RpcClient, height: int) -> int | None:
    """Header time of a block, None where the node does not have it any more."""
    try:
        return (await rpc.commit(height)).time_ms
    except BlockPruned:
        return None
