"""Watches a running node for `up`: asks its app, hears its miner, sees its processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pol_abci.cli.describe import describe_verifier
from pol_abci.cli.miner_view import decode_status, describe_miner
from pol_abci.cli.view import Health, ProcessState, Snapshot
from pol_abci.client.chain import HISTORY_LIMIT, get_chain_status, get_history
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pol_abci.client.chain import ChainStatus
    from pol_abci.client.rpc import RpcClient
    from pol_abci.node.supervisor import Child, ChildState
    from pol_abci.rules.codec import GenerationRecord

REMEASURED = 20
"""Newest generations that are asked for again until their accuracy is known."""
START_S = 20.0
"""A node may take so long to answer for the first time before that is worth a word."""
HEALTH: dict[ChildState, Health] = {
    "starting": "waiting",
    "running": "good",
    "restarting": "bad",
    "stopped": "waiting",
}


class Observer:
    """What is known of a node, newest answers over older ones.

    Parameters
    ----------
    rpc
        The node's own RPC.
    children
        The supervisor's processes by name.
    chain_id, home
        As the user knows them.
    generations
        After so many new ones `is_done`, None for never.
    """

    def __init__(
        self,
        rpc: RpcClient,
        children: Mapping[str, Child],
        *,
        chain_id: str,
        home: str,
        generations: int | None,
    ) -> None:
        self._rpc = rpc
        self._children = children
        self._chain_id, self._home = chain_id, home
        self._generations = generations
        self._records: dict[int, GenerationRecord] = {}
        self.status: ChainStatus | None = None
        self._goal: int | None = None
        self._trouble: str | None = None
        self._miner = "not started yet" if "miner" in children else "none, as --no-mine asks"

    @property
    def height(self) -> int:
        """Height that the app has committed, 0 while that is not known."""
        return 0 if self.status is None else self.status.height

    @property
    def generation(self) -> int:
        """Newest generation, 0 while that is not known."""
        return 0 if self.status is None else self.status.generation

    @property
    def is_done(self) -> bool:
        """Whether the chain has made as many generations as were asked for."""
        return (
            self._goal is not None
            and self.status is not None
            and self.status.generation >= self._goal
        )

    async def poll(self) -> None:
        """Ask the app once. A node that does not answer is part of the picture, not a fault."""
        try:
            status = await get_chain_status(self._rpc)
            while page := await get_history(self._rpc, self._find_first_wanted()):
                self._records |= {record.generation: record for record in page}
                if len(page) < HISTORY_LIMIT:
                    break
        except PolError as trouble:
            self._trouble = str(trouble)
            return
        self._trouble = None
        self.status = status
        if self._goal is None and self._generations is not None:
            self._goal = status.generation + self._generations

    def hear_miner(self, line: str) -> None:
        """Take a line of the miner's JSON; what else its libraries print is shown as it is."""
        try:
            self._miner = describe_miner(decode_status(line))
        except json.JSONDecodeError:
            self._miner = line

    def take_snapshot(self, uptime_s: float, *, is_stopping: bool) -> Snapshot:
        """Put together what is known `uptime_s` after the start."""
        processes = tuple(
            ProcessState(name, child.state, HEALTH[child.state])
            for name, child in self._children.items()
        )
        standstill = self._explain_standstill(uptime_s)
        status = self.status
        if status is None:
            return Snapshot(
                chain_id=self._chain_id,
                home=self._home,
                miner=self._miner,
                standstill=standstill,
                uptime_s=uptime_s,
                processes=processes,
                is_stopping=is_stopping,
            )
        return Snapshot(
            chain_id=self._chain_id,
            home=self._home,
            goal=self._goal,
            generation=status.generation,
            height=status.height,
            accuracy=status.accuracy,
            difficulty_now=status.difficulty_now,
            difficulty_head=status.head_difficulty,
            target_interval_ms=status.target_interval_ms,
            since_head_ms=max(0, status.time_ms - status.head_time_ms),
            records=tuple(self._records[generation] for generation in sorted(self._records)),
            miner=self._miner,
            verifier=describe_verifier(status.verifier),
            standstill=standstill,
            uptime_s=uptime_s,
            processes=processes,
            is_stopping=is_stopping,
        )

    def _find_first_wanted(self) -> int:
        """Find the first generation that is missing, or recent and not measured yet."""
        last = max(self._records, default=0)
        for generation in range(max(1, last - REMEASURED + 1), last + 1):
            record = self._records.get(generation)
            if record is None or not record.has_accuracy:
                return generation
        return last + 1

    def _explain_standstill(self, uptime_s: float) -> str | None:
        """Say why nothing happens: processes first, since they explain the rest."""
        for name, child in self._children.items():
            if child.state == "restarting":
                return (
                    f"{name} ended and is being started again ({child.restarts + 1} so far): "
                    f"see {self._home}/logs/{name}.log"
                )
        if self.status is None:
            if self._trouble is None or uptime_s <= START_S:
                return None
            return (
                f"no answer {uptime_s:.0f} s after the start ({self._trouble}): see app.log and "
                f"cometbft.log in {self._home}/logs"
            )
        return self._trouble or self.status.standstill
