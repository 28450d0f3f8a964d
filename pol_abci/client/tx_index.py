"""Transactions that are in blocks, as the node's index finds them; nothing here is proven."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.rpc_errors import RpcError

if TYPE_CHECKING:
    from pol_abci.client.reading import Reading
    from pol_abci.client.rpc import RpcClient

MAX_PER_PAGE = 100
"""What CometBFT gives at once."""

_MISSING = re.compile(r"tx \([0-9A-F]+\) not found")
_DISABLED = "indexing is disabled"


class IndexDisabled(RpcError):
    """A node that keeps no index of transactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTx:
    """A transaction in a block, `index` being its place there; `code` is 0 where it was applied."""

    hash: bytes
    height: int
    index: int
    code: int
    raw: bytes


async def find_tx(rpc: RpcClient, tx_hash: bytes) -> FoundTx | None:
    """Return a transaction by its hash, None while no block that is indexed has it.

    Raises
    ------
    IndexDisabled, RpcError, NodeUnreachable
        When the node cannot tell.
    """
    try:
        return _read(await rpc.call("tx", hash=base64.b64encode(tx_hash).decode(), prove=False))
    except RpcError as error:
        if _MISSING.search(str(error)):
            return None
        _explain(rpc, error)
        raise


async def search_txs(rpc: RpcClient, query: str, limit: int) -> tuple[FoundTx, ...]:
    """Return the newest transactions that match one of CometBFT's queries, newest first.

    Raises
    ------
    IndexDisabled, RpcError, NodeUnreachable
        When the node cannot tell.
    """
    found: list[FoundTx] = []
    per_page = min(limit, MAX_PER_PAGE)
    while len(found) < limit:
        page = str(len(found) // per_page + 1)
        try:
            answer = await rpc.call(
                "tx_search", query=query, page=page, per_page=str(per_page), order_by="desc"
            )
        except RpcError as error:
            _explain(rpc, error)
            raise
        items = answer.items("txs")
        found += [_read(item) for item in items]
        if not items or len(found) >= answer.integer("total_count"):
            break
    return tuple(found[:limit])


def _read(reading: Reading) -> FoundTx:
    return FoundTx(
        hash=reading.hex("hash"),
        height=reading.integer("height"),
        index=reading.integer("index", 0),
        code=reading.at("tx_result").integer("code", 0),
        raw=reading.base64("tx"),
    )


def _explain(rpc: RpcClient, error: RpcError) -> None:
    """Say what to do about a refusal that has a remedy."""
    if _DISABLED in str(error):
        raise IndexDisabled(
            f"the node at {rpc.url} keeps no index of transactions: ask another one with --node, "
            'or set indexer = "kv" under [tx_index] in its config.toml, which counts from then on'
        ) from error
