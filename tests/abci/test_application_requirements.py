"""Requirements 1 to 13 of ABCI's "Requirements for the Application", each by its number."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.rules.errors import (
    DifficultyNotMet,
    FalseProof,
    InvalidSequence,
    PendingProof,
)
from tests.abci.blocks import compute_size_in_block, get_hashed
from tests.abci.digits_chain import make_key, search_claim, sign_claim
from tests.abci.digits_driver import (
    get_consensus_address,
    make_prepare_request,
    register,
    run_chain,
    transfer,
    unjail,
)
from tests.abci.digits_story import STORY_INTERVAL_MS, make_story_genesis, tell_story

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pol_abci.rules.proof import WalkClaim
    from tests.abci.digits_driver import DigitsChain

REPOSITORY = Path(__file__).parents[2]


@asynccontextmanager
async def run_story_chain(
    path: Path, *, nodes: int = 2, with_story: bool = False
) -> AsyncIterator[DigitsChain]:
    """Validators 1, 2 and 3 and an account 4; started, or with its whole story behind it."""
    async with run_chain(
        path, nodes=nodes, genesis=make_story_genesis(), block_interval_ms=STORY_INTERVAL_MS
    ) as chain:
        await (tell_story(chain) if with_story else chain.begin())
        yield chain


def compute_size(txs: list[bytes]) -> int:
    return sum(map(compute_size_in_block, txs))


async def test_requirement_01_prepare_proposal_walks_nothing_and_waits_for_nothing(
    tmp_path: Path,
) -> None:
    async with run_story_chain(tmp_path, nodes=1) as chain:
        unverified = [chain.mine(number) for number in (1, 2, 3)]
        kept = chain.mine(4)
        await chain.submit(kept)
        verifier = chain.nodes[0].verifier
        walks = verifier.walks
        request = make_prepare_request(
            chain.make_block_request([*unverified, transfer(1, 1), kept]), 1_000_000
        )
        with pytest.raises(StopIteration) as finished:  # it ends before it is ever suspended
            chain.app.prepare_proposal(request).send(None)
        assert list(finished.value.value.txs) == [kept, transfer(1, 1)]
        assert verifier.walks == walks


async def test_requirement_02_proposals_keep_to_max_tx_bytes_to_the_byte(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path, nodes=1) as chain:
        proof = chain.mine(4)
        await chain.submit(proof)
        transfers = [transfer(1, sequence) for sequence in range(1, 9)]
        everything = [proof, *transfers]
        whole = compute_size(everything)
        assert await chain.prepare(transfers, max_tx_bytes=whole) == everything
        assert await chain.prepare(transfers, max_tx_bytes=whole - 1) == everything[:-1]
        assert await chain.prepare(transfers, max_tx_bytes=compute_size([proof])) == [proof]
        for room in range(0, whole, 37):
            prepared = await chain.prepare(transfers, max_tx_bytes=room)
            assert compute_size(prepared) <= room
            assert room < compute_size_in_block(transfers[0]) or prepared
            assert await chain.is_accepted(prepared)


def make_mixes(proofs: list[bytes]) -> list[list[bytes]]:
    """Mempools such as no honest CometBFT would bring."""
    chance = random.Random(5)
    good = transfer(1, 1)
    pool = [
        *proofs,
        good,
        good[:-1],
        b"",
        chance.randbytes(200),
        transfer(1, 2),
        transfer(1, 2, amount=7),
        transfer(1, 3, fee=999),
        transfer(2, 1, amount=2**63 - 1),
        transfer(2, 1, amount=0),
        transfer(4, 1, recipient=7, amount=999_990_000),
        transfer(4, 2),
        transfer(7, 1, amount=500_000_000),
        register(4, 1),
        register(5, 1, consensus=4),
        unjail(3, 1),
    ]
    return [chance.choices(pool, k=chance.randrange(1, 12)) for _ in range(60)]


async def test_requirement_03_what_one_node_prepares_every_other_accepts(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        kept, unknown = chain.mine(4), chain.mine(2)
        raws = [kept, unknown]
        node = chain.nodes[0]
        await chain.check(kept)
        node.verifier.walk_queued()
        await chain.check(kept)
        for mix in make_mixes(raws):
            prepared = await chain.prepare(mix)
            assert kept in prepared
            assert await chain.is_accepted(prepared, index=1), mix
            assert {result.code for result in (await chain.finalize(prepared)).tx_results} == {0}


async def test_requirement_03_holds_where_evidence_takes_what_a_transaction_needs(
    tmp_path: Path,
) -> None:
    """Evidence goes first in a block: what it bars and burns is gone for the transactions."""
    three = get_consensus_address(3)
    async with run_story_chain(tmp_path) as chain:
        for _ in range(3):
            await chain.driver.make_block([chain.mine(5)], absent=[three])
        assert await chain.prepare([unjail(3, 1)]) == [unjail(3, 1)]
        prepared = await chain.prepare([unjail(3, 1), transfer(1, 1)], misbehaviour=[three])
        assert prepared == [transfer(1, 1)]
        assert await chain.is_accepted(prepared, index=1, misbehaviour=[three])
        assert not await chain.is_accepted([unjail(3, 1)], index=1, misbehaviour=[three])


async def test_requirement_04_process_proposal_depends_on_state_and_block_alone(
    tmp_path: Path,
) -> None:
    async with run_story_chain(tmp_path, nodes=1) as chain:
        node = chain.nodes[0]
        true = chain.mine(4)
        claim = search_claim(node, make_key(2).address)
        false = sign_claim(make_key(2), flip_root(claim))
        blocks = [
            ([true, transfer(1, 1)], True),
            ([transfer(1, 2)], False),
            ([transfer(1, 1), transfer(1, 2)], True),
            ([false], False),
            ([true, sign_claim(make_key(2), claim)], False),
            ([transfer(1, 1)[:-1]], False),
            ([], True),
        ]

        async def judge() -> list[bool]:
            return [await chain.is_accepted(txs) for txs, _ in blocks]

        expected = [is_accepted for _, is_accepted in blocks]
        assert await judge() == expected
        assert await judge() == expected  # its verdicts are known now
        node.clock.now_ms += 3_600_000
        assert await judge() == expected
        node.clock.now_ms = 0
        assert await judge() == expected
        for raw in (true, false, transfer(1, 1), transfer(1, 2)):  # a mempool ahead of the state
            await chain.check(raw)
        node.verifier.walk_queued()
        await chain.check(true)
        assert len(node.replica.tickets) == 1
        assert await judge() == expected
        await chain.driver.crash()  # nothing is known
        assert await judge() == expected


def flip_root(claim: WalkClaim) -> WalkClaim:
    return replace(claim, weights_root=hashlib.sha256(claim.weights_root).digest())


async def test_requirement_05_nodes_agree_on_every_proposal(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        proofs = [chain.mine(4), chain.mine(2)]
        for raw in (proofs[0], transfer(1, 1), transfer(1, 2)):  # one node has heard of these
            await chain.check(raw, 1)
        chain.nodes[1].verifier.walk_queued()
        seen = set()
        for mix in make_mixes(proofs):
            verdict = await chain.is_accepted(mix, index=0)
            assert await chain.is_accepted(mix, index=1) == verdict, mix
            seen.add(verdict)
        assert seen == {True, False}


async def test_requirement_06_a_node_accepts_the_vote_extensions_of_others(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        extension = await chain.driver.nodes[0].app.extend_vote(pb.RequestExtendVote(height=3))
        assert await judge_extension(chain, 1, extension.vote_extension) == ACCEPT_EXTENSION


ACCEPT_EXTENSION = pb.ResponseVerifyVoteExtension.ACCEPT


async def judge_extension(chain: DigitsChain, index: int, extension: bytes) -> int:
    request = pb.RequestVerifyVoteExtension(height=3, vote_extension=extension)
    return (await chain.driver.nodes[index].app.verify_vote_extension(request)).status


async def test_requirement_07_a_vote_extension_is_judged_by_itself(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path, nodes=1) as chain:
        before = [await judge_extension(chain, 0, data) for data in (b"", b"x")]
        await chain.submit(chain.mine(4))
        chain.clock.now_ms += 10**9
        assert [await judge_extension(chain, 0, data) for data in (b"", b"x")] == before
        assert before == [ACCEPT_EXTENSION, pb.ResponseVerifyVoteExtension.REJECT]


async def test_requirement_08_nodes_agree_on_every_vote_extension(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        await chain.check(transfer(1, 1), 1)
        for data in (b"", b"\0", b"x" * 1_000):
            assert await judge_extension(chain, 0, data) == await judge_extension(chain, 1, data)


async def test_requirement_09_proposals_and_votes_change_no_committed_state(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        used, calm = chain.nodes
        proof = chain.mine(4)
        await chain.submit(proof)
        info = await chain.app.info(pb.RequestInfo())
        entries = [list(used.replica.state.bucket(index)) for index in range(65_536)]
        weights = used.replica.store.weights()
        for txs in ([proof, transfer(1, 1)], [transfer(1, 2)], [b"?"], []):
            await chain.prepare(txs)
            await chain.is_accepted(txs)
            await chain.app.extend_vote(pb.RequestExtendVote(txs=txs))
            await judge_extension(chain, 0, b"x")
        assert await chain.app.info(pb.RequestInfo()) == info
        assert [list(used.replica.state.bucket(index)) for index in range(65_536)] == entries
        assert used.replica.store.weights() == weights
        assert calm.replica.store.app_hash == used.replica.store.app_hash
        ours = await chain.finalize([proof, transfer(1, 1)])
        theirs = await chain.finalize([proof, transfer(1, 1)], index=1)
        assert get_hashed(ours) == get_hashed(theirs)


async def test_requirement_10_no_vote_extension_enters_the_state(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path) as chain:
        for extension in (b"", b"anything"):
            await judge_extension(chain, 0, extension)
        block = chain.make_block_request([transfer(1, 1)])
        ours = await chain.driver.nodes[0].app.finalize_block(block)
        theirs = await chain.driver.nodes[1].app.finalize_block(block)
        assert get_hashed(ours) == get_hashed(theirs)


async def test_requirement_11_the_new_state_depends_on_the_old_one_and_the_block_alone(
    tmp_path: Path,
) -> None:
    """Also not on the order of Python's sets: the other process hashes strings differently."""
    async with run_story_chain(tmp_path / "here", with_story=True) as chain:
        here = summarize(chain)
    script = (
        "import asyncio, pathlib, sys, tests.abci.test_application_requirements as t; "
        "asyncio.run(t.print_story(pathlib.Path(sys.argv[1])))"
    )
    told = subprocess.run(  # noqa: ASYNC221  (nothing else runs in this loop)
        [sys.executable, "-c", script, str(tmp_path / "there")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-len(here) :] == here


def summarize(chain: DigitsChain) -> list[str]:
    return [
        f"{block.height} {block.reply.app_hash.hex()} "
        + hashlib.sha256(get_hashed(block.reply).SerializeToString(deterministic=True)).hexdigest()
        for block in chain.driver.blocks
    ]


async def print_story(path: Path) -> None:
    """Run in a process of its own, by a node that is alone and has heard of nothing early."""
    async with run_story_chain(path, nodes=1, with_story=True) as chain:
        print("\n".join(summarize(chain)))  # noqa: T201  (the other process reads it)


async def test_requirement_12_results_depend_on_the_state_and_the_block_alone(
    tmp_path: Path,
) -> None:
    """One node has a mempool, tickets, another clock and failed rounds; the other has restarted."""
    async with run_story_chain(tmp_path) as chain:
        proof, other = chain.mine(4), chain.mine(2)
        for raw in (proof, other, transfer(1, 1), transfer(1, 2), b"?"):
            await chain.check(raw)
        chain.nodes[0].verifier.walk_queued()
        await chain.check(proof)
        chain.clock.now_ms += 12_345
        await chain.is_accepted([other, transfer(1, 1)])
        await chain.finalize([other])  # decided by nobody: consensus may replace it until Commit
        await chain.driver.crash(1)
        for mix in make_mixes([proof, other])[:20]:
            ours = await chain.finalize(mix)
            theirs = await chain.finalize(mix, index=1)
            assert get_hashed(ours) == get_hashed(theirs)
            assert {result.code for result in ours.tx_results} <= {0, 1}
            failed = [result for result in ours.tx_results if result.code]
            assert not any(result.data or result.gas_used or result.events for result in failed)


async def test_requirement_13_check_tx_comes_to_a_stable_answer(tmp_path: Path) -> None:
    async with run_story_chain(tmp_path, nodes=1) as chain:
        node = chain.nodes[0]
        difficulty = node.replica.get_head().difficulty
        good = chain.mine(4)
        early = sign_claim(
            make_key(2),
            search_claim(node, make_key(2).address, scores=range(difficulty)),
        )
        false = sign_claim(make_key(3), flip_root(search_claim(node, make_key(3).address)))
        for raw in (good, early, false):
            assert (await chain.check(raw)).code == PendingProof.code
        node.verifier.walk_queued()
        for raw, code in ((good, 0), (early, DifficultyNotMet.code), (false, FalseProof.code)):
            answers = {(await chain.check(raw)).code for _ in range(5)}
            assert answers == {code}
        # difficulty only falls: what was good stays good, whatever the clock says
        for passed_ms in (3_000, 60_000, -120_000):
            chain.clock.now_ms += passed_ms
            for kind in (pb.NEW, pb.RECHECK):
                assert (await chain.check(good, kind=kind)).code == 0
        # a transfer is good in each recheck until a block has it, and never again
        assert (await chain.driver.add_tx(transfer(1, 1))).code == 0
        await chain.driver.make_block([])
        assert transfer(1, 1) in chain.driver.nodes[0].mempool
        await chain.driver.make_block()
        for _ in range(3):
            assert (await chain.check(transfer(1, 1))).code == InvalidSequence.code
            await chain.driver.make_block()
