"""What `status` says of CometBFT's part in a standstill."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pol_abci.app.standstill import PATIENCE_INTERVALS
from pol_abci.cli.standstill import explain_round, explain_standstill, is_frozen
from pol_abci.client.answers import NodeStatus, RoundState
from pol_abci.client.chain import ChainStatus, TicketsStatus, VerifierStatus

CHAIN = ChainStatus(
    chain_id="c",
    height=7,
    time_ms=0,
    block_age_ms=0,
    generation=3,
    seed=bytes(32),
    weights_root=bytes(32),
    head_time_ms=0,
    head_difficulty=0,
    difficulty_now=0,
    target_interval_ms=4_000,
    standstill=None,
    verifier=VerifierStatus(
        alive=True, queued=0, walking=False, walked=0, false=0, steps_per_second=None
    ),
    tickets=TicketsStatus(kept=0, best_score=None, best_good_time_ms=None),
    accuracy=None,
    size_all=360,
)
FROZEN = replace(CHAIN, block_age_ms=PATIENCE_INTERVALS * 4_000 + 1, standstill="the app's words")
COMET = NodeStatus(
    chain_id="c", version="0.38.25", latest_height=7, latest_time_ms=0, catching_up=False
)
VOTING = RoundState(height=8, round=2, prevotes=50, precommits=0, total=100)


def test_a_chain_whose_blocks_come_has_the_apps_reason_or_none() -> None:
    assert not is_frozen(CHAIN)
    assert explain_standstill(COMET, CHAIN, None) is None
    waiting = replace(CHAIN, standstill="no proof has arrived")
    assert explain_standstill(COMET, waiting, None) == "no proof has arrived"


def test_validators_that_are_away() -> None:
    assert is_frozen(FROZEN)
    assert explain_standstill(COMET, FROZEN, VOTING) == (
        "no block for 12 s: consensus waits at height 8, round 2: prevotes of 50% of the voting "
        "power have come, more than two thirds are needed; are validators away?"
    )


@pytest.mark.parametrize(
    ("prevotes", "precommits", "words"),
    [
        (200, 0, "prevotes of 66%"),
        (201, 200, "precommits of 66%"),
        (300, 201, "look for CONSENSUS FAILURE"),
    ],
)
def test_two_thirds_are_not_enough_and_more_is(prevotes: int, precommits: int, words: str) -> None:
    assert words in explain_round(
        RoundState(height=8, round=0, prevotes=prevotes, precommits=precommits, total=300)
    )


def test_an_application_behind_its_cometbft() -> None:
    ahead = replace(COMET, latest_height=9)
    assert "CometBFT is at height 9, its application at 7 for 12 s" in str(
        explain_standstill(ahead, FROZEN, VOTING)
    )
    assert explain_standstill(ahead, CHAIN, None) is None


def test_a_node_that_catches_up() -> None:
    behind = replace(COMET, catching_up=True)
    waiting = replace(CHAIN, standstill="no proof has arrived")
    assert explain_standstill(behind, waiting, None) == "this node is catching up with the others"
