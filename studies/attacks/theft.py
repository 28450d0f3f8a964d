"""Signing somebody else's proof: a proof that travels can be read by everybody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules.seed import hash_fields
from studies.attacks.chosen_batches import REQUIREMENTS, climb, learn_paper
from studies.attacks.claims import judge, make_claim
from studies.attacks.paper_rules import count_met, draw_requirements
from studies.attacks.report import Row
from studies.attacks.scene import MINER, OTHER, learn_head, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator


def measure(proofs: int = 10) -> Iterator[Row]:
    """A thief's claims against `walk`, and against the paper with and without the address in R."""
    task, head = load_digits(), learn_head()
    refused = steps = 0
    for nonce in range(proofs):
        claim = make_claim(task, head, nonce)
        assert judge(task, head, claim)[0] == "true"
        verdict, done = judge(task, head, replace(claim, address=OTHER))
        refused += verdict != "true"
        steps += done
    yield Row(
        "walk",
        (
            "another's walk under the own address",
            "—",
            "—",
            "0",
            f"{refused} of {proofs} refused as false, after {steps / proofs:.0f} step each",
        ),
    )
    chain, weights, guide = learn_paper()
    literal = bound = 0
    for target in range(proofs):
        climb(chain, weights, target, guide)
        moves = chain.get_moves()
        # What `climb` was asked for; without an address in it, it is asked of the thief too.
        seed = hash_fields("seed", b"chosen batches", target)
        asked, of_thief = (
            draw_requirements(seed, who, REQUIREMENTS, chain.task.model.weight_count)
            for who in (MINER, OTHER)
        )
        literal += count_met(moves, asked) == REQUIREMENTS
        bound += count_met(moves, of_thief) == REQUIREMENTS
    yield Row(
        "paper",
        (
            "another's P and W under the own name",
            f"{2**REQUIREMENTS:,}",
            "0 to the letter",
            "without bound to the letter; else 1",
            f"{literal} of {proofs} valid to the letter; {bound} where R binds the address",
        ),
    )
