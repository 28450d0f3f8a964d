"""Versions of the state in memory: the newest, the one before it, and the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import TreeChange, compute_root_of_hashes

if TYPE_CHECKING:
    from pol_abci.store.layout import Commit


Undone = Mapping[int, Mapping[bytes, bytes | None]]


@dataclass(frozen=True, eq=False)
class Version:
    """A committed version. Its identity is the object: a height may be committed twice.

    `chunk_hashes` are the leaf hashes of its weights' chunks, and `chunk_heights` the heights
    whose commits wrote them.
    """

    commit: Commit
    state_root: bytes
    chunk_hashes: tuple[bytes, ...]
    chunk_heights: tuple[int, ...]

    @cached_property
    def weights_root(self) -> bytes:
        """Root of the `weights` store."""
        return compute_root_of_hashes(self.chunk_hashes)


@dataclass(frozen=True, slots=True)
class Previous:
    """The version before the newest one, and what makes it of that one.

    `undone` maps, bucket by bucket, each key that the last commit changed to its entry before, or
    to None.
    """

    version: Version
    undone: Undone
    tree_undo: TreeChange


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that is computed and not written yet; `Store.commit` writes it.

    `changes` are the entries that differ from the base's by where they lie, in that order, None
    where one is deleted; `undone` makes the base of it again.
    """

    app_hash: bytes
    weights_root: bytes
    base: Version
    changes: Mapping[bytes, bytes | None]
    undone: Undone
    bucket_roots: Mapping[int, bytes]
    tree_change: TreeChange
    chunk_hashes: tuple[bytes, ...]
    changed_chunks: Mapping[int, memoryview | None]
