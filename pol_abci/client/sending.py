"""Send a transaction that pays a fee, and see it through to a block.

The node is asked for the account as its mempool would leave it, so several transactions can be
sent before the first one is in a block. Whoever else uses the key at the same moment may take the
number first: then the home's own node refuses ours, and the next number is signed.

A node that was named gets one signed transaction and no more: it may keep what it refused, and
with sequence numbers that it makes up have all of them paid one day.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from pol_abci.client.chain import query_application
from pol_abci.client.refusals import explain_refusal
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError, TxInCache, UnexpectedAnswer
from pol_abci.client.tx_index import IndexDisabled, find_tx
from pol_abci.rules.codec import Account
from pol_abci.rules.errors import CODE_OK, InvalidSequence, MalformedRecord, PolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.client.rpc import RpcClient
    from pol_abci.rules.params import Address

ACCOUNT_PATH = "/account"
ATTEMPTS = 10
RETRY_S = 0.2
POLL_S = 0.25


class TxRefused(PolError):
    """The node says that it did not take the transaction; an honest one has forgotten it."""


class TxFailed(PolError):
    """A block has the transaction, and it changed nothing."""


class OutcomeUnknown(PolError):
    """The transaction may be in a block one day, or never."""


async def get_pending_account(rpc: RpcClient, address: Address) -> Account:
    """Return an account as it is once all that waits in the node's mempool is in a block.

    Raises
    ------
    RpcError, NodeUnreachable
        When the node does not say.
    """
    answer = await query_application(rpc, ACCOUNT_PATH, address)
    try:
        return Account.decode(answer.value)
    except MalformedRecord as error:
        raise UnexpectedAnswer(f"{rpc.url} sent an account that cannot be read: {error}") from error


async def send_tx(
    rpc: RpcClient, address: Address, build: Callable[[int], bytes], *, is_own_node: bool
) -> bytes:
    """Send what `build` makes of the account's next sequence number; the transaction's hash.

    Where another transaction took the number in between, the own node is sent the next one.

    Raises
    ------
    TxRefused
        When the node says that it does not take it.
    OutcomeUnknown
        When the node has it and gave no answer to rely on: it may use it all the same.
    RpcError, NodeUnreachable
        When nothing was signed, or only what the own node refused.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_S)
        raw = build((await get_pending_account(rpc, address)).sequence + 1)
        tx_hash = hashlib.sha256(raw).digest()
        try:
            broadcast = await rpc.broadcast_tx_sync(raw)
        except TxInCache:
            broadcast = None  # the same was sent from elsewhere, and has this number
        except (NodeUnreachable, RpcError) as error:
            raise OutcomeUnknown(f"{error}; {_describe_unknown(tx_hash)}") from error
        if broadcast is not None and broadcast.is_accepted:
            return tx_hash
        if broadcast is not None and broadcast.code != InvalidSequence.code:
            raise TxRefused(
                f"the node refused it: {explain_refusal(broadcast.code, broadcast.log)}"
            )
        if not is_own_node:
            raise OutcomeUnknown(
                f"the node at {rpc.url} says that another transaction of this account came "
                f"between; {_describe_unknown(tx_hash)}"
            )
    raise TxRefused(f"the node refused it: {explain_refusal(InvalidSequence.code, '')}")


async def wait_committed(rpc: RpcClient, tx_hash: bytes, limit_s: float) -> int:
    """Return the height of the block that has a transaction, as soon as there is one.

    Raises
    ------
    TxFailed
        When it failed there.
    OutcomeUnknown
        When no block had it in time, or the node cannot tell.
    """
    deadline_s = asyncio.get_running_loop().time() + limit_s
    why = f"no block had it within {limit_s:g} s"
    while True:
        try:
            found = await find_tx(rpc, tx_hash)
        except IndexDisabled as error:
            raise OutcomeUnknown(f"{error}; {_describe_unknown(tx_hash)}") from error
        except (NodeUnreachable, RpcError) as error:  # it may be well again in time
            found, why = None, str(error)
        if found is not None and found.code != CODE_OK:
            raise TxFailed(
                f"transaction {tx_hash.hex().upper()} failed in block {found.height}: it changed "
                f"nothing and cost nothing"
            )
        if found is not None:
            return found.height
        if asyncio.get_running_loop().time() > deadline_s:
            raise OutcomeUnknown(f"{why}; {_describe_unknown(tx_hash)}")
        await asyncio.sleep(POLL_S)


def _describe_unknown(tx_hash: bytes) -> str:
    return (
        f"transaction {tx_hash.hex().upper()} may still be committed: look with "
        f"`pol-abci history` before you send again"
    )
