from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from pol_abci.cli.chart import compute_columns, draw_bar, draw_columns
from pol_abci.cli.pace import compute_pace
from pol_abci.cli.view import LiveView, ProcessState, Snapshot
from pol_abci.cli.words import format_bits, format_duration, format_proof
from pol_abci.client.chain import Accuracy
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.params import SCORE_UNIT

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]


def render(snapshot: Snapshot, width: int, height: int) -> list[str]:
    console = Console(
        width=width, height=height, file=io.StringIO(), record=True, force_terminal=True
    )
    console.print(LiveView(snapshot))
    return console.export_text().splitlines()


def make_snapshot(records: tuple[GenerationRecord, ...]) -> Snapshot:
    return Snapshot(
        chain_id="digits-3f2a91",
        home="chain",
        goal=60,
        generation=records[-1].generation,
        height=records[-1].height,
        accuracy=Accuracy(generation=records[-1].generation, correct=330, size=360),
        difficulty_now=12 * SCORE_UNIT,
        difficulty_head=14 * SCORE_UNIT,
        target_interval_ms=4_000,
        since_head_ms=2_300,
        records=records,
        miner="812 steps/s",
        verifier="idle",
        uptime_s=151.0,
        processes=(
            ProcessState("cometbft", "running", "good"),
            ProcessState("miner", "restarting", "waiting"),
        ),
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (100, 30), (200, 60)])
@pytest.mark.parametrize("count", [1, 37, 1_000])
def test_picture_fills_the_terminal_and_never_overflows_it(
    make_records: RecordMaker, width: int, height: int, count: int
) -> None:
    lines = render(make_snapshot(make_records(count)), width, height)
    assert len(lines) == height
    assert max(len(line) for line in lines) <= width


def test_picture_shows_what_a_newcomer_asks_for(make_records: RecordMaker) -> None:
    records = make_records(37)
    text = "\n".join(render(make_snapshot(records), 80, 24))
    for fact in (
        "digits-3f2a91",
        "generation 37 of 60",
        "accuracy 91.7%",
        "12.00 bits now, 14.00 when the head was new",
        "target 4.0 s",
        "812 steps/s",
        "miner restarting",
        "up 0:02:31",
        "Ctrl-C stops cleanly",
        format_bits(records[-1].score),
    ):
        assert fact in text
    assert "…  pol1" in text  # the newest is not measured yet


def test_proofs_are_shown_newest_first_as_many_as_fit(make_records: RecordMaker) -> None:
    lines = render(make_snapshot(make_records(37)), 80, 24)
    shown = [int(line.split()[0]) for line in lines if "→" in line]
    assert shown == list(range(37, 37 - len(shown), -1))
    assert len(shown) >= 5


def test_standstill_stands_above_the_hint_and_stopping_replaces_it(
    make_records: RecordMaker,
) -> None:
    snapshot = replace(make_snapshot(make_records(3)), standstill="no miner runs")
    assert render(snapshot, 80, 24)[-2].strip() == "no miner runs"
    assert render(replace(snapshot, is_stopping=True), 80, 24)[-2].startswith("Stopping cleanly")


def test_picture_before_the_first_answer_has_its_final_height() -> None:
    lines = render(Snapshot(chain_id="digits-3f2a91", home="chain"), 80, 24)
    assert len(lines) == 24
    assert "waiting for the chain" in lines[2]


def test_small_terminals_lose_the_bars_not_the_figures(make_records: RecordMaker) -> None:
    lines = render(make_snapshot(make_records(9)), 60, 20)
    assert max(len(line) for line in lines) <= 60
    assert not any("━" in line for line in lines)
    assert any(line.startswith("  9") for line in lines)


def test_columns_are_averages_and_keep_every_value() -> None:
    assert compute_columns([0.0, 1.0, 0.5, 0.5], 2) == [0.5, 0.5]
    assert compute_columns([0.2, 0.4], 10) == [0.2, 0.4]


def test_chart_heights_follow_the_shares() -> None:
    assert draw_columns([0.0, 0.5, 1.0], 3, 2) == ["  █", " ██"]
    assert draw_columns([], 4, 2) == ["    ", "    "]
    assert draw_columns([2.0], 1, 1) == ["█"]  # clipped, never an IndexError


def test_bar_is_clipped_at_its_width() -> None:
    assert draw_bar(0.5, 4) == "━━  "
    assert draw_bar(7.0, 4) == "━━━━"
    assert draw_bar(1.0, 0) == ""


def test_pace_takes_the_last_window_and_the_sample_deviation() -> None:
    pace = compute_pace([9_000, 2_000, 4_000], 4_000, window=2)
    assert pace is not None
    assert pace.count == 2
    assert pace.mean_ms == 3_000
    assert pace.coefficient_of_variation == pytest.approx(2**0.5 / 3)


def test_pace_of_one_generation_has_no_deviation() -> None:
    pace = compute_pace([4_000], 4_000)
    assert pace is not None
    assert pace.coefficient_of_variation is None
    assert compute_pace([], 4_000) is None


def test_pace_leaves_pauses_out_and_counts_them() -> None:
    pace = compute_pace([4_000, 20_001, 20_000, 90_000], 4_000)
    assert pace is not None
    assert (pace.count, pace.mean_ms, pace.pauses) == (2, 12_000, 2)
    assert compute_pace([90_000], 4_000) is None


def test_proof_line_names_sample_until_the_accuracy_is_measured(
    make_records: RecordMaker,
) -> None:
    measured, unmeasured = make_records(2)
    assert "generation 1: accuracy 8.3%" in format_proof(measured)
    assert f"sample {unmeasured.correct_head} -> {unmeasured.correct_ticket}" in format_proof(
        unmeasured
    )


def test_durations_carry() -> None:
    assert format_duration(3_661) == "1:01:01"
    assert format_duration(59.9) == "0:00:59"
