"""What a miner's /metrics and /health say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pol_abci.miner.metrics import MinerMetrics
from pol_abci.miner.status import MinerStatus
from pol_abci.rules.params import Amount

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
STATUS = MinerStatus(
    is_connected=True,
    connection="connected to http://127.0.0.1:26657",
    note="",
    generation=4,
    steps=1_000,
    steps_per_second=250.0,
    proofs_sent=3,
    disconnects=1,
    best_score_bits=9.5,
    difficulty_bits=11.0,
    blocks_won=2,
    coins_won=Amount(100_000_000),
)


def read(metrics: MinerMetrics) -> dict[str, float]:
    return {sample.name: sample.value for family in metrics.collect() for sample in family.samples}


def test_the_newest_status_is_shown() -> None:
    metrics = MinerMetrics()
    assert read(metrics) == {}
    metrics.status = STATUS
    shown = read(metrics)
    assert shown["pol_miner_steps_total"] == 1_000
    assert shown["pol_miner_proofs_sent_total"] == 3
    assert shown["pol_miner_disconnects_total"] == 1
    assert shown["pol_miner_coins_won_total"] == 100
    assert shown["pol_miner_best_bits"] == 9.5
    metrics.status = replace(STATUS, generation=None, difficulty_bits=None, best_score_bits=None)
    assert read(metrics).keys() < shown.keys()


def test_health_says_what_keeps_it_from_mining() -> None:
    metrics = MinerMetrics()
    assert metrics.find_fault() == "the miner starts"
    metrics.status = replace(STATUS, is_connected=False, connection="no node answers")
    assert metrics.find_fault() == "no node answers"
    metrics.status = replace(STATUS, steps_per_second=0.0, note="the chain has not begun")
    assert metrics.find_fault() == "the chain has not begun"
    metrics.status = STATUS
    assert metrics.find_fault() is None


def test_each_metric_has_its_row_in_the_document() -> None:
    metrics = MinerMetrics()
    metrics.status = STATUS
    section = OPERATIONS.read_text("utf-8").split("### Of a miner\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(pol_\w+?)(?:_total)?`", section, re.MULTILINE)
    assert sorted(documented) == sorted(family.name for family in metrics.collect())
