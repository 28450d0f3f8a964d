"""Why a chain stands still, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.params import SCORE_UNIT

if TYPE_CHECKING:
    from pol_abci.app.replica import Replica

PATIENCE_INTERVALS = 3
"""A generation that takes longer than this many target intervals wants an explanation."""


def explain_standstill(replica: Replica) -> str | None:
    """Return why no generation comes, or None while there is nothing to explain."""
    if replica.store.height == 0:
        return "no block is committed yet: CometBFT has not connected, or waits for validators"
    params, head = replica.chain.params.difficulty, replica.get_head()
    if head.time_ms == 0:
        return "the chain has just begun: proofs are taken from its third block on"
    now_ms, patience_ms = replica.get_now_ms(), PATIENCE_INTERVALS * params.target_interval_ms
    # A node that has just started knows nothing of the time before.
    if now_ms - max(head.time_ms, replica.started_ms) < patience_ms:
        return None
    since = f"no generation for {(now_ms - head.time_ms) // 1000} s"
    if not replica.verifier.status.alive:
        return f"{since}: the verifier is not running (it is being started again; see the log)"
    if now_ms - max(replica.time_ms, replica.started_ms) > patience_ms:
        return (
            f"{since}: no block either; CometBFT is not running, or validators with more than a "
            "third of the voting power are away"
        )
    return f"{since}: {_explain_missing_proof(replica, now_ms)}"


def _explain_missing_proof(replica: Replica, now_ms: int) -> str:
    ticket = replica.tickets.get_soonest()
    if ticket is not None and ticket.good_time_ms <= now_ms:
        return "a proof is good and waits for its block"
    if ticket is not None:
        wait_s = (ticket.good_time_ms - now_ms) // 1000
        return f"the best proof known will be good in {wait_s} s"
    params, head = replica.chain.params.difficulty, replica.get_head()
    bits = compute_difficulty(params, head.difficulty, head.time_ms, now_ms) / SCORE_UNIT
    return f"no proof has arrived; is a miner running? The difficulty is {bits:.1f} bits and falls"
