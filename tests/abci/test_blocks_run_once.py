"""A block is run once between its proposal and its decision; any other block is run anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pol_abci.app.verifier import HeadMoved
from pol_abci.rules.ledger import get_account
from pol_abci.rules.transition import process_block
from tests.abci.digits_chain import make_genesis, make_key
from tests.abci.digits_driver import (
    make_prepare_request,
    make_process_request,
    run_chain,
    transfer,
)
from tests.abci.driver import ACCEPT, REJECT

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.abci.generated.abci import types_pb2 as pb
    from pol_abci.rules.block import BlockContext


@pytest.fixture
def blocks_run(monkeypatch: pytest.MonkeyPatch) -> list[BlockContext]:
    """Every block that the application runs."""
    blocks: list[BlockContext] = []

    def note(*arguments: object) -> object:
        blocks.append(arguments[2])  # type: ignore[arg-type]
        return process_block(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pol_abci.app.consensus.process_block", note)
    return blocks


def make_request_with_votes(block: pb.RequestFinalizeBlock) -> pb.RequestPrepareProposal:
    """As CometBFT asks: with the votes that it will put into the block."""
    request = make_prepare_request(block, 1_000_000)
    for vote in block.decided_last_commit.votes:
        request.local_last_commit.votes.add(
            validator=vote.validator, block_id_flag=vote.block_id_flag
        )
    return request


async def test_what_was_proposed_is_not_run_again(
    tmp_path: Path, blocks_run: list[BlockContext]
) -> None:
    async with run_chain(tmp_path, genesis=make_genesis(funded=[2, 3])) as chain:
        await chain.begin()
        good, also, failing = transfer(2, 1), transfer(3, 1, amount=7), transfer(2, 9)
        block = chain.make_block_request([good, also])
        request = make_request_with_votes(chain.make_block_request([good, failing, also]))
        blocks_run.clear()
        assert list((await chain.app.prepare_proposal(request)).txs) == [good, also]
        verdict = await chain.app.process_proposal(make_process_request(block))
        assert verdict.status == ACCEPT
        reply = await chain.app.finalize_block(block)
        assert len(blocks_run) == 1
        assert [result.code for result in reply.tx_results] == [0, 0]
        blocks_run.clear()
        await chain.finalize([good, also], time_ms=block.time.seconds * 1_000 + 1)
        assert len(blocks_run) == 1


async def test_a_proposal_whose_head_is_gone_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a connection that is gone too: CometBFT came back, and decided another block."""

    async def verify(*_: object, **__: object) -> None:
        raise HeadMoved

    async with run_chain(tmp_path, genesis=make_genesis(funded=[2, 3])) as chain:
        await chain.begin()
        monkeypatch.setattr(chain.nodes[0].verifier, "verify", verify)
        block = chain.make_block_request([chain.mine(4)])
        verdict = await chain.app.process_proposal(make_process_request(block))
        assert verdict.status == REJECT


async def test_another_block_than_the_proposed_one_is_run_anew(
    tmp_path: Path, blocks_run: list[BlockContext]
) -> None:
    async with run_chain(tmp_path, genesis=make_genesis(funded=[2])) as chain:
        await chain.begin()
        first, second = transfer(2, 1, amount=10), transfer(2, 1, amount=11)
        proposed = chain.make_block_request([first])
        await chain.app.prepare_proposal(make_request_with_votes(proposed))
        before = get_account(chain.nodes[0].replica.state, make_key(9).address).balance
        blocks_run.clear()
        assert await chain.is_accepted([second])
        assert len(blocks_run) == 1
        # a third at the same height is decided: neither of the two before is in it
        await chain.driver.make_block(txs=[first])
        after = get_account(chain.nodes[0].replica.state, make_key(9).address).balance
        assert after - before == 10
        assert not await chain.is_accepted([first]), "it stands on the new state now"
