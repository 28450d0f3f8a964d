"""Whole blocks as CometBFT v0.38.25 gave them, read and hashed again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from pol_abci.audit.comet import (
    Member,
    compute_commit_hash,
    compute_data_hash,
    compute_header_hash,
    compute_signed_power,
    compute_validators_hash,
)
from pol_abci.client.blocks import get_commit, get_full_block
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import UnexpectedAnswer

RECORDED = json.loads((Path(__file__).parent / "block_of_cometbft.json").read_text())
CHAIN_ID = "pol-e2e"
HEIGHT = 15


def make_client(recorded: dict[str, Any]) -> RpcClient:
    def handle(request: httpx.Request) -> httpx.Response:
        call = json.loads(request.content)
        assert call["params"] == {"height": str(HEIGHT)}
        result = recorded[call["method"]]
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": call["id"], "result": result})

    return RpcClient("http://node.test:26657", transport=httpx.MockTransport(handle))


async def test_cometbfts_own_hashes_and_signatures_are_found_again() -> None:
    member = Member(bytes.fromhex(RECORDED["consensus_key"]), RECORDED["power"])
    async with make_client(RECORDED) as rpc:
        block, commit = await get_full_block(rpc, HEIGHT), await get_commit(rpc, HEIGHT)
    header = block.header
    assert len(block.txs) == 1
    assert compute_header_hash(header) == block.hash == commit.block_id.hash
    assert compute_data_hash(block.txs) == header.data_hash
    assert compute_commit_hash(block.last_commit) == header.last_commit_hash
    assert compute_validators_hash([member]) == header.validators_hash
    assert compute_signed_power(CHAIN_ID, [member], commit) == member.power
    assert compute_signed_power("another", [member], commit) == 0


async def test_evidence_names_whom_the_application_hears_of() -> None:
    recorded = copy.deepcopy(RECORDED)
    vote = {"validator_address": "AA" * 20}
    attacker = {"address": "BB" * 20}
    recorded["block"]["block"]["evidence"]["evidence"] = [
        {"type": "tendermint/DuplicateVoteEvidence", "value": {"vote_a": vote, "vote_b": vote}},
        {
            "type": "tendermint/LightClientAttackEvidence",
            "value": {"ByzantineValidators": [attacker, attacker]},
        },
    ]
    async with make_client(recorded) as rpc:
        block = await get_full_block(rpc, HEIGHT)
    assert block.misbehaviour == (b"\xaa" * 20, b"\xbb" * 20, b"\xbb" * 20)


@pytest.mark.parametrize("value", ["-1", "99999999999999999999", "x"])
async def test_numbers_that_no_block_has_are_refused(value: str) -> None:
    recorded = copy.deepcopy(RECORDED)
    recorded["block"]["block"]["header"]["version"]["block"] = value
    async with make_client(recorded) as rpc:
        with pytest.raises(UnexpectedAnswer):
            await get_full_block(rpc, HEIGHT)
