"""Capture of the share ring: by luck a miner holds more slots than its part of the hash power.

Once every slot has been won, the ring holds the winners of the last `slots` proofs. So what a
miner with the share q of the hash power holds at a moment is binomial, and over a year it is a
window that slides over coins. The simulation draws the coins and slides the window;
`follow_rules` does the same through the rules themselves, proof by proof, and both must agree
before anything is counted.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.rules.address import compute_address
from pol_abci.rules.codec import Account
from pol_abci.rules.ledger import set_account
from pol_abci.rules.params import ShareParams
from pol_abci.rules.shares import bind_key, compute_validators, process_share, process_slots
from pol_abci.rules.state import DictState, Overlay
from studies.attacks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RINGS = (100, 300, 1_000)
SHARES = tuple(Fraction(percent, 100) for percent in (10, 20, 25, 30, 33, 40, 50, 60))
INTERVAL_S = 30
YEAR = 365 * 24 * 3_600 // INTERVAL_S
"""Proofs in a year of the preset cifar10."""
CHECKED = 1_500
"""Proofs that are followed through the rules as well."""
ATTACKER_KEY, OTHERS_KEY = b"a" * 32, b"o" * 32


def measure(years: int = 30) -> Iterator[Row]:
    """One row a ring, a share of the hash power, and a part of the votes."""
    chooser = np.random.default_rng(6)
    for slots in RINGS:
        check_against_rules(chooser.random(CHECKED + slots) < 1 / 3, slots)
    for share in SHARES:
        needs = {(slots, part): need for slots in RINGS for part, need in get_needs(slots).items()}
        moments = dict.fromkeys(needs, 0)
        caught = dict.fromkeys(needs, 0)
        for _ in range(years):
            counted = accumulate(chooser.random(YEAR + max(RINGS), dtype=np.float32) < float(share))
            for slots in RINGS:
                held = slide(counted, slots)[-YEAR:]
                for part, need in get_needs(slots).items():
                    above = int(np.count_nonzero(held >= need))
                    moments[slots, part] += above
                    caught[slots, part] += above > 0
        for (slots, part), need in needs.items():
            yield Row(
                "ring",
                (
                    f"{float(share):.0%}",
                    f"{slots:,}",
                    part,
                    format_part(moments[slots, part], years * YEAR),
                    format_chance(compute_tail(slots, need, share)),
                    format_part(caught[slots, part], years),
                    format_chance(bound_year(slots, need, share)),
                ),
            )


def get_needs(slots: int) -> dict[str, int]:
    """Slots that stop blocks when they don't vote, and slots that decide them alone."""
    return {"a third": -(-slots // 3), "two thirds": 2 * slots // 3 + 1}


def accumulate(wins: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Proofs won before each proof, and in all."""
    return np.concatenate((np.zeros(1, np.int32), np.cumsum(wins, dtype=np.int32)))


def slide(counted: NDArray[np.int32], slots: int) -> NDArray[np.int32]:
    """Slots held after each proof from the one on that has filled the ring."""
    return counted[slots:] - counted[:-slots]


def compute_tail(slots: int, need: int, share: Fraction) -> Fraction:
    """P(at least `need` of `slots`)."""
    masses = (compute_mass(slots, held, share) for held in range(need, slots + 1))
    return sum(masses, Fraction(0))


def compute_mass(slots: int, held: int, share: Fraction) -> Fraction:
    """P(just `held` of `slots`)."""
    return math.comb(slots, held) * share**held * (1 - share) ** (slots - held)


def bound_year(slots: int, need: int, share: Fraction) -> Fraction:
    """Bound the chance of `need` slots at any time of a year from above.

    It is had at the start, or reached: from one slot less, by a win that takes another's slot. The
    expected number of times is no less than the chance that there is one.
    """
    below = compute_mass(slots, need - 1, share)
    reached = below * share * Fraction(slots - need + 1, slots)
    return min(Fraction(1), compute_tail(slots, need, share) + YEAR * reached)


def follow_rules(wins: NDArray[np.bool_], slots: int) -> list[int]:
    """Give a slot for each proof as the rules do; the attacker's voting power after each."""
    params = ShareParams(slots=slots, max_validators=2, liveness_window=1)
    state = Overlay(DictState())
    for key in (ATTACKER_KEY, OTHERS_KEY):
        set_account(state, compute_address(key), Account())
        bind_key(state, compute_address(key), key)
    attacker, others = (compute_address(key) for key in (ATTACKER_KEY, OTHERS_KEY))
    process_slots(state, params, others, slots)
    powers = []
    for is_won in wins.tolist():
        process_share(state, params, attacker if is_won else others)
        validators = {each.consensus_key: each.power for each in compute_validators(state, params)}
        powers.append(validators.get(ATTACKER_KEY, 0))
    return powers


def check_against_rules(wins: NDArray[np.bool_], slots: int) -> None:
    """Hold the window against the rules on the same proofs."""
    assert follow_rules(wins, slots)[slots - 1 :] == slide(accumulate(wins), slots).tolist()


def format_part(count: int, of: int) -> str:
    """A share that was counted; none is told with what it was none of."""
    return f"0 of {of:,}" if count == 0 else format_chance(Fraction(count, of))


def format_chance(chance: Fraction) -> str:
    """Percent where that is readable, else the nearest power of ten."""
    if chance < Fraction(1, 10**4):
        # In integers: the least of them are below all floats.
        return f"10^{math.log10(chance.numerator) - math.log10(chance.denominator):.0f}"
    return f"{float(chance):.2%}"
