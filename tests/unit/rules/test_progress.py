"""The guard lets a chain live on, and nothing worse in than it must."""

from __future__ import annotations

import dataclasses

import pytest

from pol_abci.rules.params import DifficultyParams, WalkParams
from pol_abci.rules.progress import is_progress
from pol_abci.rules.proof import TrueWalk
from pol_abci.rules.scheme import WalkScheme

GUARD = WalkParams(
    min_steps=2, max_steps=32, progress="guard", evaluation_samples=128, stamp_bits=12
)
STRICT = dataclasses.replace(GUARD, progress="strict")
DIFFICULTY = DifficultyParams(
    first=0, target_interval_ms=4_000, tau_intervals=4, slope=163_840, max_fall=65_536
)


@pytest.mark.parametrize(
    ("correct_ticket", "elapsed_ms", "is_enough"),
    [
        (100, 0, True),
        (99, 3_999, False),
        (99, 4_000, True),
        (98, 4_000, False),
        (68, 32 * 4_000, True),
        (67, 10**12, False),  # a quarter of 128 is the most
    ],
)
def test_guard_gives_way_by_one_image_an_interval(
    correct_ticket: int, elapsed_ms: int, is_enough: bool
) -> None:
    verdict = TrueWalk(0, 100, correct_ticket)
    assert is_progress(WalkScheme(GUARD), DIFFICULTY, verdict, elapsed_ms) is is_enough


@pytest.mark.parametrize(("correct_ticket", "is_enough"), [(100, False), (101, True)])
def test_strict_wants_more_however_late(correct_ticket: int, is_enough: bool) -> None:
    verdict = TrueWalk(0, 100, correct_ticket)
    assert is_progress(WalkScheme(STRICT), DIFFICULTY, verdict, 10**12) is is_enough


@pytest.mark.parametrize(
    ("walk", "correct_ticket", "delay_ms"),
    [
        (GUARD, 101, 0),
        (GUARD, 100, 0),
        (GUARD, 97, 12_000),
        (GUARD, 68, 128_000),
        (GUARD, 67, None),
        (STRICT, 101, 0),
        (STRICT, 100, None),
    ],
)
def test_delay_is_the_time_from_which_on_it_is_enough(
    walk: WalkParams, correct_ticket: int, delay_ms: int | None
) -> None:
    verdict = TrueWalk(0, 100, correct_ticket)
    scheme = WalkScheme(walk)
    assert scheme.compute_progress_delay_ms(DIFFICULTY, verdict) == delay_ms
    if delay_ms is None:
        assert not is_progress(scheme, DIFFICULTY, verdict, 10**12)
    else:
        assert is_progress(scheme, DIFFICULTY, verdict, delay_ms)
        assert not delay_ms or not is_progress(scheme, DIFFICULTY, verdict, delay_ms - 1)
