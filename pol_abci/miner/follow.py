"""The miner's own copy of the head, kept by redoing each generation as its scheme says.

A walk costs its record and at most max_steps steps, where a download costs the whole model; a
proof of the paper's scheme costs its transaction, out of its block, and a step.
What the node tells is believed only as far as it adds up: the proof must lead to the recorded root
with the recorded score, that score must have beaten the difficulty, and the seeds must chain up
to the node's head. When something is missing or does not add up, the head is downloaded with
proofs instead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.chain import ChainNotBegun, get_chain_status, get_history
from pol_abci.client.proofs import ProofMissing, get_claim
from pol_abci.learning import weights as canonical
from pol_abci.learning.prover import FalseRecord
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head
from pol_abci.miner.ticket import MiningHead
from pol_abci.rules import scheme as rules
from pol_abci.rules.difficulty import compute_difficulty, compute_next_difficulty
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pol_abci.client.chain import ChainStatus
    from pol_abci.client.light import LightClient
    from pol_abci.client.rpc import RpcClient
    from pol_abci.learning.task import Task
    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.proof import Claim

MAX_REPLAYED = 20
"""Generations to redo at once; further behind, downloading the head is quicker."""

_DOWNLOADS = 5
_NOT_BEGUN = "the chain behind {url} takes no proofs yet"


class FalseHistory(PolError):
    """What the node tells of a generation is not what its walk gives."""


class HeadMoves(PolError):
    """The chain makes heads faster than this connection can download one."""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What a look at the node changed: generations redone, and a sentence for people, or none.

    Not `is_current`: the downloaded head is older than the one the node names; look again.
    """

    status: ChainStatus
    is_new_head: bool
    is_current: bool = True
    records: tuple[GenerationRecord, ...] = ()
    note: str | None = None


class Follower:
    """Holds the head that the node is at.

    `training` is held while walks are redone; `pause` is called before the head moves, so that
    nothing walks from the old one meanwhile.
    """

    def __init__(
        self,
        rpc: RpcClient,
        light: LightClient,
        task: Task,
        training: threading.Lock,
        pause: Callable[[], None],
    ) -> None:
        self.head: MiningHead | None = None
        self._rpc, self._light, self._task = rpc, light, task
        self._training, self._pause = training, pause

    def distrust(self) -> None:
        """Forget the head: the next look downloads it."""
        self.head = None

    async def catch_up(self) -> CatchUp:
        """Look where the node is, and follow it there.

        Raises
        ------
        ChainNotBegun
            The chain takes no proofs yet; look again with its next block.
        InvalidProof, HeadMoves
            The node gives no head that can be proven.
        RpcError, NodeUnreachable
            It cannot be asked now. The head stays what it was.
        """
        status = await get_chain_status(self._rpc)
        if status.head_time_ms == 0:
            raise ChainNotBegun(_NOT_BEGUN.format(url=self._rpc.url))
        head = self.head
        if head and _is_at(head, status):
            return CatchUp(status, is_new_head=False)
        self._pause()
        if head is None:
            return await self._start_anew(status, "")
        try:
            records = await self._get_missed(head, status)
            claims = await self._get_claims(records)
            self.head = await asyncio.to_thread(self._replay_all, head, records, claims, status)
        except (FalseHistory, ProofMissing) as error:
            return await self._start_anew(status, f"{error}; ")
        return CatchUp(status, is_new_head=True, records=records)

    async def _start_anew(self, status: ChainStatus, why: str) -> CatchUp:
        head = self.head = await self._download()
        note = f"{why}downloaded the model of generation {head.generation} with proofs"
        return CatchUp(status, is_new_head=True, is_current=_is_at(head, status), note=note)

    async def _get_missed(
        self, head: MiningHead, status: ChainStatus
    ) -> tuple[GenerationRecord, ...]:
        """Fetch the records of all generations from the one after `head` to the node's."""
        missed = status.generation - head.generation
        if missed <= 0:
            raise FalseHistory(
                f"the node's head of generation {status.generation} does not follow from this "
                f"miner's of generation {head.generation}"
            )
        if missed > MAX_REPLAYED:
            raise FalseHistory(f"{missed} generations behind")
        records = await get_history(self._rpc, head.generation + 1)
        records = records[:missed]
        generations = [record.generation for record in records]
        if generations != list(range(head.generation + 1, status.generation + 1)):
            raise FalseHistory("the node does not have the history from here on")
        return records

    async def _get_claims(self, records: tuple[GenerationRecord, ...]) -> list[Claim | None]:
        """Fetch what the scheme needs of each generation beside its record."""
        if not get_scheme(self._task.params).NEEDS_PROOF:
            return [None] * len(records)
        return [await get_claim(self._rpc, record) for record in records]

    def _replay_all(
        self,
        head: MiningHead,
        records: tuple[GenerationRecord, ...],
        claims: list[Claim | None],
        status: ChainStatus,
    ) -> MiningHead:
        with self._training:
            for record, claim in zip(records, claims, strict=True):
                head = self._replay(head, record, claim)
        if not _is_at(head, status):
            raise FalseHistory(
                f"generation {head.generation} of the node's history is not the head it names"
            )
        return head

    def _replay(
        self, head: MiningHead, record: GenerationRecord, claim: Claim | None
    ) -> MiningHead:
        """Redo one generation, and make the head that follows; protocol sections 8, 9 and 14."""
        params = self._task.params
        false = f"generation {record.generation} of the node's history is false"
        if record.time_ms < head.time_ms:
            raise FalseHistory(f"{false}: it is older than the one before it")
        redo_generation = get_scheme(params).redo_generation
        try:
            redone = redo_generation(self._task, head.model, record, claim)
        except FalseRecord as error:
            raise FalseHistory(f"{false}: {error}") from error
        if redone.root != record.weights_root or redone.score != record.score:
            raise FalseHistory(f"{false}: its walk leads elsewhere")
        at_time = (params.difficulty, head.difficulty, head.time_ms)
        if record.score < compute_difficulty(*at_time, record.time_ms):
            raise FalseHistory(f"{false}: its score is below the difficulty")
        return MiningHead(
            model=Head(
                record.generation,
                rules.get_scheme(params).compute_next_seed(head.model.seed, record),
                canonical.from_bytes(self._task.model, redone.weights).to(self._task.device),
            ),
            weights_root=redone.root,
            difficulty=compute_next_difficulty(
                params.difficulty, head.difficulty, record.time_ms - head.time_ms
            ),
            time_ms=record.time_ms,
        )

    async def _download(self) -> MiningHead:
        """Fetch the newest head that can be proven, at most a block behind the node's."""
        self.head = None
        size_bytes = canonical.VALUE_BYTES * self._task.model.size
        for _ in range(_DOWNLOADS):
            proven = await self._light.get_head()
            if proven.time_ms == 0:
                raise ChainNotBegun(_NOT_BEGUN.format(url=self._rpc.url))
            data = await self._light.get_weights(proven.weights_root, size_bytes)
            if data is not None:
                weights = canonical.from_bytes(self._task.model, data).to(self._task.device)
                return MiningHead(
                    model=Head(proven.generation, proven.seed, weights),
                    weights_root=proven.weights_root,
                    difficulty=proven.difficulty,
                    time_ms=proven.time_ms,
                )
        raise HeadMoves(
            f"the head of the chain moved {_DOWNLOADS} times while its model was downloaded; "
            f"mine nearer to a node"
        )


def _is_at(head: MiningHead, status: ChainStatus) -> bool:
    """Whether the miner's head is the one that the node names."""
    return (
        head.generation,
        head.model.seed,
        head.weights_root,
        head.difficulty,
        head.time_ms,
    ) == (
        status.generation,
        status.seed,
        status.weights_root,
        status.head_difficulty,
        status.head_time_ms,
    )
