"""What a chain's next block must say, as the blocks before it have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.audit.comet import (
    compute_commit_hash,
    compute_data_hash,
    compute_header_hash,
    compute_results_hash,
    compute_signed_power,
    compute_validators_hash,
    order_members,
)
from pol_abci.rules.errors import CODE_FAILED, CODE_OK, PolError

if TYPE_CHECKING:
    from pol_abci.audit.comet import Member
    from pol_abci.audit.folder import Position
    from pol_abci.client.blocks import Commit, FullBlock


class Difference(PolError):
    """The first thing in which the chain and its recomputation part."""

    def __init__(self, height: int, what: str, *, chain: object, here: object) -> None:
        super().__init__(f"height {height}: {what}: the chain has {chain}, recomputed {here}")
        self.height, self.what, self.chain, self.here = height, what, str(chain), str(here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the block of `height` is held against.

    `before` is the block before it, None for the first. `sets` are the validator sets, consensus
    key to power, of the height before, of this one and of the next. `app_hash` is of the state
    before this block.
    """

    chain_id: str
    height: int
    before: Position | None
    sets: tuple[dict[bytes, int], dict[bytes, int], dict[bytes, int]]
    app_hash: bytes

    @property
    def voters(self) -> tuple[Member, ...]:
        """Who decided the block before."""
        return order_members(self.sets[0])

    def check_block(self, block: FullBlock) -> None:
        """Hold a block against itself and against all before it.

        Raises
        ------
        Difference
        """
        header, before = block.header, self.before
        self._hold("the chain's name", header.chain_id, self.chain_id)
        self._hold("the block's height", header.height, self.height)
        self._hold("the block's hash", block.hash, compute_header_hash(header))
        self._hold("the transactions' hash", header.data_hash, compute_data_hash(block.txs))
        self._hold(
            "the hash of the last votes",
            header.last_commit_hash,
            compute_commit_hash(block.last_commit),
        )
        self._hold(
            "the hash of the block before",
            header.last_block_id.hash,
            b"" if before is None else before.block_hash,
        )
        self._check_results(header.last_results_hash)
        self.check_app_hash(header.app_hash)
        members = order_members(self.sets[1])
        self._hold("the validators' hash", header.validators_hash, compute_validators_hash(members))
        self._hold(
            "the next validators' hash",
            header.next_validators_hash,
            compute_validators_hash(order_members(self.sets[2])),
        )
        if header.proposer not in [member.address for member in members]:
            self._hold("the proposer", header.proposer, "no such validator")
        if before is None:
            self._hold("the number of votes before it", len(block.last_commit.entries), 0)
        else:
            self._hold(
                "the block voted on", block.last_commit.block_id.hash, header.last_block_id.hash
            )
            self._hold(
                "the parts voted on",
                block.last_commit.block_id.parts_hash,
                header.last_block_id.parts_hash,
            )
            self.check_votes(block.last_commit)

    def check_votes(self, commit: Commit) -> None:
        """Hold votes against the block before this one: more than two thirds of its validators.

        Raises
        ------
        Difference
        """
        assert self.before is not None
        height, members = self.before.height, self.voters
        _hold_at(height, "the height voted on", commit.height, height)
        _hold_at(height, "the block decided", commit.block_id.hash, self.before.block_hash)
        _hold_at(height, "the number of votes", len(commit.entries), len(members))
        signed = compute_signed_power(self.chain_id, members, commit)
        total = sum(member.power for member in members)
        if 3 * signed <= 2 * total:
            raise Difference(
                height,
                "the votes that decide it",
                chain="a block",
                here=f"right signatures of {signed} of {total} power",
            )

    def check_app_hash(self, app_hash: bytes) -> None:
        """Hold the state after the block before this one.

        Raises
        ------
        Difference
        """
        if self.before is None:
            self._hold("the app hash of genesis", app_hash, self.app_hash)
        else:
            _hold_at(self.before.height, "the app hash", app_hash, self.app_hash)

    def _check_results(self, chain_hash: bytes) -> None:
        """Hold what became of the transactions of the block before; name the one that parts."""
        codes = () if self.before is None else self.before.codes
        here = compute_results_hash(codes)
        if self.before is None:
            self._hold("the hash of no results", chain_hash, here)
            return
        if here == chain_hash:
            return
        height = self.before.height
        said = [
            f"code {code} ({fault})" if fault else f"code {code}"
            for code, fault in zip(codes, self.before.faults, strict=True)
        ]
        for index, code in enumerate(codes):
            other = CODE_OK if code else CODE_FAILED
            if compute_results_hash((*codes[:index], other, *codes[index + 1 :])) == chain_hash:
                what = f"transaction {index}"
                raise Difference(height, what, chain=f"code {other}", here=said[index])
        what = "the hash of the transactions' results"
        here_in_words = f"{here.hex()}, of {', '.join(said) or 'no transactions'}"
        raise Difference(height, what, chain=chain_hash.hex(), here=here_in_words)

    def _hold(self, what: str, chain: object, here: object) -> None:
        _hold_at(self.height, what, chain, here)


def _hold_at(height: int, what: str, chain: object, here: object) -> None:
    if chain != here:
        raise Difference(height, what, chain=_show(chain), here=_show(here))


def _show(value: object) -> object:
    return (value.hex() or "nothing") if isinstance(value, bytes) else value
