"""Blocks of the consensus driver as CometBFT would have sealed them: hashed, chained and signed.

`tests/unit/client/test_whole_blocks.py` and the e2e tests hold the hashes against CometBFT's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from pol_abci.abci.generated.types.validator_pb2 import BLOCK_ID_FLAG_ABSENT, BLOCK_ID_FLAG_COMMIT
from pol_abci.audit.comet import (
    compute_commit_hash,
    compute_data_hash,
    compute_header_hash,
    compute_results_hash,
    compute_validators_hash,
    encode_precommit,
    order_members,
)
from pol_abci.client.blocks import BlockId, Commit, CommitEntry, FullBlock, FullHeader
from tests.abci.blocks import change_set
from tests.abci.digits_chain import CHAIN_ID, make_consensus_key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pol_abci.audit.comet import Member
    from tests.abci.blocks import Block
    from tests.abci.digits_driver import DigitsChain

YEAR_ONE_NS = -62_135_596_800 * 10**9
"""What CometBFT writes for no time."""
NO_BLOCK = BlockId(b"", 0, b"")
KEYS = {
    make_consensus_key(number).public_key: SigningKey(make_consensus_key(number).seed)
    for number in range(1, 10)
}


@dataclass(frozen=True)
class Made:
    """What the driver's application made of a block, as the next header has it."""

    block: Block
    txs: tuple[bytes, ...]
    codes: tuple[int, ...]
    app_hash: bytes


@dataclass
class SealedChain:
    """Blocks, the votes for the newest one, and the app hash after it."""

    blocks: list[FullBlock] = field(default_factory=list)
    last_commit: Commit = field(
        default_factory=lambda: Commit(height=0, round=0, block_id=NO_BLOCK, entries=())
    )
    app_hash: bytes = b""


def get_made(chain: DigitsChain) -> list[Made]:
    """What the driver has, to be sealed as it is or forged first."""
    return [
        Made(block, block.txs, block.codes, block.reply.app_hash) for block in chain.driver.blocks
    ]


def seal(
    chain: DigitsChain,
    made: Sequence[Made] | None = None,
    *,
    silent: Collection[bytes] = (),
) -> SealedChain:
    """Seal the driver's blocks, or forged ones, with everybody's signature.

    `silent` are consensus keys whose signatures are wrong.
    """
    reply = chain.driver._init_chain_reply
    assert reply is not None
    first = change_set({}, reply.validators)
    sets, sealed = [{}, first, dict(first)], SealedChain()
    block_id, app_hash = NO_BLOCK, reply.app_hash
    codes: tuple[int, ...] = ()
    for each in get_made(chain) if made is None else made:
        request = each.block.request
        header = FullHeader(
            block_version=11,
            app_version=1,
            chain_id=CHAIN_ID,
            height=request.height,
            time_ns=request.time.seconds * 10**9 + request.time.nanos,
            last_block_id=block_id,
            last_commit_hash=compute_commit_hash(sealed.last_commit),
            data_hash=compute_data_hash(each.txs),
            validators_hash=compute_validators_hash(order_members(sets[1])),
            next_validators_hash=compute_validators_hash(order_members(sets[2])),
            consensus_hash=bytes(32),
            app_hash=app_hash,
            last_results_hash=compute_results_hash(codes),
            evidence_hash=bytes(32),
            proposer=request.proposer_address,
        )
        block_id = BlockId(compute_header_hash(header), 1, header.data_hash)
        sealed.blocks.append(
            FullBlock(
                hash=block_id.hash,
                header=header,
                txs=each.txs,
                last_commit=sealed.last_commit,
                misbehaviour=tuple(one.validator.address for one in request.misbehavior),
            )
        )
        app_hash, codes = each.app_hash, each.codes
        sets = [sets[1], sets[2], change_set(sets[2], each.block.reply.validator_updates)]
        index = len(sealed.blocks)
        following = chain.driver.blocks[index] if index < len(chain.driver.blocks) else None
        absent = () if following is None else _get_absent(following)
        sealed.last_commit = _vote(header, block_id, order_members(sets[0]), absent, silent)
    sealed.app_hash = app_hash
    return sealed


def _get_absent(block: Block) -> tuple[bytes, ...]:
    """Whom a block's last commit lacks."""
    return tuple(
        vote.validator.address
        for vote in block.request.decided_last_commit.votes
        if vote.block_id_flag == BLOCK_ID_FLAG_ABSENT
    )


def _vote(
    header: FullHeader,
    block_id: BlockId,
    members: Sequence[Member],
    absent: Collection[bytes],
    silent: Collection[bytes],
) -> Commit:
    commit = Commit(height=header.height, round=0, block_id=block_id, entries=())
    entries = []
    for member in members:
        if member.address in absent:
            entries.append(
                CommitEntry(
                    flag=BLOCK_ID_FLAG_ABSENT, address=b"", time_ns=YEAR_ONE_NS, signature=b""
                )
            )
            continue
        entry = CommitEntry(
            flag=BLOCK_ID_FLAG_COMMIT,
            address=member.address,
            time_ns=header.time_ns + 1,
            signature=bytes(64),
        )
        if member.consensus_key not in silent:
            message = encode_precommit(CHAIN_ID, commit, entry)
            signature = KEYS[member.consensus_key].sign(message).signature
            entry = replace(entry, signature=signature)
        entries.append(entry)
    return replace(commit, entries=tuple(entries))
