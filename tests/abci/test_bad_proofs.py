"""Every way in which a proof can be bad: its code, its sentence, and that it changes nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.app.verifier import OtherWeights
from pol_abci.rules.codec import ProofMessage, decode_tx, encode_body, encode_tx
from pol_abci.rules.errors import (
    CODE_FAILED,
    CODE_OK,
    CODESPACE,
    ChainNotStarted,
    DifficultyNotMet,
    FalseProof,
    FutureProof,
    InvalidSignature,
    InvalidStamp,
    InvalidSteps,
    MalformedTx,
    NoProgress,
    OversizeTx,
    PendingProof,
    ProofRefused,
    StaleProof,
)
from pol_abci.rules.params import MAX_TX_BYTES, Address
from pol_abci.rules.proof import DIGEST_BYTES, TrueWalk
from pol_abci.rules.seed import is_stamped
from tests.abci.digits_chain import (
    CHAIN_ID,
    TARGET_MS,
    make_genesis,
    make_key,
    make_test_params,
    search_claim,
    sign_claim,
)
from tests.abci.digits_driver import run_chain, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.keys import AccountKey
    from pol_abci.rules.errors import InvalidTx
    from pol_abci.rules.proof import Claim, WalkClaim
    from tests.abci.digits_driver import DigitsChain

MINER = make_key(5)


async def expect_refused(
    chain: DigitsChain, raw: bytes, error: type[InvalidTx], sentence: str
) -> None:
    """Refused in CheckTx with code and sentence, and in a block without a word of its own."""
    before = chain.nodes[0].replica.state, chain.nodes[0].replica.store.app_hash
    reply = await chain.check(raw)
    if reply.code == PendingProof.code:
        chain.nodes[0].verifier.walk_queued()
        reply = await chain.check(raw)
    assert (reply.code, reply.codespace) == (error.code, CODESPACE), reply.log
    assert sentence in reply.log
    await expect_refused_in_blocks(chain, raw)
    assert (chain.nodes[0].replica.state, chain.nodes[0].replica.store.app_hash) == before


async def expect_refused_in_blocks(chain: DigitsChain, raw: bytes) -> None:
    """No proposal has it, none may have it, and a decided block goes on without it."""
    assert await chain.prepare([raw, transfer(1, 1)]) == [transfer(1, 1)]
    assert not await chain.is_accepted([raw])
    assert not await chain.is_accepted([transfer(1, 1), raw])
    reply = await chain.finalize([raw, transfer(1, 1)])
    assert [result.code for result in reply.tx_results] == [CODE_FAILED, CODE_OK]
    bad = reply.tx_results[0]
    assert (bad.data, bad.gas_wanted, bad.gas_used, len(bad.events)) == (b"", 0, 0, 0)
    assert reply.app_hash == (await chain.finalize([transfer(1, 1)])).app_hash


def sign_proof(key: AccountKey, claim: Claim, stamp: int, *, fee: int = 0) -> bytes:
    """A proof with whatever stamp and fee."""
    body = encode_body(0, fee, ProofMessage(claim, stamp))
    return encode_tx(body, key.public_key, key.sign_body(CHAIN_ID, body))


def change_digest(claim: WalkClaim, step: int) -> WalkClaim:
    """One wrong digest: that of a step, counted from 1."""
    start = (step - 1) * DIGEST_BYTES
    digests = bytearray(claim.step_digests)
    digests[start] ^= 1
    return replace(claim, step_digests=bytes(digests))


async def test_bytes_that_are_no_proof(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        raw = chain.mine(5)
        garbage = hashlib.shake_128(b"garbage").digest(300)
        for bad in (b"", b"\0", garbage, raw[:-1], raw[:40], raw + b"\0", raw + raw):
            await expect_refused(chain, bad, MalformedTx, "")
        tx = decode_tx(raw)
        charged = sign_proof(MINER, tx.message.claim, 0, fee=1)  # type: ignore[union-attr]  # a proof
        await expect_refused(chain, charged, MalformedTx, "leave sequence and fee of a proof at 0")
        oversize = raw + bytes(MAX_TX_BYTES)
        await expect_refused(chain, oversize, OversizeTx, f"at most {MAX_TX_BYTES}")
        assert chain.nodes[0].verifier.walks == 0


async def test_a_wrong_signature_or_another_chains(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        tx = decode_tx(chain.mine(5))
        sentence = f"sign the body with the key of {MINER.address.hex()} for {CHAIN_ID}"
        bent = tx.signature[:10] + bytes([tx.signature[10] ^ 1]) + tx.signature[11:]
        raw = encode_tx(tx.body_bytes, tx.public_key, bent)
        await expect_refused(chain, raw, InvalidSignature, sentence)
        claim = search_claim(chain.nodes[0], MINER.address)
        raw = sign_claim(MINER, claim, chain_id="pol-another")
        await expect_refused(chain, raw, InvalidSignature, sentence)
        assert chain.nodes[0].verifier.walks == 0


async def test_a_proof_before_the_chain_takes_any(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.driver.make_block()
        raw = chain.mine(5)
        await expect_refused(chain, raw, ChainNotStarted, "from the third block on")
        await chain.driver.make_block()
        await chain.submit(raw)
        assert (await chain.driver.make_block()).txs == (raw,)


async def test_replayed_stale_and_future_proofs(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        raw, late = chain.mine(1), chain.mine(2)
        future = replace(search_claim(chain.nodes[0], MINER.address), generation=1)
        await expect_refused(
            chain, sign_claim(MINER, future), FutureProof, "extends generation 1: the head is 0"
        )
        await chain.driver.make_block([raw])
        walks = chain.nodes[0].verifier.walks
        # fees and rewards have moved the state, and so both are judged beside a fresh transfer
        for stale in (raw, late):
            await expect_refused(chain, stale, StaleProof, "extends generation 0: the head is 1")
        assert chain.nodes[0].verifier.walks == walks


async def test_lengths_that_no_walk_has(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        claim = search_claim(chain.nodes[0], MINER.address)
        most = make_test_params().walk.max_steps
        for steps in (0, 1, most + 1, 2**32 - 1):
            raw = sign_claim(MINER, replace(claim, steps=steps))
            await expect_refused(chain, raw, InvalidSteps, f"{steps} steps: give 2 to {most}")
        for digests in (b"", claim.step_digests[:-1], claim.step_digests + bytes(8)):
            raw = sign_claim(MINER, replace(claim, step_digests=digests))
            await expect_refused(chain, raw, InvalidSteps, "8 bytes of digest for each step")
        assert chain.nodes[0].verifier.walks == 0


async def test_an_unstamped_proof_is_not_walked(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        claim = search_claim(chain.nodes[0], MINER.address)
        body = encode_body(0, 0, ProofMessage(claim, 0))
        bits = make_test_params().walk.stamp_bits
        seed = chain.nodes[0].replica.get_head().seed
        bad = next(n for n in range(1, 99) if not is_stamped(seed, MINER.address, body, n, bits))
        raw = sign_proof(MINER, claim, bad)
        await expect_refused(chain, raw, InvalidStamp, f"a stamp with {bits} zero bits")
        await chain.driver.make_block([chain.mine(6)])
        # stamped before the generation was there: for the seed of the one before
        early = replace(claim, generation=1)
        body = encode_body(0, 0, ProofMessage(early, 0))
        new = chain.nodes[0].replica.get_head().seed
        stamp = next(
            n
            for n in range(9_999)
            if is_stamped(seed, MINER.address, body, n, bits)
            and not is_stamped(new, MINER.address, body, n, bits)
        )
        raw = sign_proof(MINER, early, stamp)
        await expect_refused(chain, raw, InvalidStamp, "for the head's seed")
        assert chain.nodes[0].verifier.walks == 1  # the true proof's
        assert chain.nodes[0].verifier.queued == 0


@pytest.mark.parametrize("step", [1, 3, 5])
async def test_one_wrong_step_digest_ends_the_walk_at_that_step(tmp_path: Path, step: int) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        claim = search_claim(chain.nodes[0], MINER.address, steps=5)
        raw = sign_claim(MINER, change_digest(claim, step))
        verifier = chain.nodes[0].verifier
        sentence = f"step {step} differs from the claim's digest"
        await expect_refused(chain, raw, FalseProof, sentence)
        assert verifier.steps == step
        assert verifier.walks == 1  # CheckTx, proposals and blocks: one walk serves all
        assert verifier.status.false == 1


async def test_a_wrong_root_is_found_after_the_last_step(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        claim = search_claim(chain.nodes[0], MINER.address)
        raw = sign_claim(MINER, replace(claim, weights_root=bytes(32)))
        await expect_refused(chain, raw, FalseProof, "the walk's last weights have another root")
        assert chain.nodes[0].verifier.steps == claim.steps


async def test_a_copied_proof_is_false_at_its_first_step(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        honest = search_claim(chain.nodes[0], MINER.address)
        thief = make_key(6)
        raw = sign_claim(thief, replace(honest, address=thief.address))
        await expect_refused(chain, raw, FalseProof, "step 1 differs")
        assert chain.nodes[0].verifier.steps == 1
        # the thief's lie costs the honest miner nothing
        await chain.submit(sign_claim(MINER, honest))


async def test_a_second_proof_in_a_block(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        one, two = chain.mine(5), chain.mine(6)
        verifier = chain.nodes[0].verifier
        assert not await chain.is_accepted([one, two])
        assert not await chain.is_accepted([one, *[two] * 500])
        assert verifier.walks == 0  # a proposer cannot make validators walk all night
        assert await chain.is_accepted([one])
        reply = await chain.finalize([two, one, transfer(1, 1)])
        assert [result.code for result in reply.tx_results] == [CODE_OK, CODE_FAILED, CODE_OK]
        assert reply.tx_results[1].log == "code 29: the block has its proof"
        for raw in (one, two):
            assert (await chain.check(raw)).code == CODE_OK
        proposed = await chain.prepare([one, two])
        assert len(proposed) == 1
        assert await chain.is_accepted(proposed)


async def test_a_failing_proof_before_a_good_one_does_not_stand_in_its_way(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        good = chain.mine(5)
        false = sign_claim(
            make_key(6),
            change_digest(search_claim(chain.nodes[0], make_key(6).address), 1),
        )
        block = chain.make_block_request([false, good])  # decided by validators that do not check
        await chain.driver._execute(block, chain.driver.nodes[0], None)
        assert chain.driver.blocks[-1].codes == (CODE_FAILED, CODE_OK)
        assert chain.nodes[0].replica.get_head().generation == 1


async def test_a_proof_that_is_not_good_yet_is_kept_and_proposed_when_it_is(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node = chain.nodes[0]
        head = node.replica.get_head()
        claim = search_claim(
            node,
            MINER.address,
            scores=range(head.difficulty - 60_000, head.difficulty - 30_000),
            is_wanted=lambda walk: walk.correct_ticket >= walk.correct_head,
        )
        raw = sign_claim(MINER, claim)
        chain.clock.now_ms = head.time_ms
        await expect_refused(
            chain, raw, DifficultyNotMet, f"the difficulty is now {head.difficulty}"
        )
        ticket = node.replica.tickets.get_soonest()
        assert ticket is not None
        assert ticket.raw == raw
        good_ms = ticket.good_time_ms
        assert head.time_ms < good_ms < head.time_ms + TARGET_MS
        chain.clock.now_ms = good_ms - 1
        assert (await chain.check(raw)).code == DifficultyNotMet.code
        chain.clock.now_ms = good_ms
        assert (await chain.check(raw)).code == CODE_OK
        assert await chain.prepare([raw], time_ms=good_ms - 1) == []
        assert not await chain.is_accepted([raw], time_ms=good_ms - 1)
        assert await chain.prepare([], time_ms=good_ms) == [raw]
        # a refusal takes it out of the mempool, and so out of proposals (here the clock was set)
        chain.clock.now_ms = node.replica.time_ms = good_ms - 1
        assert (await chain.check(raw, kind=pb.RECHECK)).code == DifficultyNotMet.code
        assert await chain.prepare([], time_ms=good_ms) == []
        chain.clock.now_ms = good_ms
        assert (await chain.check(raw)).code == CODE_OK
        block = await chain.driver.make_block(time_ms=good_ms)
        assert block.txs == (raw,)
        assert block.codes == (CODE_OK,)


async def test_a_walk_that_loses_accuracy_waits_one_interval_for_each_image(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node = chain.nodes[0]
        head = node.replica.get_head()
        claim = search_claim(
            node, MINER.address, is_wanted=lambda walk: walk.correct_head - walk.correct_ticket > 0
        )
        raw = sign_claim(MINER, claim)
        chain.clock.now_ms = head.time_ms
        await expect_refused(chain, raw, NoProgress, "of the images right: before there were")
        ticket = node.replica.tickets.get_soonest()
        assert ticket is not None
        lost = ticket.verdict.correct_head - ticket.verdict.correct_ticket
        assert ticket.good_time_ms == head.time_ms + lost * TARGET_MS
        chain.clock.now_ms = ticket.good_time_ms
        assert (await chain.check(raw)).code == CODE_OK
        assert await chain.prepare([], time_ms=ticket.good_time_ms - 1) == []
        assert (await chain.driver.make_block(time_ms=ticket.good_time_ms)).txs == (raw,)


async def test_under_the_strict_rule_a_walk_that_is_no_better_is_never_good(tmp_path: Path) -> None:
    params = make_test_params()
    strict = replace(params, scheme=replace(params.walk, progress="strict"))
    async with run_chain(tmp_path, genesis=make_genesis(strict)) as chain:
        await chain.begin()
        node = chain.nodes[0]
        worse = search_claim(
            node, MINER.address, is_wanted=lambda walk: walk.correct_ticket <= walk.correct_head
        )
        raw = sign_claim(MINER, worse)
        await expect_refused(chain, raw, NoProgress, "of the images right")
        assert len(node.replica.tickets) == 0
        chain.clock.now_ms += 10**9
        assert (await chain.check(raw)).code == NoProgress.code
        assert not await chain.is_accepted([raw], time_ms=chain.clock.now_ms)
        better = search_claim(
            node, MINER.address, is_wanted=lambda walk: walk.correct_ticket > walk.correct_head
        )
        await chain.submit(sign_claim(MINER, better))


# -- what this node does about proofs, beside consensus


async def test_check_tx_never_walks_and_the_verifiers_result_answers_it(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node, raw = chain.nodes[0], chain.mine(5)
        for _ in range(3):
            reply = await chain.check(raw)
            assert reply.code == PendingProof.code
            assert "the node submits what is good" in reply.log
        assert (node.verifier.walks, node.verifier.queued) == (0, 1)
        assert len(node.replica.tickets) == 0
        node.verifier.walk_queued()
        assert (node.verifier.walks, len(node.replica.tickets)) == (1, 1)
        assert await chain.prepare([raw]) == []  # CheckTx has not said yes
        assert (await chain.check(raw)).code == CODE_OK
        assert await chain.prepare([]) == [raw]
        assert node.verifier.walks == 1


async def test_what_became_acceptable_after_the_blocks_time_waits_for_the_next(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        raw = chain.mine(5)
        await chain.submit(raw)
        latest_ms = chain.clock.now_ms - TARGET_MS // 16
        assert await chain.prepare([raw], time_ms=latest_ms) == [raw]
        assert await chain.prepare([raw], time_ms=latest_ms - 1) == []


async def test_a_proof_that_a_proposal_has_shown_true_is_proposed_by_this_node_too(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node, raw = chain.nodes[0], chain.mine(5)
        assert await chain.is_accepted([raw])  # another's proposal, in a round that fails
        assert (await chain.check(raw)).code == CODE_OK
        assert await chain.prepare([raw]) == [raw]
        head = node.replica.get_head()
        early = sign_claim(
            make_key(6),
            search_claim(
                node,
                make_key(6).address,
                scores=range(head.difficulty - 9_000, head.difficulty - 99),
            ),
        )
        assert not await chain.is_accepted([early], time_ms=head.time_ms + 1)
        chain.clock.now_ms = node.replica.time_ms = head.time_ms
        assert (await chain.check(early)).code == DifficultyNotMet.code
        assert len(node.replica.tickets) == 2


async def test_an_address_that_was_false_is_not_walked_again_in_that_generation(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node = chain.nodes[0]
        true = search_claim(node, MINER.address)
        false = sign_claim(MINER, change_digest(true, 1))
        await expect_refused(chain, false, FalseProof, "step 1 differs")
        reply = await chain.check(sign_claim(MINER, true))
        assert reply.code == ProofRefused.code
        assert "a walk of this address was false in this generation" in reply.log
        # policy, not validity: another's proposal with it is accepted
        assert await chain.is_accepted([sign_claim(MINER, true)])
        await chain.driver.make_block([chain.mine(6)])
        assert (await chain.check(chain.mine(5))).code == PendingProof.code


async def test_the_queue_is_bounded_and_prefers_who_has_something_to_lose(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=make_genesis(funded=(2,))) as chain:
        await chain.begin()
        node = chain.nodes[0]
        node.verifier.set_queue_limit(2)
        template = search_claim(node, MINER.address)

        async def send(number: int, nonce: int = 0) -> int:
            key = make_key(number)
            claim = replace(template, address=Address(key.address), nonce=nonce)
            return (await chain.check(sign_claim(key, claim))).code

        assert [await send(number) for number in (7, 8)] == [PendingProof.code] * 2
        assert await send(9) == ProofRefused.code
        assert await send(8, nonce=1) == PendingProof.code  # in its own place
        assert await send(2) == PendingProof.code  # has a balance
        assert await send(1) == PendingProof.code  # has slots
        assert await send(7) == ProofRefused.code
        assert node.verifier.queued == 2
        entries = [node.verifier._queue.pop() for _ in range(2)]
        addresses = [entry[0].address for entry in entries if entry is not None]
        assert addresses == [make_key(1).address, make_key(2).address]


async def test_a_new_generation_forgets_tickets_and_walks_of_the_old_one(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        node = chain.nodes[0]
        loser, waiting, winner = chain.mine(5), chain.mine(6), chain.mine(7)
        await chain.submit(loser)
        await chain.check(waiting)
        await chain.driver.make_block([winner])
        assert len(node.replica.tickets) == 0
        assert node.verifier.queued == 0
        assert node.verifier.verdicts == {}
        assert loser not in chain.driver.nodes[0].mempool  # the recheck refused it
        assert (await chain.driver.make_block()).txs == ()


async def test_weights_that_are_not_the_heads_stop_the_node_before_they_are_committed(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        proof, verifier = chain.mine(1), chain.nodes[0].verifier
        message = decode_tx(proof).message
        assert isinstance(message, ProofMessage)
        assert isinstance(await verifier.verify(message.claim), TrueWalk)
        weights = verifier._made[message.claim]
        verifier._made[message.claim] = weights[:-1] + bytes((weights[-1] ^ 1,))
        with pytest.raises(OtherWeights, match="look at its memory"):
            await chain.finalize([proof])
