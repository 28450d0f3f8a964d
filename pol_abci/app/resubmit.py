"""Hands the best kept ticket to this node's own CometBFT once it is good.

CheckTx refuses a ticket that is not good yet, and a mempool forgets what it refused; nobody
sends it again. What the RPC replies decides nothing: a submission may be told "already in cache"
and be dropped all the same. Only CheckTx's own yes to the same bytes ends the trying.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from pol_abci.client.rpc_errors import NodeUnreachable, RpcError

if TYPE_CHECKING:
    from pol_abci.app.replica import Replica
    from pol_abci.app.tickets import Ticket
    from pol_abci.client.rpc import RpcClient

log = structlog.get_logger(__name__)

RETRY_S = 0.1


async def resubmit_tickets(replica: Replica, rpc: RpcClient) -> None:
    """Submit what is good, again and again until it is in; runs until cancelled."""
    changed = asyncio.Event()
    replica.on_change = changed.set
    is_away = False
    while True:
        changed.clear()  # before looking: what changes while the RPC is waited for counts
        ticket, wait_s = choose_ticket(replica)
        if ticket is not None:
            try:
                await _submit(rpc, ticket)
                is_away = False
            except NodeUnreachable as error:
                if not is_away:  # once, not ten times a second
                    log.warning("this node's RPC does not answer", reason=str(error))
                is_away = True
        try:
            await asyncio.wait_for(changed.wait(), wait_s)
        except TimeoutError:
            continue


def choose_ticket(replica: Replica) -> tuple[Ticket | None, float | None]:
    """Return the ticket to submit now, if any, and how many seconds later to look again."""
    now_ms = replica.get_now_ms()
    best = replica.tickets.get_best(now_ms)
    if best is not None:
        return (best, RETRY_S) if best.accepted_time_ms is None else (None, None)
    soonest = replica.tickets.get_soonest()
    if soonest is None:
        return None, None
    return None, (soonest.good_time_ms - now_ms) / 1_000


async def _submit(rpc: RpcClient, ticket: Ticket) -> None:
    try:
        await rpc.broadcast_tx_sync(ticket.raw)
    except RpcError as error:
        log.debug("the node did not take a ticket yet", reason=str(error))
