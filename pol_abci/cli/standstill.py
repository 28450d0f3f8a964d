"""What only an onlooker can tell of a standstill: CometBFT's side of it, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.app.standstill import PATIENCE_INTERVALS

if TYPE_CHECKING:
    from pol_abci.client.answers import NodeStatus, RoundState
    from pol_abci.client.chain import ChainStatus

NOT_BEGUN = "no block is committed yet"


def is_frozen(chain: ChainStatus) -> bool:
    """Whether the app has committed nothing for longer than heartbeats explain."""
    return chain.block_age_ms > PATIENCE_INTERVALS * chain.target_interval_ms


def explain_standstill(
    comet: NodeStatus, chain: ChainStatus, consensus: RoundState | None
) -> str | None:
    """Return the app's reason, and with `consensus` CometBFT's; None while all is well.

    A CometBFT whose consensus has failed leaves its process and its RPC up: only the app's height
    tells.
    """
    behind = comet.latest_height - chain.height
    if is_frozen(chain) and behind > 1:  # the block that is being executed is known already
        return (
            f"CometBFT is at height {comet.latest_height}, its application at {chain.height} for "
            f"{chain.block_age_ms // 1000} s: see the application's log"
        )
    if is_frozen(chain) and consensus is not None:
        age = f"no block for {chain.block_age_ms // 1000} s"
        return f"{age}: {explain_round(consensus)}"
    if chain.standstill is not None and comet.catching_up:
        return "this node is catching up with the others"
    return chain.standstill


def explain_round(consensus: RoundState) -> str:
    """Tell what CometBFT waits for before its next block."""
    place = f"height {consensus.height}, round {consensus.round}"
    for name, votes in (("prevotes", consensus.prevotes), ("precommits", consensus.precommits)):
        if 3 * votes <= 2 * consensus.total:
            return (
                f"consensus waits at {place}: {name} of {100 * votes // consensus.total}% of the "
                "voting power have come, more than two thirds are needed; are validators away?"
            )
    return (
        f"the votes for {place} are there, and CometBFT does not go on: look for CONSENSUS FAILURE "
        "in its log, and start it again"
    )
