"""Why a chain stands still, and why a node is not healthy, in words."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.params import SCORE_UNIT

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.app.replica import Replica

PATIENCE_INTERVALS = 3
"""A generation, or a block, that takes longer than this many target intervals wants an
explanation. Blocks come at least four times an interval, since presets set such heartbeats."""
LOW_DISK_BYTES = 256 * 2**20
"""Free space below which a node is not healthy: without any, its app ends at the next block."""


def explain_standstill(replica: Replica) -> str | None:
    """Return why no generation comes, or None while there is nothing to explain."""
    if replica.store.height == 0:
        return (
            "no block is committed yet: CometBFT has not connected, waits for validators, or "
            "fetches a snapshot"
        )
    head = replica.get_head()
    if head.time_ms == 0:
        return "the chain has just begun: proofs are taken from its third block on"
    now_ms = replica.get_now_ms()
    # A node that has just started knows nothing of the time before.
    if now_ms - max(head.time_ms, replica.started_ms) < compute_patience_ms(replica):
        return None
    return (
        f"no generation for {(now_ms - head.time_ms) // 1000} s: "
        f"{_explain_missing_generation(replica, now_ms)}"
    )


def find_fault(replica: Replica, store_folder: Path) -> str | None:
    """Return why this node does not do its part, or None. That no miner mines is no fault of it."""
    if not replica.verifier.status.alive:
        return "the verifier is not running, or not ready yet; the log says more"
    age_ms = compute_block_age_ms(replica)
    if age_ms > compute_patience_ms(replica):
        return (
            f"no block for {age_ms // 1000} s: CometBFT is not running, or validators with more "
            "than a third of the voting power are away"
        )
    if not os.access(store_folder, os.W_OK):
        return f"{store_folder} cannot be written"
    free_bytes = shutil.disk_usage(store_folder).free
    if free_bytes < LOW_DISK_BYTES:
        return f"the disk of {store_folder} is almost full: {free_bytes // 2**20} MiB are free"
    return None


def compute_patience_ms(replica: Replica) -> int:
    """Return how long a block or a generation may take."""
    return PATIENCE_INTERVALS * replica.chain.params.difficulty.target_interval_ms


def compute_block_age_ms(replica: Replica) -> int:
    """Return for how long nothing was committed while this process ran."""
    return max(0, replica.get_now_ms() - replica.committed_ms)


def _explain_missing_generation(replica: Replica, now_ms: int) -> str:
    patience_ms = compute_patience_ms(replica)
    if not replica.verifier.status.alive:
        return "the verifier is not running, or not ready yet; the log says more"
    if compute_block_age_ms(replica) > patience_ms:
        return (
            "no block either; CometBFT is not running, or validators with more than a third of "
            "the voting power are away"
        )
    if now_ms - replica.time_ms > patience_ms:
        return (
            f"blocks come, the newest of {(now_ms - replica.time_ms) // 1000} s ago: this node is "
            "catching up, or its clock is wrong"
        )
    return _explain_missing_proof(replica, now_ms)


def _explain_missing_proof(replica: Replica, now_ms: int) -> str:
    ticket = replica.tickets.get_soonest()
    if ticket is not None and ticket.good_time_ms <= now_ms:
        return "a proof is good and waits for its block"
    if ticket is not None:
        wait_s = (ticket.good_time_ms - now_ms) // 1000
        return f"the best proof known will be good in {wait_s} s"
    if replica.verifier.is_walking:
        return f"a proof is being verified, {replica.verifier.queued} more wait for it"
    params, head = replica.chain.params.difficulty, replica.get_head()
    bits = compute_difficulty(params, head.difficulty, head.time_ms, now_ms) / SCORE_UNIT
    if bits == 0:
        return "no proof has arrived; is a miner running? The difficulty has fallen to nothing"
    fall_bits = params.slope / SCORE_UNIT * 1_000 / params.target_interval_ms
    return (
        f"no proof has arrived; is a miner running? The difficulty is {bits:.1f} bits and falls "
        f"by {fall_bits:.2f} a second"
    )
