"""Time of hashing, checking and committing new weights against a raw synced write of their bytes.

The store does what FinalizeBlock and Commit ask of it for a block with a proof: it hashes the new
weights, whose root must be the head's, computes the trees and writes state, weights and record in
one commit. The raw write overwrites a file in the same folder and calls fsync. Both take turns and
medians are compared, so that load on the machine and its disk weighs on both alike. LMDB syncs
twice, what was written and then the page that leads there; the raw write once.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, main
from pol_abci.rules import keys
from pol_abci.rules.codec import Head
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (("30 KB", 30_000), ("17 MB", 17_000_000))
"""Weights of the preset digits, and of a model such as a small ResNet18."""
COMMITS = 40
WARM_UP = 4
"""By then the file has its size: the store keeps two versions, and a third one's pages."""


def commit_ms(store: Store, weights: bytes) -> tuple[float, float]:
    """Milliseconds to prepare, and to commit, a generation with these weights."""
    height = store.height + 1
    head = Head(generation=height, seed=bytes(32), difficulty=1, time_ms=1, weights_root=bytes(32))
    begun = time.perf_counter()
    pending = store.prepare({keys.head(): head.encode()}, weights)
    prepared = time.perf_counter()
    store.commit(pending, height, (height, bytes(200)))
    done = time.perf_counter()
    return (prepared - begun) * 1_000, (done - prepared) * 1_000


def write_ms(path: Path, content: bytes) -> float:
    """Milliseconds to overwrite a file and sync it."""
    begun = time.perf_counter()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        assert os.write(file, content) == len(content)
        os.fsync(file)
    finally:
        os.close(file)
    return (time.perf_counter() - begun) * 1_000


def measure() -> Iterator[Figure]:
    """Alternate both, for each size of weights."""
    for name, size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(Path(folder, "app"), chain_id="benchmark", genesis_digest=bytes(32))
            prepare, commit, write = [], [], []
            for _ in range(WARM_UP + COMMITS):
                weights = os.urandom(size)
                write.append(write_ms(Path(folder, "raw"), weights))
                prepared_ms, committed_ms = commit_ms(store, weights)
                prepare.append(prepared_ms)
                commit.append(committed_ms)
            store.close()
        preparing_ms, committing_ms, raw_ms = (
            statistics.median(times[WARM_UP:]) for times in (prepare, commit, write)
        )
        yield Figure(
            name=f"a block with {name} of new weights: trees, commit",
            value=f"{preparing_ms:.1f} ms + {committing_ms:.1f} ms",
            beside=f"{raw_ms:.1f} ms raw synced write",
            ratio=(preparing_ms + committing_ms) / raw_ms,
            goal="at most 1.5",
        )


if __name__ == "__main__":
    main(measure)
