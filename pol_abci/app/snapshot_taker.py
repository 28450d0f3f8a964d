"""Takes snapshots at their heights, while blocks go on.

Commit only begins a read transaction. LMDB then copies the file in a thread of its own, and
another process makes the snapshot of the copy, so that neither is waited for by a block.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import structlog

from pol_abci.store.errors import StoreError
from pol_abci.store.snapshots import SnapshotFolder

if TYPE_CHECKING:
    from pol_abci.store.environment import Copy
    from pol_abci.store.store import Store

log = structlog.get_logger(__name__)

KEPT_SNAPSHOTS = 3
"""Of the newest. Who has begun to fetch one needs it for as long as the next two take to come."""


class SnapshotTaker:
    """Has a snapshot made of each height that `interval` divides; of none where that is 0."""

    def __init__(self, store: Store, interval: int) -> None:
        self.folder = SnapshotFolder(store.directory / "snapshots")
        self._store = store
        self._interval = interval
        self._is_due = asyncio.Event()
        self._begun: tuple[int, Copy] | None = None  # until it is done

    def begin_when_due(self) -> None:
        """Hold on to the version that was just committed, if a snapshot is to be made of it."""
        height = self._store.height
        if not self._interval or not height or height % self._interval:
            return
        if self._begun is not None:
            log.warning("no snapshot was taken", height=height, reason="the last one is not done")
            return
        self._begun = height, self._store.begin_copy()
        self._is_due.set()

    async def run(self) -> None:
        """Make what is due until cancelled. What a crash left half made is made again."""
        self.folder.clean(self._store.height)
        if self._begun is None and self._store.height not in self.folder.get_heights():
            self.begin_when_due()
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            assert self._begun is not None
            await self._take(*self._begun)
            self._begun = None

    async def _take(self, height: int, copy: Copy) -> None:
        path = self.folder.get_copy_path(height)
        try:
            if not await asyncio.to_thread(copy.write, path):
                log.warning("no snapshot was taken", height=height, reason="the store had to grow")
                return
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pol_abci.app.snapshot_process",
                path,
                self.folder.get_path(height),
                stdin=asyncio.subprocess.DEVNULL,
            )
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        except StoreError as error:
            log.warning("no snapshot was taken", height=height, reason=str(error))
            return
        finally:
            path.unlink(missing_ok=True)
        if code:
            log.warning("no snapshot was taken", height=height, reason="see the lines above")
            return
        self.folder.keep_newest(KEPT_SNAPSHOTS)
        log.info("a snapshot was taken", height=height)
