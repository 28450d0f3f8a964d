"""Watches the nodes of a testnet: asks each one's RPC, hears its miner, sees its processes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from pol_abci.cli.miner_view import decode_status
from pol_abci.cli.observer import HEALTH, START_S
from pol_abci.cli.testnet_view import NodeRow
from pol_abci.cli.view import ProcessState
from pol_abci.client.chain import get_chain_status
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pol_abci.client.answers import AbciInfo
    from pol_abci.client.chain import ChainStatus
    from pol_abci.client.rpc import RpcClient
    from pol_abci.node.supervisor import Child

MAX_HASHES = 100
"""Heights for which a node's app hashes are remembered, to be held against the others'."""


class NodeObserver:
    """What is known of one node, newest answers over older ones.

    `children` are its supervisor's processes by name; one called "miner" is heard.
    """

    def __init__(self, name: str, rpc: RpcClient, children: Mapping[str, Child]) -> None:
        self.name = name
        self.app_hashes: dict[int, bytes] = {}
        self._rpc = rpc
        self._children = children
        self.status: ChainStatus | None = None
        self._info: AbciInfo | None = None
        self._power: int | None = None
        self._peers: int | None = None
        self._speed: float | None = None
        self._trouble: str | None = None

    @property
    def height(self) -> int:
        """Height that the app has committed, 0 while that is not known."""
        return 0 if self._info is None else self._info.height

    @property
    def generation(self) -> int | None:
        """Newest generation, None while that is not known."""
        return None if self.status is None else self.status.generation

    @property
    def is_ready(self) -> bool:
        """Whether its verifier has loaded everything; a chain without blocks begins with that."""
        if self.status is None:
            return self._info is not None and self._info.height == 0
        return self.status.verifier.alive

    async def poll(self) -> None:
        """Ask the node once. One that does not answer is part of the picture, not a fault."""
        try:
            info, power, peers = await asyncio.gather(
                self._rpc.abci_info(), self._rpc.voting_power(), self._rpc.peer_count()
            )
            self._note(info)
            self._peers = peers
            if info.height:  # before the first block CometBFT says 0 of everybody
                self._power = power
            self.status = await get_chain_status(self._rpc)
        except PolError as trouble:
            self._trouble = str(trouble)
            return
        self._trouble = None

    def hear_miner(self, line: str) -> None:
        """Take a line of the miner's JSON; what else its libraries print says no speed."""
        try:
            self._speed = decode_status(line).steps_per_second
        except json.JSONDecodeError:
            return

    def take_row(self, uptime_s: float) -> NodeRow:
        """Put together what is known `uptime_s` after the start."""
        return NodeRow(
            name=self.name,
            height=None if self._info is None else self._info.height,
            app_hash=None if self._info is None else self._info.app_hash,
            power=self._power,
            generation=self.generation,
            peers=self._peers,
            has_miner="miner" in self._children,
            steps_per_second=self._speed,
            processes=tuple(
                ProcessState(name, child.state, HEALTH[child.state])
                for name, child in self._children.items()
            ),
            trouble=self._explain(uptime_s),
        )

    def _note(self, info: AbciInfo) -> None:
        self._info = info
        self.app_hashes[info.height] = info.app_hash
        for height in sorted(self.app_hashes)[:-MAX_HASHES]:
            del self.app_hashes[height]

    def _explain(self, uptime_s: float) -> str | None:
        """Say why the node does not go on: processes first, since they explain the rest."""
        for name, child in self._children.items():
            if child.state == "restarting":
                return (
                    f"{name} ended and is being started again ({child.restarts + 1} so far): "
                    f"see logs/{name}.log in its folder"
                )
        if any(child.state == "starting" for child in self._children.values()):
            return None
        if self.status is None:
            return self._trouble if uptime_s > START_S * (1 + len(self._children)) else None
        return self._trouble or self.status.standstill


def find_fork(observers: Sequence[NodeObserver]) -> str | None:
    """Name the first height at which two nodes have told different app hashes, in words."""
    told: dict[int, tuple[str, bytes]] = {}
    for observer in observers:
        for height, app_hash in sorted(observer.app_hashes.items()):
            name, other = told.setdefault(height, (observer.name, app_hash))
            if other != app_hash:
                return (
                    f"{name} and {observer.name} have different app hashes at height {height}: "
                    f"stop, keep the homes, and report it"
                )
    return None
