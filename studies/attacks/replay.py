"""Sending a proof again: in the next generation, twice in a block, or on another chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.node.presets import load_preset
from pol_abci.rules.proof import Claim, TrueWalk, WalkVerdict
from studies.attacks.chosen_batches import REQUIREMENTS, climb, learn_paper
from studies.attacks.report import Row
from studies.attacks.spoofed_weights import count_lucky
from studies.attacks.virtual_ledger import VirtualLedger, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.rules.block import BlockOutcome


def measure(proofs: int = 5, seeds: int = 1_000) -> Iterator[Row]:
    """Refusals of `walk` by the rules themselves, and the paper's odds."""
    yield Row("walk", ("the same proof again", "—", "—", "0", "; ".join(replay_everywhere())))
    chain, weights, guide = learn_paper()
    lucky = 0
    for target in range(proofs):
        batch = climb(chain, weights, target, guide).batch
        lucky += count_lucky(chain, weights, batch, seeds)
    yield Row(
        "paper",
        (
            "the same P and W again, in another generation",
            f"{2**REQUIREMENTS:,}",
            f"{2**REQUIREMENTS:,}",
            "1; without bound for a steered W",
            f"{lucky} of {proofs * seeds:,} heads take it; W may be used again all the same",
        ),
    )


def replay_everywhere() -> list[str]:
    """What the rules say to a proof that was accepted once."""
    params = load_preset("digits").params
    ledger, elsewhere = (VirtualLedger(params, chain) for chain in ("here", "elsewhere"))
    key = make_key(2)
    claim = ledger.make_claim(key, 0)
    verdicts: dict[Claim, WalkVerdict] = {claim: TrueWalk(2**28, 100, 100)}
    raw = ledger.sign(key, claim)
    time_ms = ledger.time_ms + params.difficulty.target_interval_ms
    twice = ledger.run_block(time_ms, [raw, raw], verdicts)
    assert twice.accepted is not None
    again = ledger.run_block(time_ms + 1, [raw], verdicts)
    other = elsewhere.run_block(time_ms, [raw], verdicts)
    return [
        f"twice in a block: `{_name(twice)}`",
        f"in the next generation: `{_name(again)}`",
        f"on another chain: `{_name(other)}`",
    ]


def _name(outcome: BlockOutcome) -> str:
    """The reason for which a block's last transaction failed."""
    error = outcome.txs[-1].error
    assert error is not None, "a replayed proof was taken"
    return type(error).__name__
