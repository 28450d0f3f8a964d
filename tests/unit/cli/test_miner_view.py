from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from pol_abci.cli.miner_view import (
    MinerNarrator,
    decode_status,
    describe_miner,
    draw_miner,
    encode_status,
)
from pol_abci.miner.status import MinerStatus, Odds
from pol_abci.rules.params import Amount

STATUS = MinerStatus(
    is_connected=True,
    connection="connected to http://127.0.0.1:26657",
    note="won generation 8: 50 coins",
    chain_id="digits-1",
    generation=8,
    steps=12_345,
    steps_per_second=812.4,
    best_score_bits=12.314,
    best_good_in_s=1.24,
    difficulty_bits=13.5,
    odds=Odds(chance_per_second=0.1, share=0.98, expected_s=3.2),
    blocks_won=3,
    coins_won=Amount(150_000_000),
    balance=Amount(1_000_000_000),
)


def test_json_lines_hold_everything_and_come_back() -> None:
    line = encode_status(STATUS)
    assert "\n" not in line
    assert json.loads(line)["odds"]["share"] == 0.98
    assert decode_status(line) == STATUS
    early = MinerStatus(is_connected=False, connection="connecting", note="", coins_won=Amount(0))
    assert decode_status(encode_status(early)) == early


def test_sentence_for_the_live_picture_fits_beside_its_label() -> None:
    sentence = describe_miner(replace(STATUS, blocks_won=99_999, coins_won=Amount(10**13)))
    assert sentence == ("812 steps/s · best 12.31 bits, good in 1.2 s · 99999 won, 10000000 coins")
    assert describe_miner(replace(STATUS, best_good_in_s=0.0)).split(" · ")[1].endswith("good now")
    assert "no proof yet" in describe_miner(
        replace(STATUS, best_score_bits=None, best_good_in_s=None)
    )


def test_what_keeps_a_miner_from_mining_is_told_in_place_of_figures() -> None:
    away = replace(STATUS, is_connected=False, connection="no node answers; again in 0.5 s")
    assert describe_miner(away) == "no node answers; again in 0.5 s"
    loading = replace(STATUS, is_connected=False, generation=None, note="loading the task")
    assert describe_miner(loading) == "loading the task"


def test_picture_names_speed_odds_and_earnings() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(draw_miner(STATUS, "0:01:02"))
    text = console.export_text()
    for fact in (
        "digits-1, generation 8",
        "812 steps/s · 12,345 steps done",
        "best 12.31 bits, good in 1.2 s",
        "about 98% of all steps, alone a proof in 3.2 s",
        "3 won, 150 coins · 1000 coins spendable",
        "won generation 8",
        "up 0:01:02",
    ):
        assert fact in text


def test_plain_lines_tell_news_at_once_and_progress_rarely() -> None:
    narrator = MinerNarrator()
    first = narrator.tell(STATUS, 0.0)
    assert first[:2] == [STATUS.connection, STATUS.note]
    assert first[2].startswith("generation 8: 812 steps/s")
    assert narrator.tell(STATUS, 29.0) == []
    assert narrator.tell(replace(STATUS, note="won generation 9"), 29.5) == ["won generation 9"]
    assert len(narrator.tell(STATUS, 31.0)) == 2  # the note from before is news again
