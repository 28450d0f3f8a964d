"""Directed Guiding Gradients: what a step must have done to the weights; protocol section 5.

A requirement is a weight and the direction that it must have moved in. Which ones they are was
open until the step before was done, so that only doing the steps finds a ticket that meets many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.params import MAX_DRAWS, SCORE_UNIT
from pol_abci.rules.seed import Stream, hash_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pol_abci.rules.params import Address

_FRACTION_BYTES = 2
"""Of a score: what lies below a whole requirement, 1/65,536 each."""


def iterate_requirements(  # noqa: PLR0917  # everything that the draw is bound to
    seed: bytes,
    address: Address,
    nonce: int,
    step: int,
    probe_before: bytes,
    weight_count: int,
) -> Iterator[tuple[int, int]]:
    """R_t: pairs of a weight's index and +1 (must increase) or -1 (must decrease).

    `probe_before` is probe_{t-1}; `weight_count` counts the learnable values, which the index
    runs over in canonical order. Weights drawn before are passed over. Ends after 4,096 draws,
    repeats included.
    """
    stream = Stream("requirements", seed, address, nonce, step, probe_before)
    for requirement in _iterate_draws(stream, weight_count):
        index, is_decrease = divmod(requirement, 2)
        yield index, -1 if is_decrease else 1


def iterate_paper_requirements(seed: bytes, address: Address, weight_count: int) -> Iterator[int]:
    """The r_1, r_2, … of which the paper's R are the first; protocol section 14.

    Each is the paper's number: weight r // 2 must decrease if r is odd, increase if it is even.
    The address is in it so that a proof that is seen can't be signed by another.
    """
    return _iterate_draws(Stream("paper-requirements", seed, address), weight_count)


def _iterate_draws(stream: Stream, weight_count: int) -> Iterator[int]:
    """Up to 4,096 draws below 2|W|, without those of a weight that was drawn before."""
    drawn: set[int] = set()
    for _ in range(MAX_DRAWS):
        requirement = stream.uniform(2 * weight_count)
        if requirement // 2 not in drawn:
            drawn.add(requirement // 2)
            yield requirement


def compute_score(
    requirements: Iterable[tuple[int, int]], get_move: Callable[[int], int], probe: bytes
) -> int:
    """Score of a ticket in 1/65,536 bit.

    Counts the requirements met up to the first one broken, and adds a fraction below 1 that
    `probe` (probe_t) draws. `get_move(index)` is +1, -1 or 0 for a weight that increased,
    decreased or stood still in step t; those that stood still are passed over.
    """
    met = 0
    for index, direction in requirements:
        move = get_move(index)
        if move == -direction:
            break
        if move == direction:
            met += 1
    fraction = hash_fields("fraction", probe)[:_FRACTION_BYTES]
    return SCORE_UNIT * met + int.from_bytes(fraction, "big")
