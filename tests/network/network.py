"""Several validators of one quick chain on this machine, each node's processes in the test's hands.

    async with run_network(tmp_path, validators=4, miners=(0,)) as network:
        await network.wait_for_generation(3)
        await network.nodes[3].stop()

Each node has what `up` starts, under the same supervisor: what is killed comes back, what is
stopped stays away until it is started. When the network ends it is held against itself: one app
hash a height, every coin accounted for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from pol_abci.cli.testnet_observer import NodeObserver, find_fork
from pol_abci.client.chain import get_chain_status
from pol_abci.client.holdings import get_standing
from pol_abci.client.keys import KeyFile
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.node.binary import find_cometbft
from pol_abci.node.children import compose_children
from pol_abci.node.cometbft_setup import change_config
from pol_abci.node.home import Home, load_home
from pol_abci.node.layout import get_node_key_file
from pol_abci.node.supervisor import Supervisor
from pol_abci.node.testnet import create_testnet
from pol_abci.rules.codec import Account
from tests.e2e.quick_home import (
    PATIENCE_S,
    VERIFIER,
    Answer,
    find_process,
    get_free_port,
    make_quick_preset,
    move_ports,
    read_chain,
    wait_for,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from pol_abci.client.answers import Block, NodeStatus
    from pol_abci.client.chain import ChainStatus
    from pol_abci.client.holdings import Standing
    from pol_abci.node.supervisor import ChildCommand
    from pol_abci.rules.params import Address, Params
    from tests.network.relay import Relays

REPOSITORY = str(Path(__file__).parents[2])
PROGRAM = "pol_abci.cli"
POLL_S = 0.2
ENDED_BY_A_BUG = "the process ends by a bug"
AT_ONCE = 2
"""Nodes that start at the same time: each loads torch."""


@dataclass(slots=True)
class Node:
    """One node: its home, an RPC client of its own, and its processes while it runs.

    `program` is the module that stands for `pol-abci` in its processes.
    """

    home: Home
    rpc: RpcClient
    is_mining: bool
    program: str = PROGRAM
    supervisor: Supervisor | None = None

    @property
    def address(self) -> Address:
        """Of its account."""
        return KeyFile.read(self.home.account_file).address

    async def start(self, patience_s: float = PATIENCE_S) -> None:
        """Start its processes, and wait until CometBFT answers, having replayed its blocks."""
        assert self.supervisor is None, "it runs"
        children = compose_children(
            self.home,
            find_cometbft(print),
            on_miner_line=(lambda _: None) if self.is_mining else None,
        )
        self.supervisor = Supervisor(self.home.path, tuple(map(self._put_program, children)))
        await self.supervisor.__aenter__()
        await self.get_node_status(patience_s)

    async def wait_caught_up(self) -> None:
        """Wait until it takes part in consensus."""

        async def ask() -> bool | None:
            return None if (await self.rpc.status()).catching_up else True

        await wait_for(ask)

    async def stop(self) -> None:
        """End its processes as an operator does."""
        supervisor, self.supervisor = self.supervisor, None
        if supervisor is not None:
            await supervisor.__aexit__(None, None, None)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of its processes: "app", "cometbft", "miner" or "verifier"."""
        os.kill(self.get_pid(name), number)

    async def kill(self, name: str) -> None:
        """kill -9 one of its processes; its supervisor, or the app, starts it again."""
        before = self.get_pid(name)
        self.signal(name, signal.SIGKILL)
        await wait_until(lambda: self._find_pid(name) not in (None, before))

    def get_pid(self, name: str) -> int:
        """The process of this name, which must run."""
        pid = self._find_pid(name)
        assert pid is not None, f"{name} does not run"
        return pid

    def has(self, name: str) -> bool:
        """Whether a process of this name runs."""
        return self._find_pid(name) is not None

    async def get_status(self) -> ChainStatus | None:
        """What its application says of the chain, None while it does not answer."""
        return await answered(get_chain_status(self.rpc))

    async def get_node_status(self, patience_s: float = PATIENCE_S) -> NodeStatus:
        """What its CometBFT says of itself, as soon as it answers."""
        return await wait_for(lambda: answered(self.rpc.status()), patience_s)

    async def get_block(self, height: int) -> Block:
        """A block that it has, as soon as it answers."""
        return await wait_for(lambda: answered(self.rpc.block(height)))

    async def get_account(self, address: Address) -> Account:
        """An account, by this node, with all that waits in its mempool."""
        answer = await self.rpc.abci_query("/account", address)
        return Account.decode(answer.value)

    async def get_standing(self, address: Address) -> Standing:
        """How an account's validator stands, by this node."""
        return await get_standing(self.rpc, address)

    def _put_program(self, child: ChildCommand) -> ChildCommand:
        arguments = tuple(self.program if each == PROGRAM else each for each in child.arguments)
        return replace(
            child, arguments=arguments, environment=child.environment | {"PYTHONPATH": REPOSITORY}
        )

    def _find_pid(self, name: str) -> int | None:
        if self.supervisor is None:
            return None
        if name == "verifier":
            app = self.supervisor.children["app"].pid
            return None if app is None else find_process(app, VERIFIER)
        return self.supervisor.children[name].pid


async def answered(asking: Awaitable[Answer]) -> Answer | None:
    """Return an answer, or None from a node that is away."""
    try:
        return await asking
    except (NodeUnreachable, RpcError):
        return None


@dataclass(slots=True)
class Network:
    """All nodes, and what has been seen of their chain.

    `observers` hear what the applications say. `checked` heights were held against each other,
    `tx_heights` are where their transactions are, by hash.
    """

    nodes: list[Node]
    observers: list[NodeObserver] = field(default_factory=list)
    checked: int = 0
    tx_heights: dict[bytes, int] = field(default_factory=dict)

    @property
    def running(self) -> list[Node]:
        """Nodes that are not stopped."""
        return [node for node in self.nodes if node.supervisor is not None]

    async def start(self) -> None:
        """Start all nodes that do not run, a few at a time."""
        starting = asyncio.Semaphore(AT_ONCE)

        async def start(node: Node) -> None:
            async with starting:
                await node.start()

        waiting = [node for node in self.nodes if node.supervisor is None]
        await asyncio.gather(*map(start, waiting))

    async def stop(self) -> None:
        """Stop all nodes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def wait_for_status(
        self, is_so: Callable[[ChainStatus], bool], nodes: Sequence[Node] | None = None
    ) -> list[ChainStatus]:
        """Wait until it is so on every node that runs, or on these; their status."""

        async def ask(node: Node) -> ChainStatus:
            async def ask_once() -> ChainStatus | None:
                status = await node.get_status()
                return status if status is not None and is_so(status) else None

            return await wait_for(ask_once)

        return list(await asyncio.gather(*map(ask, nodes or self.running)))

    async def wait_for_height(self, height: int) -> None:
        """Until every running node has committed this height."""
        await self.wait_for_status(lambda status: status.height >= height)

    async def wait_for_generation(self, generation: int) -> None:
        """Until every running node has this generation."""
        await self.wait_for_status(lambda status: status.generation >= generation)

    async def assert_one_app_hash_per_height(self) -> None:
        """Hold all heights of all running nodes, from the last time on, against each other.

        The app hash after a height is in the next one's header, what became of the transactions
        too, and a block's hash covers its header. No transaction is in two blocks.
        """
        heights = [(await node.get_node_status()).latest_height for node in self.running]
        for height in range(self.checked + 1, min(heights) + 1):
            blocks = await asyncio.gather(*(node.get_block(height) for node in self.running))
            told = [(block.header.app_hash.hex(), block.hash.hex()) for block in blocks]
            assert len(set(told)) == 1, f"app hash and hash of block {height} differ: {told}"
            for raw in blocks[0].txs:
                earlier = self.tx_heights.setdefault(hashlib.sha256(raw).digest(), height)
                assert earlier == height, f"a transaction is in blocks {earlier} and {height}"
            self.checked = height
        fork = find_fork(self.observers)
        assert fork is None, fork

    def assert_supply(self) -> None:
        """Count every coin in each stopped node's store, all of whose hashes are computed anew.

        Each node has also held its supply against each block: where coins were made or lost, its
        application has ended by a bug, and said so.
        """
        for node in self.nodes:
            log = node.home.path / "logs" / "app.log"
            assert not log.exists() or ENDED_BY_A_BUG not in log.read_text(), log
            if node.supervisor is None and node.home.store_folder.exists():
                read_chain(node.home)

    async def watch(self) -> None:
        """Note heights and app hashes that the nodes' applications tell, until cancelled."""
        self.observers = [NodeObserver(node.home.path.name, node.rpc, {}) for node in self.nodes]
        while True:
            await asyncio.gather(*(observer.poll() for observer in self.observers))
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def run_network(
    path: Path,
    *,
    validators: int,
    miners: Sequence[int] = (0,),
    change: Callable[[Params], Params] = lambda params: params,
    difficulty_bits: float = 6.0,
    relays: Relays | None = None,
    programs: Mapping[int, str] | None = None,
) -> AsyncIterator[Network]:
    """Make and start a network; stop it in the end, and hold it against itself.

    With `relays` its nodes know each other by these alone. `programs` are the modules of nodes
    that run something else than `pol-abci`.
    """
    homes = make_network_homes(path, validators, change=change, difficulty_bits=difficulty_bits)
    nodes = [
        Node(
            home,
            RpcClient(home.settings.rpc_url, timeout_s=5.0),
            number in miners,
            (programs or {}).get(number, PROGRAM),
        )
        for number, home in enumerate(homes)
    ]
    network = Network(nodes)
    if relays is not None:
        await relays.start(homes)
    watching = asyncio.create_task(network.watch())
    try:
        await network.start()
        yield network
        await network.assert_one_app_hash_per_height()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await network.stop()
        for node in network.nodes:
            await node.rpc.close()
        if relays is not None:
            await relays.close()
    network.assert_supply()


def make_network_homes(
    path: Path,
    validators: int,
    *,
    change: Callable[[Params], Params] = lambda params: params,
    difficulty_bits: float = 6.0,
) -> tuple[Home, ...]:
    """Homes of validators of a quick chain, on ports that nobody listens on now."""
    preset = make_quick_preset("digits", change)
    ports = [(get_free_port(), get_free_port()) for _ in range(validators)]
    with (
        mock.patch("pol_abci.node.init.load_preset", return_value=preset),
        mock.patch("pol_abci.node.testnet.choose_ports", return_value=ports),
    ):
        folders = create_testnet(
            path,
            cometbft=find_cometbft(print),
            preset="digits",
            chain_id="pol-e2e",
            report=print,
            validators=validators,
            difficulty_bits=difficulty_bits,
        )
    return tuple(map(load_home, folders))


def make_twin(node: Node, path: Path) -> Node:
    """Copy a stopped node, keys and all, as nobody should; the copy has ports of its own.

    The copy waits a millisecond for a proposal, and then votes for none where the other votes for
    it: two that see the same thing at the same time would sign the same.
    """
    assert node.supervisor is None, "its files change while it runs"
    shutil.copytree(node.home.path, path, ignore=shutil.ignore_patterns("app.sock", "logs"))
    get_node_key_file(path).unlink()  # CometBFT makes another
    home = move_ports(load_home(path))
    change_config(home.path, {"consensus": {"timeout_propose": "1ms"}})
    return Node(home, RpcClient(home.settings.rpc_url, timeout_s=5.0), is_mining=False)
