"""The application of a node in a chain that nobody mines: everything but the process that walks.

    python benchmarks/walkless_app.py HOME WEIGHTS_FILE

Sixteen verifiers do not fit into most machines, and no proof comes for them to redo. The first
weights, which genesis wants, are read from a file; store, rules, ABCI and all else are the real
ones. A proof that came all the same would end the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import uvloop

from pol_abci.app.run import AppSettings, run_app
from pol_abci.app.verifier import Verifier
from pol_abci.cli.stopping import run_until_stopped
from pol_abci.node.home import load_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.app.verifier_messages import Configure


class WalklessVerifier(Verifier):
    """Knows W_0 and walks nothing."""

    def __init__(self, configure: Configure, initial_weights: bytes) -> None:
        super().__init__(configure)
        self._initial_weights = initial_weights

    async def run(self) -> None:
        """Be ready at once."""
        self.status.alive = True
        await asyncio.Event().wait()  # until the app is stopped

    async def compute_initial_weights(self) -> bytes:
        """Return W_0."""
        return self._initial_weights

    def set_head(self, generation: int, seed: bytes, weights: bytes) -> None:
        """There is no process that has to know it."""

    def measure_accuracy(
        self, generation: int, weights: bytes, then: Callable[[int, int, int], None]
    ) -> None:
        """Measure none."""


def main() -> None:
    """Run one node's application until SIGTERM."""
    home = load_home(Path(sys.argv[1]))
    os.chdir(home.path)
    settings = AppSettings(
        chain_id=home.settings.chain_id,
        genesis=home.genesis,
        initial_height=1,
        store_path=home.store_folder,
        listen=home.settings.listen,
        rpc_url=home.settings.rpc_url,
        threads=1,
    )
    make_verifier = partial(WalklessVerifier, initial_weights=Path(sys.argv[2]).read_bytes())
    with mock.patch("pol_abci.app.run.Verifier", make_verifier):
        run_until_stopped(run_app(settings), uvloop.run)


if __name__ == "__main__":
    main()
