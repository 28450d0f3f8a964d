"""Laws of the difficulty that the mining and submitting rely on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.difficulty import (
    compute_difficulty,
    compute_good_time_ms,
    compute_next_difficulty,
)
from pol_abci.rules.params import MAX_DIFFICULTY, SCORE_UNIT, DifficultyParams

DIGITS = DifficultyParams(
    first=12 * SCORE_UNIT,
    target_interval_ms=4_000,
    tau_intervals=4,
    slope=5 * SCORE_UNIT // 2,
    max_fall=SCORE_UNIT,
)
difficulties = st.integers(0, MAX_DIFFICULTY)
params = st.builds(
    DifficultyParams,
    first=difficulties,
    target_interval_ms=st.integers(1, 10**7),
    tau_intervals=st.integers(1, 1_000),
    slope=st.integers(1, 10**9),
    max_fall=difficulties,
)
times_ms = st.integers(0, 2**45)


def test_on_time_leaves_difficulty_as_it_is() -> None:
    assert compute_next_difficulty(DIGITS, 12 * SCORE_UNIT, 4_000) == 12 * SCORE_UNIT


def test_four_intervals_late_cost_a_bit_and_at_most_one() -> None:
    assert compute_next_difficulty(DIGITS, 12 * SCORE_UNIT, 20_000) == 11 * SCORE_UNIT
    assert compute_next_difficulty(DIGITS, 12 * SCORE_UNIT, 10**9) == 11 * SCORE_UNIT


def test_division_floors_below_zero() -> None:
    # One millisecond late is 4.096 units down: floor division takes 5.
    assert compute_next_difficulty(DIGITS, 12 * SCORE_UNIT, 4_001) == 12 * SCORE_UNIT - 5


def test_difficulty_falls_by_slope_in_an_interval() -> None:
    assert compute_difficulty(DIGITS, 12 * SCORE_UNIT, 1_000, 5_000) == 19 * SCORE_UNIT // 2


@given(params, difficulties, times_ms)
def test_next_difficulty_is_clamped(law: DifficultyParams, previous: int, interval_ms: int) -> None:
    following = compute_next_difficulty(law, previous, interval_ms)
    assert 0 <= following <= MAX_DIFFICULTY
    assert following >= previous - law.max_fall
    assert (following >= previous) or interval_ms > law.target_interval_ms


@given(params, difficulties, times_ms, times_ms)
def test_difficulty_never_rises_within_a_generation(
    law: DifficultyParams, head: int, first_ms: int, second_ms: int
) -> None:
    earlier, later = sorted((first_ms, second_ms))
    assert compute_difficulty(law, head, 0, later) <= compute_difficulty(law, head, 0, earlier)


@given(params, difficulties, times_ms, st.integers(0, MAX_DIFFICULTY + SCORE_UNIT))
def test_good_time_is_the_first_millisecond_that_suffices(
    law: DifficultyParams, head: int, head_time_ms: int, score: int
) -> None:
    good_ms = compute_good_time_ms(law, head, head_time_ms, score)
    assert compute_difficulty(law, head, head_time_ms, good_ms) <= score
    if good_ms > head_time_ms:
        assert compute_difficulty(law, head, head_time_ms, good_ms - 1) > score
    else:
        assert good_ms == head_time_ms
