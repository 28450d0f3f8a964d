from __future__ import annotations

import pytest

from pol_abci.miner.status import StepRate, compute_odds
from pol_abci.rules.params import SCORE_UNIT, DifficultyParams

SCHEME = {"ticket_share": 31 / 32, "equilibrium_bits": 2.9}
DIFFICULTY = DifficultyParams(
    first=12 * SCORE_UNIT,
    target_interval_ms=4_000,
    tau_intervals=4,
    slope=5 * SCORE_UNIT // 2,
    max_fall=SCORE_UNIT,
)


def test_a_lone_miner_at_the_presets_difficulty_expects_about_an_interval() -> None:
    # 512 steps a second are 11 bits in 4 s; the first difficulty lies 2.9 bits above.
    odds = compute_odds(
        DIFFICULTY,
        **SCHEME,
        head_difficulty=int(13.9 * SCORE_UNIT),
        difficulty_now=int(13.9 * SCORE_UNIT),
        steps_per_second=512,
    )
    assert odds.share == pytest.approx(1.0, rel=0.01)
    assert odds.chance_per_second == pytest.approx(512 * 31 / 32 * 2**-13.9, rel=0.01)
    assert odds.expected_s is not None
    assert 2 < odds.expected_s < 6


def test_a_lone_miner_expects_its_win_where_tickets_and_difficulty_meet() -> None:
    odds = compute_odds(
        DIFFICULTY,
        **SCHEME,
        head_difficulty=20 * SCORE_UNIT,
        difficulty_now=20 * SCORE_UNIT,
        steps_per_second=100,
    )
    assert odds.expected_s is not None
    tickets = 100 * 31 / 32 * odds.expected_s
    assert tickets == pytest.approx(2 ** (20 - 2.5 / 4 * odds.expected_s), rel=1e-6)


def test_a_quarter_of_the_steps_is_a_quarter_of_the_share() -> None:
    shares = [
        compute_odds(
            DIFFICULTY,
            **SCHEME,
            head_difficulty=16 * SCORE_UNIT,
            difficulty_now=0,
            steps_per_second=speed,
        ).share
        for speed in (100, 400)
    ]
    assert shares[0] * 4 == pytest.approx(shares[1])


def test_a_miner_that_does_not_step_expects_nothing() -> None:
    odds = compute_odds(
        DIFFICULTY, **SCHEME, head_difficulty=0, difficulty_now=0, steps_per_second=0
    )
    assert odds.expected_s is None
    assert odds.chance_per_second == 0


def test_the_step_rate_is_of_the_last_seconds() -> None:
    rate = StepRate()
    assert rate.compute(0.0, 0) == 0
    assert rate.compute(1.0, 100) == 100
    for second in range(2, 30):
        latest = rate.compute(float(second), 100 + 10 * (second - 1))
    assert latest == pytest.approx(10)
