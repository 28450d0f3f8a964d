"""What a node that joins needs to know of its chain, asked of nodes that are in it.

Light clients and state sync begin with one block that they are told. Whoever tells it could tell
another chain's; so the user names its hash, or is told that the nodes asked are trusted for it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pol_abci.client.chain import get_chain_status
from pol_abci.client.rpc import RpcClient
from pol_abci.node.genesis_document import GenesisDocument, parse_genesis_document
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRUST_PERIOD = "24h0m0s"
"""A home that joins is started within a day of being made. Later, those who held the chain's power
when its trusted block was made may have sold all of it, and nothing stops them from signing
another past."""
DISCOVERY_TIME = "5s"
"""CometBFT's least: it waits so long for peers to name their snapshots."""
MIN_SERVERS = 2
"""CometBFT asks for a second one to hold the first against; the same one twice will do."""


class JoiningError(PolError):
    """The nodes asked do not agree, or do not have what joining takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSync:
    """Where CometBFT verifies headers, and the block that it trusts."""

    servers: tuple[str, ...]
    trust_height: int
    trust_hash: bytes

    def compose_config(self) -> dict[str, Any]:
        """Return `[statesync]` of CometBFT's configuration."""
        servers = self.servers * (MIN_SERVERS if len(self.servers) < MIN_SERVERS else 1)
        return {
            "enable": True,
            "rpc_servers": ",".join(servers),
            "trust_height": self.trust_height,
            "trust_hash": self.trust_hash.hex().upper(),
            "trust_period": TRUST_PERIOD,
            "discovery_time": DISCOVERY_TIME,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """A chain's genesis, its nodes as CometBFT's persistent_peers, and how to begin.

    Without `state_sync` the node begins with the first block.
    """

    document: GenesisDocument
    peers: str
    state_sync: StateSync | None


async def ask_nodes(
    urls: Sequence[str],
    *,
    trust: tuple[int, bytes] | None,
    by_blocks: bool,
    report: Callable[[str], None],
) -> Introduction:
    """Ask nodes by their RPC for all that joining their chain takes.

    `trust` is a height and its block's hash from somewhere else; without one that of the newest
    snapshot is taken, and `report` says so. `by_blocks` asks for no state sync.

    Raises
    ------
    JoiningError
        They are of different chains, or have different blocks.
    GenesisError
        Their genesis is not one that this version can run.
    InvalidNodeUrl, NodeUnreachable, RpcError
        One of them cannot be asked.
    """
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(RpcClient(url)) for url in urls]
        document = await _fetch_genesis(nodes)
        peers = ",".join([await _compose_peer(node) for node in nodes])
        state_sync = None
        if not by_blocks:
            state_sync = await _find_state_sync(nodes, trust, report)
    return Introduction(document=document, peers=peers, state_sync=state_sync)


async def _fetch_genesis(nodes: Sequence[RpcClient]) -> GenesisDocument:
    first, *others = [await node.genesis_document() for node in nodes]
    for node, other in zip(nodes[1:], others, strict=True):
        if other != first:
            raise JoiningError(
                f"{nodes[0].url} and {node.url} have different genesis documents: they are not "
                f"nodes of one chain"
            )
    return parse_genesis_document(first, f"the genesis of {nodes[0].url}")


async def _compose_peer(node: RpcClient) -> str:
    address = await node.peer_address()
    host = urlsplit(node.url).hostname or ""
    return f"{address.node_id}@{f'[{host}]' if ':' in host else host}:{address.port}"


async def _find_state_sync(
    nodes: Sequence[RpcClient],
    trust: tuple[int, bytes] | None,
    report: Callable[[str], None],
) -> StateSync | None:
    if trust is None:
        height = await _find_snapshot(nodes)
        if height is None:
            report(
                "None of the nodes has a snapshot yet: this one will execute all blocks from the "
                "first on."
            )
            return None
    else:
        height = trust[0]
    hashes = [(await node.block(height)).hash for node in nodes]
    for node, found in zip(nodes, hashes, strict=True):
        if found != hashes[0]:
            raise JoiningError(
                f"{nodes[0].url} and {node.url} have different blocks at height {height}: one of "
                f"them is on a fork. Ask somebody whom you trust for a hash, and give it by "
                f"--trust-height and --trust-hash"
            )
    if trust is None:
        names = " and ".join(node.url for node in nodes)
        report(
            f"Trusting {names} for the block at height {height}, {hashes[0].hex().upper()}: "
            f"compare it with somebody else's, or give your own by --trust-height and --trust-hash."
        )
    elif hashes[0] != trust[1]:
        raise JoiningError(
            f"{nodes[0].url} has block {hashes[0].hex().upper()} at height {height}, not "
            f"{trust[1].hex().upper()}: it is on another chain than the one that you trust"
        )
    return StateSync(
        servers=tuple(node.url for node in nodes), trust_height=height, trust_hash=hashes[0]
    )


async def _find_snapshot(nodes: Sequence[RpcClient]) -> int | None:
    """Height of the newest snapshot that any of the nodes has."""
    heights = [(await get_chain_status(node)).snapshot_height for node in nodes]
    return max((height for height in heights if height is not None), default=None)
