"""Random blocks committed to a store one by one, as a node does it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pol_abci.rules.state import Overlay
from pol_abci.store.store import Store
from tests.unit.rules import build_chain as make
from tests.unit.rules import reference
from tests.unit.rules.random_blocks import RandomBlocks

if TYPE_CHECKING:
    import random

    from pol_abci.rules.block import BlockOutcome

DIGEST = bytes(32)
WEIGHTS_BYTES = 70_000
"""Two chunks: a generation changes the first, or both."""


def open_store(path: Path) -> Store:
    return Store.open(path, chain_id=make.CHAIN_ID, genesis_digest=DIGEST)


class BlocksOnDisk(RandomBlocks):
    """Each block is committed; `reopen` is the node's restart."""

    def __init__(self, path: Path | None = None) -> None:
        self.folder = None if path else Path(tempfile.mkdtemp(prefix="pol-blocks-"))
        self.path = path or self.folder
        assert self.path is not None
        self.store = open_store(self.path)
        self.weights = bytes(WEIGHTS_BYTES)
        super().__init__()

    def finish_block(self, outcome: BlockOutcome) -> None:
        weights = self.weights if self.height == 1 else None
        record = None
        if outcome.accepted is not None:
            generation = outcome.accepted.generation
            made = generation.to_bytes(8, "big") * (WEIGHTS_BYTES // 8)
            weights = self.weights = made[: 100 * generation] + self.weights[100 * generation :]
            record = (generation, outcome.accepted.encode())
        pending = self.store.prepare(self.state.changes, weights)
        self.store.commit(pending, self.height, record)
        self.state = Overlay(self.store.state())

    @precondition(lambda self: self.height > 0)
    @rule(choose=st.randoms(use_true_random=False))
    def reopen(self, choose: random.Random) -> None:
        """A restart: everything is as it was, and its order of coming does not show."""
        before = self.store.app_hash
        self.store.close()
        assert self.path is not None
        self.store = open_store(self.path)
        self.state = Overlay(self.store.state())
        assert (self.store.height, self.store.app_hash) == (self.height, before)
        assert self.store.weights() == self.weights
        self.store.verify()
        assert {key: self.store.state().get(key) for key in self.known} == self.known
        generations = [generation for generation, _ in self.store.records(0, self.height)]
        assert generations == list(range(1, self.plain.generation + 1))
        assert self.insert_anew(choose) == before

    def insert_anew(self, choose: random.Random) -> bytes:
        """App hash of a fresh store that got the same entries in another order and by detours."""
        with tempfile.TemporaryDirectory(prefix="pol-anew-") as folder:
            fresh = open_store(Path(folder))
            shuffled = choose.sample(sorted(self.known), len(self.known))
            cut = choose.randrange(len(shuffled))
            detour: dict[bytes, bytes | None] = dict.fromkeys(shuffled[cut // 2 :], b"another")
            detour[b"gone"] = b"soon"
            fresh.commit(fresh.prepare(detour, b"other weights"), 1, None)
            for height, part in ((2, shuffled[cut:]), (3, shuffled[:cut])):
                changes: dict[bytes, bytes | None] = {key: self.known[key] for key in part}
                changes[b"gone"] = None
                weights = self.weights if height == 3 else None
                fresh.commit(fresh.prepare(changes, weights), height, None)
            fresh.close()
            return fresh.app_hash

    def teardown(self) -> None:
        if self.height:
            assert self.store.app_hash == reference.app_hash(self.known, self.weights)
        self.store.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)
