"""The audit of a chain: every block executed again, every walk redone, all held against headers.

A header carries the hash of its own content and, one block late, of what the application made of
the block before. So a block is checked in two parts: `execute` first holds its header against the
state as recomputed so far, then executes it; what it made is held by the next call.

What has to be believed is the genesis, alone. From it follow the validators, whose signatures
decide a block, and then the weights, the state and the next validators, block after block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pol_abci.audit.checking import Expected
from pol_abci.audit.comet import compute_header_hash, get_votes
from pol_abci.audit.folder import Position
from pol_abci.client.proofs import find_proof
from pol_abci.learning import weights as canonical
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head
from pol_abci.rules.errors import CODE_FAILED, CODE_OK, InvalidTx
from pol_abci.rules.genesis import process_genesis
from pol_abci.rules.proof import Claim, WalkVerdict
from pol_abci.rules.signing import authenticate
from pol_abci.rules.state import Overlay
from pol_abci.rules.transition import BlockContext, ChainContext, get_head, process_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pol_abci.audit.folder import AuditFolder
    from pol_abci.client.blocks import Commit, FullBlock
    from pol_abci.learning.task import Task
    from pol_abci.rules.block import ValidatorUpdate
    from pol_abci.rules.codec import GenerationRecord, SignedTx
    from pol_abci.rules.state import StateReader

_NS_TO_MS = 10**6


@dataclass(slots=True)
class Work:
    """What one run of an audit has recomputed."""

    blocks: int = 0
    walks: int = 0
    steps: int = 0


class Replay:
    """Executes a chain's blocks in order, from wherever the folder's last run ended.

    `on_step` is called before each step of a walk; it may raise, and nothing is lost but the block.
    """

    def __init__(
        self, folder: AuditFolder, task: Task, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self.work = Work()
        self._folder, self._task, self._on_step = folder, task, on_step
        self._store = folder.store
        self._chain = ChainContext(folder.chain.chain_id, folder.chain.genesis.params)
        self._genesis: dict[bytes, bytes | None] = {}
        self._state: StateReader = self._store.state()
        position = folder.read_position()
        if position is None:
            self._expected = self._begin()
        else:
            self._weights = canonical.from_bytes(task.model, self._store.weights())
            self._expected = self._expect(position)

    @property
    def next_height(self) -> int:
        """Of the block that comes next."""
        return self._expected.height

    @property
    def app_hash(self) -> bytes:
        """Of the state after the last executed block, of genesis before the first."""
        return self._expected.app_hash

    @property
    def height(self) -> int:
        """Of the last executed block, 0 before the first."""
        return self._store.height

    @property
    def generation(self) -> int:
        """The newest generation."""
        return get_head(self._state).generation

    def count_correct(self) -> int:
        """Count what the newest model gets right of all of E."""
        return count_correct(self._task, self._weights)

    def execute(self, block: FullBlock) -> GenerationRecord | None:
        """Check a block against all before it, and execute it; the generation that it made.

        Raises
        ------
        Difference
            The chain is not what its rules make of its blocks. Nothing of this block is kept.
        """
        self._expected.check_block(block)
        txs = [self._authenticate(raw) for raw in block.txs]
        walks = _Walks(self._walk)
        state = Overlay(self._state)
        outcome = process_block(state, self._chain, self._get_context(block), txs, walks)
        record, made = outcome.accepted, None
        if record is not None:
            made = next(
                weights
                for claim, weights in walks.made.items()
                if claim.weights_root == record.weights_root
            )
            correct = count_correct(self._task, canonical.from_bytes(self._task.model, made))
            if get_scheme(self._task.params).NEEDS_PROOF:
                self._folder.write_proof(record.generation, find_proof(block.txs, record))
            record = replace(
                record, has_accuracy=True, correct_all=correct, size_all=len(self._task.test)
            )
        errors = [each.error for each in outcome.txs]
        _, signing, following = self._expected.sets
        position = Position(
            height=block.header.height,
            block_hash=compute_header_hash(block.header),
            codes=tuple(CODE_OK if error is None else CODE_FAILED for error in errors),
            faults=tuple(
                "" if error is None else f"{type(error).__name__}: {error}" for error in errors
            ),
            sets=(signing, following, _change(following, outcome.validator_updates)),
        )
        self._commit(position, state.changes, made, record)
        return record

    def check_next(self, block: FullBlock) -> None:
        """Check the next block as `execute` would, which says all of the last one; execute nothing.

        Raises
        ------
        Difference
        """
        self._expected.check_block(block)

    def check_last(self, commit: Commit, app_hash: bytes | None) -> None:
        """Hold the last block against what the next one would carry.

        `commit` are the votes that decided it, `app_hash` what the application itself says of the
        state after it, None where it can't be asked.

        Raises
        ------
        Difference
        """
        self._expected.check_votes(commit)
        if app_hash is not None:
            self._expected.check_app_hash(app_hash)

    # -- genesis

    def _begin(self) -> Expected:
        """Stand before the first block. The first commit writes genesis together with it."""
        state = Overlay(self._state)
        updates = process_genesis(state, self._chain.chain_id, self._folder.chain.genesis)
        self._genesis = state.changes
        self._state = state
        self._weights = self._task.initial_weights
        first = _change({}, updates)
        pending = self._store.prepare(state.changes, canonical.to_bytes(self._weights))
        return Expected(
            chain_id=self._chain.chain_id,
            height=self._folder.chain.initial_height,
            before=None,
            sets=({}, first, first),
            app_hash=pending.app_hash,
        )

    def _expect(self, position: Position) -> Expected:
        """What comes after an executed block."""
        return Expected(
            chain_id=self._chain.chain_id,
            height=position.height + 1,
            before=position,
            sets=position.sets,
            app_hash=self._store.app_hash,
        )

    # -- blocks

    def _authenticate(self, raw: bytes) -> SignedTx | InvalidTx:
        try:
            return authenticate(self._chain.chain_id, raw, self._chain.scheme.max_tx_bytes)
        except InvalidTx as error:
            return error

    def _get_context(self, block: FullBlock) -> BlockContext:
        header = block.header
        return BlockContext(
            height=header.height,
            initial_height=self._folder.chain.initial_height,
            time_ms=header.time_ns // _NS_TO_MS,
            proposer=header.proposer,
            votes=get_votes(self._expected.voters, block.last_commit),
            misbehaviour=block.misbehaviour,
        )

    def _walk(self, claim: Claim) -> tuple[WalkVerdict, bytes | None]:
        head = get_head(self._state)
        self.work.walks += 1
        return get_scheme(self._task.params).verify_claim(
            self._task, Head(head.generation, head.seed, self._weights), claim, self._note_step
        )

    def _note_step(self) -> None:
        self._on_step()
        self.work.steps += 1

    def _commit(
        self,
        position: Position,
        changes: dict[bytes, bytes | None],
        made: bytes | None,
        record: GenerationRecord | None,
    ) -> None:
        """Write an executed block, all of it or none, and go on from it."""
        written, before = made, self._expected.before
        if before is None:
            changes = self._genesis | changes
            written = made or canonical.to_bytes(self._weights)
        pending = self._store.prepare(changes, written)
        entry = None if record is None else (record.generation, record.encode())
        self._folder.write_position(before, position)
        self._store.commit(pending, position.height, entry)
        self._state, self._expected = self._store.state(), self._expect(position)
        if made is not None:
            self._weights = canonical.from_bytes(self._task.model, made)
        self.work.blocks += 1


class _Walks(dict[Claim, WalkVerdict]):
    """Verdicts of walks, each redone when the rules ask for it, which is when it matters.

    `made` are the weights of those that are true.
    """

    def __init__(self, walk: Callable[[Claim], tuple[WalkVerdict, bytes | None]]) -> None:
        super().__init__()
        self.made: dict[Claim, bytes] = {}
        self._walk = walk

    def __missing__(self, claim: Claim) -> WalkVerdict:
        verdict, made = self._walk(claim)
        if made is not None:
            self.made[claim] = made
        self[claim] = verdict
        return verdict


def _change(powers: dict[bytes, int], updates: Iterable[ValidatorUpdate]) -> dict[bytes, int]:
    """A validator set after updates."""
    changed = powers | {update.consensus_key: update.power for update in updates}
    return {key: power for key, power in changed.items() if power}
