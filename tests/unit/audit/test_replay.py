from __future__ import annotations

import asyncio
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.audit.checking import Difference
from pol_abci.audit.comet import compute_header_hash
from pol_abci.audit.folder import AuditFolder, AuditFolderError, ChainGenesis
from pol_abci.audit.replay import Replay
from pol_abci.rules.codec import GenerationRecord
from tests.abci.blocks import Block
from tests.abci.digits_chain import (
    CHAIN_ID,
    load_digits_task,
    make_consensus_key,
    make_genesis,
    make_key,
    search_claim,
    sign_claim,
)
from tests.abci.digits_driver import run_chain, transfer
from tests.abci.digits_story import STORY_PROOFS, make_story_genesis, tell_story
from tests.unit.audit.sealed_chain import get_made, seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pol_abci.rules.genesis import Genesis
    from tests.abci.digits_driver import DigitsChain
    from tests.unit.audit.sealed_chain import SealedChain


@contextmanager
def open_audit(path: Path, genesis: Genesis, **hooks: Any) -> Iterator[tuple[AuditFolder, Replay]]:
    folder = AuditFolder.open(path, ChainGenesis(CHAIN_ID, 1, genesis))
    try:
        task = replace(load_digits_task(), params=genesis.params)
        yield folder, Replay(folder, task, **hooks)
    finally:
        folder.close()


def replay(path: Path, genesis: Genesis, sealed: SealedChain) -> list[GenerationRecord]:
    """Audit all blocks of a chain from wherever the folder is."""
    with open_audit(path, genesis) as (folder, audit):
        for block in sealed.blocks[audit.next_height - 1 :]:
            audit.execute(block)
        audit.check_last(sealed.last_commit, sealed.app_hash)
        return folder.read_records()


async def make_short_chain(chain: DigitsChain) -> None:
    """Five blocks: two empty ones, a proof, a transfer, a proof."""
    await chain.begin()
    await chain.submit(chain.mine(1))
    await chain.driver.make_block()
    assert (await chain.driver.add_tx(transfer(1, 1))).code == 0
    await chain.driver.make_block()
    await chain.submit(chain.mine(1))
    await chain.driver.make_block()


@pytest.fixture(scope="module")
def short_chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SealedChain]:
    """The short chain sealed: as it is, unsigned, and with another state after block 4."""

    async def make() -> dict[str, SealedChain]:
        async with run_chain(tmp_path_factory.mktemp("chain")) as chain:
            await make_short_chain(chain)
            forged = get_made(chain)
            forged[3] = replace(forged[3], app_hash=bytes(32))
            return {
                "honest": seal(chain),
                "unsigned": seal(chain, silent=[make_consensus_key(1).public_key]),
                "forged": seal(chain, forged),
            }

    return asyncio.run(make())


@pytest.fixture
def sealed(short_chains: dict[str, SealedChain]) -> SealedChain:
    """The short chain, to be spoilt."""
    return deepcopy(short_chains["honest"])


def forge_header(sealed: SealedChain, **change: Any) -> None:
    """Change the fourth header and hash it again; it is not signed again."""
    header = replace(sealed.blocks[3].header, **change)
    sealed.blocks[3] = replace(sealed.blocks[3], header=header, hash=compute_header_hash(header))


def expect_difference(path: Path, sealed: SealedChain) -> Difference:
    with pytest.raises(Difference) as caught:
        replay(path, make_genesis(), sealed)
    return caught.value


async def test_a_chain_with_everything_in_it_is_the_same(tmp_path: Path) -> None:
    """Transfers, fees, jail, a bar, a new validator: state and sets follow through all of it."""
    genesis = make_story_genesis()
    async with run_chain(tmp_path / "chain", genesis=genesis) as chain:
        await tell_story(chain)
        sealed = seal(chain)
        store = chain.nodes[0].replica.store
        node_records = [GenerationRecord.decode(data) for _, data in store.records(1, 100)]

    records = replay(tmp_path / "audit", genesis, sealed)

    assert len(records) == STORY_PROOFS
    assert records == node_records, "accuracies on all of E included"
    assert len({block.header.validators_hash for block in sealed.blocks}) > 1


def test_it_goes_on_after_any_block_and_comes_to_the_same_end(
    tmp_path: Path, sealed: SealedChain
) -> None:
    whole = replay(tmp_path / "whole", make_genesis(), sealed)
    for block in sealed.blocks:
        with open_audit(tmp_path / "parts", make_genesis()) as (_, audit):
            assert audit.next_height == block.header.height
            audit.execute(block)
    assert replay(tmp_path / "parts", make_genesis(), sealed) == whole


def test_a_crash_in_a_walk_or_at_a_commit_loses_one_block(
    tmp_path: Path, sealed: SealedChain
) -> None:

    def stop() -> None:
        raise KeyboardInterrupt

    with open_audit(tmp_path / "audit", make_genesis(), on_step=stop) as (_, audit):
        audit.execute(sealed.blocks[0])
        audit.execute(sealed.blocks[1])
        with pytest.raises(KeyboardInterrupt):
            audit.execute(sealed.blocks[2])
    for owner, method in (("folder", "write_position"), ("store", "commit")):
        with (
            open_audit(tmp_path / "audit", make_genesis()) as (folder, audit),
            pytest.MonkeyPatch.context() as patch,
        ):
            assert audit.height == 2, "the block whose walk was stopped is not there"
            target = folder if owner == "folder" else folder.store
            patch.setattr(target, method, lambda *_: stop())
            with pytest.raises(KeyboardInterrupt):
                audit.execute(sealed.blocks[2])
    assert len(replay(tmp_path / "audit", make_genesis(), sealed)) == 2


def test_another_transaction_is_not_what_the_header_has(
    tmp_path: Path, sealed: SealedChain
) -> None:
    sealed.blocks[3] = replace(sealed.blocks[3], txs=(transfer(1, 1, amount=1),))
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what) == (4, "the transactions' hash")


@pytest.mark.parametrize(
    ("change", "height", "what"),
    [
        ({"time_ns": 1}, 5, "the hash of the block before"),
        ({"app_hash": bytes(32)}, 3, "the app hash"),
        ({"last_results_hash": bytes(32)}, 3, "the hash of the transactions' results"),
        ({"validators_hash": bytes(32)}, 4, "the validators' hash"),
        ({"next_validators_hash": bytes(32)}, 4, "the next validators' hash"),
        ({"proposer": bytes(20)}, 4, "the proposer"),
        ({"last_commit_hash": bytes(32)}, 4, "the hash of the last votes"),
        ({"height": 40}, 4, "the block's height"),
        ({"chain_id": "another"}, 4, "the chain's name"),
    ],
)
def test_a_changed_header_is_a_difference(
    tmp_path: Path, sealed: SealedChain, change: dict[str, Any], height: int, what: str
) -> None:
    forge_header(sealed, **change)
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what) == (height, what)


def test_a_header_that_is_not_hashed_again_is_a_difference(
    tmp_path: Path, sealed: SealedChain
) -> None:
    header = replace(sealed.blocks[3].header, evidence_hash=bytes(31) + b"1")
    sealed.blocks[3] = replace(sealed.blocks[3], header=header)
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what) == (4, "the block's hash")


def test_blocks_that_the_validators_did_not_sign_are_a_difference(
    tmp_path: Path, short_chains: dict[str, SealedChain]
) -> None:
    difference = expect_difference(tmp_path / "audit", short_chains["unsigned"])
    assert (difference.height, difference.what) == (1, "the votes that decide it")
    assert "0 of 100" in difference.here


def test_the_newest_block_is_held_against_its_votes(tmp_path: Path, sealed: SealedChain) -> None:
    entry = replace(sealed.last_commit.entries[0], signature=bytes(64))
    sealed.last_commit = replace(sealed.last_commit, entries=(entry,))
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what) == (5, "the votes that decide it")


def test_the_newest_block_is_held_against_the_application(
    tmp_path: Path, sealed: SealedChain
) -> None:
    sealed.app_hash = bytes(32)
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what) == (5, "the app hash")


async def test_a_signed_chain_with_a_false_step_names_transaction_and_step(tmp_path: Path) -> None:
    """What only a recomputation finds: all validators signed it, every hash is right."""
    async with run_chain(tmp_path / "chain") as chain:
        await chain.begin()
        claim = search_claim(chain.nodes[0], make_key(1).address, steps=4)
        await chain.submit(sign_claim(make_key(1), claim))
        await chain.driver.make_block()
        await chain.driver.make_block()
        digests = bytearray(claim.step_digests)
        digests[2 * 8] ^= 1
        false = sign_claim(make_key(1), replace(claim, step_digests=bytes(digests)))
        made = get_made(chain)
        made[2] = replace(made[2], txs=(false,))
        sealed = seal(chain, made)
    difference = expect_difference(tmp_path / "audit", sealed)
    assert (difference.height, difference.what, difference.chain) == (3, "transaction 0", "code 0")
    assert "FalseProof: step 3 differs" in difference.here


def test_a_signed_chain_with_another_state_is_a_difference(
    tmp_path: Path, short_chains: dict[str, SealedChain]
) -> None:
    difference = expect_difference(tmp_path / "audit", short_chains["forged"])
    assert (difference.height, difference.what) == (4, "the app hash")
    assert difference.chain == bytes(32).hex()


def test_another_genesis_is_the_first_difference(tmp_path: Path, sealed: SealedChain) -> None:
    with pytest.raises(Difference, match="app hash of genesis"):
        replay(tmp_path / "audit", make_genesis(funded=(2,)), sealed)


def test_a_difference_is_found_again_by_the_next_run(tmp_path: Path, sealed: SealedChain) -> None:
    forge_header(sealed, app_hash=bytes(32))
    first = str(expect_difference(tmp_path / "audit", sealed))
    assert str(expect_difference(tmp_path / "audit", sealed)) == first


async def test_a_failing_transaction_in_a_decided_block_is_no_difference(tmp_path: Path) -> None:
    """A majority may decide such a block; the rules say what becomes of it."""
    async with run_chain(tmp_path / "chain") as chain:
        await chain.begin()
        node = chain.nodes[0]
        request = chain.make_block_request([transfer(1, 7), b"\xff"])
        reply = await node.application.finalize_block(request)
        assert [result.code for result in reply.tx_results] == [1, 1]
        await node.application.commit(pb.RequestCommit())
        chain.driver._record(Block(request, reply))
        await chain.driver.make_block()
        sealed = seal(chain)
    assert replay(tmp_path / "audit", make_genesis(), sealed) == []


def test_an_audit_keeps_to_its_chain_and_its_folder(tmp_path: Path) -> None:
    with open_audit(tmp_path / "audit", make_genesis()):
        pass
    with (
        pytest.raises(AuditFolderError, match="another chain"),
        open_audit(tmp_path / "audit", make_genesis(funded=(2,))),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with (
        pytest.raises(AuditFolderError, match="holds something else"),
        open_audit(tmp_path / "other", make_genesis()),
    ):
        pass


def test_a_lost_position_is_said_in_words(tmp_path: Path, sealed: SealedChain) -> None:
    replay(tmp_path / "audit", make_genesis(), sealed)
    (tmp_path / "audit" / "position.json").write_text("[]")
    with (
        pytest.raises(AuditFolderError, match="begin the audit again"),
        open_audit(tmp_path / "audit", make_genesis()),
    ):
        pass
