"""Look at a node that is supervised: what moves shows which of its processes work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pol_abci.client.chain import ChainStatus
    from pol_abci.node.supervisor import Supervisor


class Pollable(Protocol):
    """What observes a node. `status` is the app's newest answer, None before the first."""

    status: ChainStatus | None

    @property
    def height(self) -> int:
        """Height that the app has committed, 0 while that is not known."""

    @property
    def generation(self) -> int | None:
        """Newest generation."""

    async def poll(self) -> None:
        """Ask the node once."""


async def poll_and_note(observer: Pollable, supervisor: Supervisor) -> None:
    """Ask a node once, and note the progress of its processes.

    A new height shows that CometBFT works, and the app if its verifier is ready: blocks without
    proofs need none. A new generation shows that somebody mines: a miner that is killed now and
    then must not end the node.
    """
    height, generation = observer.height, observer.generation
    await observer.poll()
    if observer.height > height:
        supervisor.note_progress("cometbft")
        if observer.status is not None and observer.status.verifier.alive:
            supervisor.note_progress("app")
    if observer.generation != generation:
        supervisor.note_progress(*supervisor.children)
