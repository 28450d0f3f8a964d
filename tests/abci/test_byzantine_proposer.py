"""A proposer sends what no honest one would: validators refuse, say why, and go on.

A block above CometBFT's own limit is not among it: a stock CometBFT neither proposes nor takes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pol_abci.client.transactions import build_transfer
from pol_abci.rules.codec import decode_tx, encode_tx
from pol_abci.rules.errors import (
    DifficultyNotMet,
    FalseProof,
    InsufficientFunds,
    InvalidSequence,
    InvalidSignature,
    InvalidStamp,
    MalformedTx,
    NoProgress,
    OversizeTx,
    SecondProof,
    StaleProof,
)
from pol_abci.rules.params import MAX_TX_BYTES, Amount
from tests.abci.digits_chain import (
    CHAIN_ID,
    FUNDS,
    make_genesis,
    make_key,
    search_claim,
    sign_claim,
)
from tests.abci.digits_driver import get_consensus_address, run_chain, transfer
from tests.abci.driver import ProposalRejected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.rules.errors import InvalidTx
    from pol_abci.rules.proof import WalkClaim
    from tests.abci.digits_driver import DigitsChain

BYZANTINE, HONEST = 1, 2
MINER = make_key(5)


@dataclass(frozen=True, slots=True)
class Attack:
    """What is proposed, and as what it is refused."""

    name: str
    compose: Callable[[DigitsChain], list[bytes]]
    error: type[InvalidTx]
    reason: str
    walks: int = 0


def mine_with(chain: DigitsChain, **changes: object) -> list[bytes]:
    """A good proof with something changed in it, rightly signed and stamped."""
    claim: WalkClaim = search_claim(chain.nodes[0], MINER.address)
    return [transfer(HONEST, 1), sign_claim(MINER, replace(claim, **changes))]  # type: ignore[arg-type]  # fields


def change_last_digest(chain: DigitsChain) -> list[bytes]:
    claim = search_claim(chain.nodes[0], MINER.address)
    last = bytes(each ^ 0xFF for each in claim.step_digests[-8:])
    return mine_with(chain, step_digests=claim.step_digests[:-8] + last)


def mine_below_difficulty(chain: DigitsChain) -> list[bytes]:
    """A true walk with a score that is not enough at the next block's time."""
    claim = search_claim(chain.nodes[0], MINER.address, scores=range(1 << 16))
    return [sign_claim(MINER, claim)]


def mine_without_progress(chain: DigitsChain) -> list[bytes]:
    """A true walk with a good score that makes the model worse by more than time allows."""
    claim = search_claim(
        chain.nodes[0],
        MINER.address,
        is_wanted=lambda walk: walk.correct_ticket < walk.correct_head - 1,
    )
    return [sign_claim(MINER, claim)]


def mine_without_stamp(chain: DigitsChain) -> list[bytes]:
    claim = search_claim(chain.nodes[0], MINER.address)
    return [sign_claim(MINER, claim, stamp_bits=0)]


def sign_wrongly(_: DigitsChain) -> list[bytes]:
    tx = decode_tx(transfer(HONEST, 1))
    return [encode_tx(tx.body_bytes, tx.public_key, bytes(64))]


def spend_too_much(_: DigitsChain) -> list[bytes]:
    raw = build_transfer(
        make_key(HONEST),
        CHAIN_ID,
        sequence=1,
        fee=Amount(1_000),
        recipient=MINER.address,
        amount=FUNDS,
    )
    return [raw]


ATTACKS = [
    Attack("invalid walk", change_last_digest, FalseProof, "differs from the claim's digest", 1),
    Attack(
        "wrong weights",
        lambda chain: mine_with(chain, weights_root=bytes(32)),
        FalseProof,
        "the walk's last weights have another root",
        1,
    ),
    Attack("score too low", mine_below_difficulty, DifficultyNotMet, "the difficulty is now", 1),
    Attack("no progress", mine_without_progress, NoProgress, "of the images right", 1),
    Attack(
        "two proofs",
        lambda chain: [chain.mine(5), chain.mine(6)],
        SecondProof,
        "a block holds at most one proof",
    ),
    Attack("one proof twice", lambda chain: [chain.mine(5)] * 2, SecondProof, "at most one proof"),
    Attack(
        "stale generation",
        lambda chain: mine_with(chain, generation=0),
        StaleProof,
        "extends generation 0: the head is 1",
    ),
    Attack("no stamp", mine_without_stamp, InvalidStamp, "a stamp with"),
    Attack("signature", sign_wrongly, InvalidSignature, "sign the body with the key of"),
    Attack("overspent", spend_too_much, InsufficientFunds, "needed"),
    Attack("sequence", lambda _: [transfer(HONEST, 2)], InvalidSequence, "sequence"),
    Attack("spent twice", lambda _: [transfer(HONEST, 1)] * 2, InvalidSequence, "sequence"),
    Attack("too long", lambda _: [bytes(MAX_TX_BYTES + 1)], OversizeTx, f"at most {MAX_TX_BYTES}"),
    Attack("garbage", lambda _: [b"\xff" * 300], MalformedTx, ""),
    Attack("nothing at all", lambda _: [b""], MalformedTx, ""),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_each_hostile_block_is_refused_with_its_reason_and_the_next_one_is_made(
    tmp_path: Path, attack: Attack
) -> None:
    genesis = make_genesis(validators=((BYZANTINE, 50), (HONEST, 50)))
    async with run_chain(tmp_path, nodes=2, genesis=genesis) as chain:
        await chain.begin()
        await chain.driver.make_block([chain.mine(7)])
        hostile, height = attack.compose(chain), len(chain.driver.blocks)
        walks = chain.nodes[1].verifier.walks
        proposer = get_consensus_address(BYZANTINE)
        with capture_logs() as logs, pytest.raises(ProposalRejected):
            await chain.driver.make_block(hostile, proposer=proposer)
        refused = [entry for entry in logs if entry["event"] == "a proposal is refused"]
        assert len(refused) == len(chain.nodes)
        for entry in refused:
            assert (entry["code"], entry["log_level"]) == (attack.error.code, "warning")
            assert attack.reason in entry["reason"]
            assert (entry["height"], entry["proposer"]) == (height + 1, proposer.hex())
        assert chain.nodes[1].verifier.walks - walks == attack.walks

        good = [chain.mine(8), transfer(HONEST, 1)]
        block = await chain.driver.make_block(good, proposer=get_consensus_address(HONEST))
        assert block.codes == (0, 0)
        assert [node.replica.get_head().generation for node in chain.nodes] == [2, 2]
