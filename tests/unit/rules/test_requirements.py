"""What a miner could gain by, if it were otherwise."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.params import MAX_DRAWS, SCORE_UNIT, Address
from pol_abci.rules.requirements import compute_score, iterate_requirements

SEED, PROBE = b"s" * 32, b"p" * 32
ADDRESS = Address(b"a" * 20)


def draw(**changed: object) -> list[tuple[int, int]]:
    arguments = {
        "seed": SEED,
        "address": ADDRESS,
        "nonce": 1,
        "step": 2,
        "probe_before": PROBE,
        "weight_count": 7_234,
    }
    return list(islice(iterate_requirements(**{**arguments, **changed}), 30))  # type: ignore[arg-type]  # each test changes one of them


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": b"t" * 32},
        {"address": Address(b"b" * 20)},
        {"nonce": 2},
        {"step": 3},
        {"probe_before": b"q" * 32},
    ],
)
def test_requirements_depend_on_everything_that_the_walk_is_bound_to(
    changed: dict[str, object],
) -> None:
    assert draw() != draw(**changed)


@given(st.integers(1, 300))
def test_each_weight_is_required_at_most_once_and_exists(weight_count: int) -> None:
    pairs = list(iterate_requirements(SEED, ADDRESS, 1, 2, PROBE, weight_count))
    indexes = [index for index, _ in pairs]
    assert len(set(indexes)) == len(indexes)
    assert all(0 <= index < weight_count for index in indexes)
    assert all(direction in (-1, 1) for _, direction in pairs)


def test_draws_end_with_repeats_counted() -> None:
    # 4,096 draws from 7,234 weights repeat some hundred times; without counting repeats the
    # number of requirements would be 4,096.
    pairs = list(iterate_requirements(SEED, ADDRESS, 1, 2, PROBE, 7_234))
    assert 2_900 < len(pairs) < 3_300
    assert len(list(iterate_requirements(SEED, ADDRESS, 1, 2, PROBE, 2**40))) == MAX_DRAWS


def test_directions_are_balanced() -> None:
    pairs = list(iterate_requirements(SEED, ADDRESS, 1, 2, PROBE, 2**40))
    assert abs(sum(direction for _, direction in pairs)) < 300  # 4.7 standard deviations


def test_score_stops_at_the_first_weight_that_moved_the_other_way() -> None:
    moves = {0: 1, 1: -1, 2: 1}
    pairs = [(0, 1), (1, 1), (2, 1)]
    assert compute_score(pairs, moves.__getitem__, PROBE) // SCORE_UNIT == 1


def test_weights_that_stood_still_neither_count_nor_stop() -> None:
    moves = {0: 0, 1: 1, 2: 0, 3: -1}
    pairs = [(0, 1), (1, 1), (2, -1), (3, -1)]
    assert compute_score(pairs, moves.__getitem__, PROBE) // SCORE_UNIT == 2


def test_no_requirement_is_drawn_after_the_broken_one() -> None:
    def pairs() -> object:
        yield 0, 1
        raise AssertionError("drawn for nothing")

    assert compute_score(pairs(), lambda _: -1, PROBE) < SCORE_UNIT  # type: ignore[arg-type]  # a generator that must not be read on


def test_fraction_is_below_one_bit_and_differs_by_probe() -> None:
    scores = [compute_score([], lambda _: 0, bytes([i])) for i in range(50)]
    assert all(0 <= score < SCORE_UNIT for score in scores)
    assert all(a != b for a, b in pairwise(scores))
