from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.cli.figure import describe_history, draw_figure
from pol_abci.cli.history import History, InvalidHistory, decode_history, encode_history
from pol_abci.rules.codec import GenerationRecord

if TYPE_CHECKING:
    from pathlib import Path

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("count", [1, 2, 60, 1_000])
def test_figure_is_a_png_of_its_size_for_chains_of_any_length(
    make_records: RecordMaker, tmp_path: Path, count: int
) -> None:
    path = tmp_path / "figure1.png"
    draw_figure(History("digits-1", 4_000, make_records(count)), path)
    content = path.read_bytes()
    assert content.startswith(PNG_START)
    size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert size == (1_500, 900)


def test_caption_tells_pace_and_accuracy(make_records: RecordMaker) -> None:
    records = tuple(
        replace(record, interval_ms=4_000 if record.generation % 2 else 2_000)
        for record in make_records(40)
    )
    assert describe_history(History("digits-1", 4_000, records)) == (
        "40 generations, mean interval 3.0 s; last 30: 3.0 s, coefficient of variation 0.34; "
        "accuracy 97.8% on all 360 at generation 39"
    )


def test_caption_says_when_nothing_was_measured(make_records: RecordMaker) -> None:
    (record,) = make_records(1)
    caption = describe_history(History("digits-1", 4_000, (replace(record, has_accuracy=False),)))
    assert caption.endswith("no generation's accuracy has been measured yet")


def test_figure_without_any_accuracy_still_draws_the_intervals(
    make_records: RecordMaker, tmp_path: Path
) -> None:
    records = tuple(replace(record, has_accuracy=False) for record in make_records(3))
    draw_figure(History("digits-1", 4_000, records), tmp_path / "figure1.png")
    assert (tmp_path / "figure1.png").stat().st_size > 10_000


def test_a_pause_of_a_night_is_cut_and_the_figure_keeps_its_size(
    make_records: RecordMaker, tmp_path: Path
) -> None:
    first, *rest = make_records(20)
    records = (replace(first, interval_ms=8 * 3_600_000), *rest)
    assert "1 pause left out; last 19: " in describe_history(History("d", 4_000, records))
    draw_figure(History("digits-1", 4_000, records), tmp_path / "figure1.png")
    assert (tmp_path / "figure1.png").read_bytes()[16:20] == (1_500).to_bytes(4, "big")


def test_the_data_beside_a_figure_is_read_back_whole(make_records: RecordMaker) -> None:
    history = History("digits-1", 4_000, make_records(3))
    assert decode_history(encode_history(history)) == history


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{"chain_id"', '["chain_id"'),
        ('"chain_id": "d"', '"chain_id": 1'),
        ('"target_interval_ms": 4000', '"target_interval_ms": 0'),
        ('"target_interval_ms": 4000', '"target_interval_ms": true'),
        ('"interval_ms"', '"interval"'),
        ('"miner": "', '"miner": "x'),
        ('"steps": ', '"steps": -'),
        ('"steps": ', '"steps": 0.5'),
    ],
)
def test_a_file_that_is_no_history_is_refused_in_words(
    make_records: RecordMaker, old: str, new: str
) -> None:
    text = encode_history(History("d", 4_000, make_records(1)))
    assert old in text
    with pytest.raises(InvalidHistory):
        decode_history(text.replace(old, new, 1))
