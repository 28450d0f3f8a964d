"""What a check says, and what it is given to look at."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pol_abci.client.chain import get_chain_status
from pol_abci.client.rpc import RpcClient
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.answers import NodeStatus
    from pol_abci.client.chain import ChainStatus
    from pol_abci.node.home import Home

Verdict = Literal["ok", "warning", "fault"]

_RPC_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: `advice` says what to do, unless all is well or `finding` does."""

    check: str
    verdict: Verdict
    finding: str
    advice: str = ""


@dataclass(slots=True)
class Patient:
    """What is looked at: this machine, a home if `path` names one, and the node that answers.

    `home` is None where there is none, or none that can be read.
    """

    path: Path | None
    home: Home | None
    is_deep: bool
    node: NodeStatus | None = None
    """Of whatever node answers at the home's RPC address."""
    node_id: str = ""
    chain: ChainStatus | None = None
    """What the app behind that node says."""

    def ask_node(self) -> None:
        """Ask the home's RPC address who is there."""
        assert self.home is not None
        asyncio.run(self._ask(self.home.settings.rpc_url))

    async def _ask(self, url: str) -> None:
        async with RpcClient(url, timeout_s=_RPC_TIMEOUT_S) as rpc:
            try:
                self.node = await rpc.status()
                info = (await rpc.call("status")).at("node_info")
                self.node_id = info.text("id")
                self.chain = await get_chain_status(rpc)
            except PolError:
                return  # `ports` and `node` say what that means


def ok(check: str, finding: str, advice: str = "") -> Finding:
    """All is well."""
    return Finding(check, "ok", finding, advice)


def warning(check: str, finding: str, advice: str) -> Finding:
    """It works, but not as well as it might, or not for long."""
    return Finding(check, "warning", finding, advice)


def fault(check: str, finding: str, advice: str = "") -> Finding:
    """A node does not work like this, or is not safe."""
    return Finding(check, "fault", finding, advice)
