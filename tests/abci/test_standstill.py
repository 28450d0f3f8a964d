"""Each reason for a standstill is given when it holds, and only then."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.app.standstill import PATIENCE_INTERVALS, explain_standstill
from pol_abci.app.verifier import _Outstanding
from pol_abci.app.verifier_messages import VerifyWalk
from pol_abci.rules.params import SCORE_UNIT
from tests.abci.digits_chain import (
    TARGET_MS,
    make_genesis,
    make_key,
    make_test_params,
    search_claim,
    sign_claim,
)
from tests.abci.digits_driver import run_chain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.abci.digits_driver import DigitsChain

PATIENCE_MS = PATIENCE_INTERVALS * TARGET_MS


@asynccontextmanager
async def run_started_chain(path: Path) -> AsyncIterator[DigitsChain]:
    async with run_chain(path) as chain:
        await chain.begin()
        yield chain


def explain(chain: DigitsChain) -> str | None:
    return explain_standstill(chain.nodes[0].replica)


async def wait(chain: DigitsChain, milliseconds: int) -> None:
    """Let time pass since the head while blocks go on."""
    time_ms = chain.nodes[0].replica.get_head().time_ms + milliseconds
    chain.clock.now_ms = time_ms
    await chain.driver.make_block([], time_ms=time_ms)


async def test_the_chains_beginning(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        sentence = explain(chain)
        assert sentence is not None
        assert sentence.startswith("no block is committed yet")
        await chain.driver.make_block()
        sentence = explain(chain)
        assert sentence is not None
        assert "proofs are taken from its third block on" in sentence
        await chain.driver.make_block()
        chain.clock.now_ms = chain.nodes[0].replica.time_ms
        assert explain(chain) is None


async def test_patience_of_three_intervals(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS - 1)
        assert explain(chain) is None
        await wait(chain, PATIENCE_MS)
        sentence = explain(chain)
        assert sentence is not None
        assert sentence.startswith(f"no generation for {PATIENCE_MS // 1_000} s: ")
        await chain.driver.make_block([chain.mine(1)])
        chain.clock.now_ms = chain.nodes[0].replica.time_ms
        assert explain(chain) is None


async def test_no_proof_has_arrived(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        sentence = explain(chain)
        assert sentence is not None
        assert "is a miner running? The difficulty has fallen to nothing" in sentence
        reply = await chain.app.query(pb.RequestQuery(path=b"/status"))
        assert json.loads(reply.value)["standstill"] == sentence


async def test_the_difficulty_is_far_above_what_miners_reach(tmp_path: Path) -> None:
    params = make_test_params()
    steep = replace(params.difficulty, first=40 * SCORE_UNIT)
    genesis = make_genesis(replace(params, difficulty=steep))
    async with run_chain(tmp_path, genesis=genesis) as chain:
        await chain.begin()
        await wait(chain, PATIENCE_MS)
        sentence = explain(chain)
        assert sentence is not None
        left = 40 - PATIENCE_INTERVALS * steep.slope / SCORE_UNIT
        assert f"The difficulty is {left:.1f} bits and falls by 0.62 a second" in sentence


async def test_a_proof_is_being_verified(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        for number in (5, 6):
            await chain.check(chain.mine(number))
        verifier = chain.nodes[0].verifier
        walked = verifier._queue.pop()
        assert walked is not None
        verifier._jobs[0] = _Outstanding(VerifyWalk(0, walked[0]), asyncio.Future())
        sentence = explain(chain)
        assert sentence is not None
        assert "a proof is being verified, 1 more wait for it" in sentence


async def test_a_node_that_catches_up(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        chain.clock.now_ms += 1_000_000
        await chain.driver.make_block([], time_ms=chain.nodes[0].replica.time_ms + 1_000)
        sentence = explain(chain)
        assert sentence is not None
        assert "blocks come, the newest of 999 s ago: this node is catching up" in sentence


async def test_the_verifier_is_not_running(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        chain.nodes[0].verifier.status.alive = False
        sentence = explain(chain)
        assert sentence is not None
        assert "the verifier is not running" in sentence


async def test_no_block_comes_either(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        chain.clock.now_ms += PATIENCE_MS + 1
        sentence = explain(chain)
        assert sentence is not None
        assert "no block either; CometBFT is not running" in sentence


async def test_a_good_proof_waits_for_its_block(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        await wait(chain, PATIENCE_MS)
        await chain.submit(chain.mine(5))
        sentence = explain(chain)
        assert sentence is not None
        assert "a proof is good and waits for its block" in sentence


async def test_the_best_proof_will_be_good_later(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        node = chain.nodes[0]
        lost = range(PATIENCE_INTERVALS + 2, 32)
        claim = search_claim(
            node,
            make_key(5).address,
            scores=range(64 * SCORE_UNIT),
            is_wanted=lambda walk: walk.correct_head - walk.correct_ticket in lost,
        )
        await chain.check(sign_claim(make_key(5), claim))
        node.verifier.walk_queued()
        ticket = node.replica.tickets.get_soonest()
        assert ticket is not None
        await wait(chain, PATIENCE_MS)
        wait_s = (ticket.good_time_ms - chain.clock.now_ms) // 1_000
        assert wait_s >= 2 * TARGET_MS // 1_000
        sentence = explain(chain)
        assert sentence is not None
        assert f"the best proof known will be good in {wait_s} s" in sentence


async def test_a_node_that_was_off_has_patience_from_its_start_on(tmp_path: Path) -> None:
    async with run_started_chain(tmp_path) as chain:
        chain.clock.now_ms += 100 * PATIENCE_MS  # a night
        chain.nodes[0].restart()
        assert explain(chain) is None
        chain.clock.now_ms += PATIENCE_MS + 1
        sentence = explain(chain)
        assert sentence is not None
        assert "no block either" in sentence
