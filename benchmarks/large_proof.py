"""A proof that carries 17 MB of weights, on its way between two nodes under the paper's scheme.

    python benchmarks/large_proof.py        # some minutes; two real CometBFTs on this machine

The model is the digits CNN, made so wide that it has as many values as ResNet18. The proof is given
to the node that validates nothing: so it passes through a RPC, a verifier and a mempool to the
other node, through a second verifier into a proposal, and back in the parts of a block.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from benchmarks.figures import Figure, main
from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.client.transactions import build_proof
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head, load_task
from pol_abci.node.binary import find_cometbft
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.init import create_home, join_chain
from pol_abci.node.layout import compute_node_id
from pol_abci.node.presets import Preset, load_preset
from pol_abci.rules.params import SCORE_UNIT, PaperParams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pol_abci.client.chain import ChainStatus
    from pol_abci.learning.task import Task
    from pol_abci.node.home import Home

CHANNELS = (64, 512, 847)
WEIGHTS_BYTES = 16_952_184
RPC_PORTS, P2P_PORTS = (28_657, 28_659), (28_656, 28_658)
POLL_S = 0.02
PATIENCE_S = 300.0


def make_preset() -> Preset:
    """The preset paper-digits with a wide model, and CometBFT's rates and times for its proofs."""
    preset = load_preset("paper-digits").with_target_interval(20_000)
    params = replace(
        preset.params,
        task=replace(preset.params.task, channels=CHANNELS),
        scheme=PaperParams(anchor=False, weights_bytes=WEIGHTS_BYTES),
    )
    config: dict[str, Any] = preset.config | {
        "p2p": preset.config["p2p"] | {"send_rate": 100_000_000, "recv_rate": 100_000_000},
        "consensus": preset.config["consensus"] | {"timeout_propose": "30s"},
    }
    return replace(preset, params=params, config=config)


def make_homes(folder: Path, cometbft: Path) -> tuple[Home, Home]:
    """A validator's home and that of a node that follows it."""
    preset = make_preset()
    with (
        mock.patch("pol_abci.node.init.load_preset", return_value=preset),
        mock.patch("pol_abci.node.init.find_preset", return_value=preset),
    ):
        first = create_home(
            folder / "first",
            cometbft=cometbft,
            preset=preset.name,
            chain_id="pol-large",
            report=say,
            rpc_port=RPC_PORTS[0],
            p2p_port=P2P_PORTS[0],
            difficulty_bits=1.0,
        )
        second = join_chain(
            folder / "second",
            cometbft=cometbft,
            document=read_genesis_document(first.genesis_file),
            report=say,
            peers=f"{compute_node_id(first.path)}@127.0.0.1:{P2P_PORTS[0]}",
            rpc_port=RPC_PORTS[1],
            p2p_port=P2P_PORTS[1],
        )
    return first, second


def say(text: str) -> None:
    """Tell what goes on, beside the figures."""
    print(text, file=sys.stderr)


def start(stack: ExitStack, home: Home, cometbft: Path) -> None:
    """Run an application and its CometBFT until the stack ends."""
    for command in (
        [sys.executable, "-m", "pol_abci.cli", "start", "--home", str(home.path)],
        [str(cometbft), "node", "--home", "cometbft"],
    ):
        log = stack.enter_context((home.path / f"{Path(command[0]).name}.log").open("wb"))
        process = subprocess.Popen(command, cwd=home.path, stdout=log, stderr=log)  # noqa: S603
        stack.callback(process.wait)
        stack.callback(process.kill)


def mine(task: Task, status: ChainStatus, home: Home) -> bytes:
    """A proof of a head that is still the first, with an accuracy that rises."""
    key = AccountKey.load(home.account_file)
    head = Head(status.generation, status.seed, task.initial_weights)
    prover = get_scheme(task.params).open_prover(task, head, key.address, itertools.count(1))
    while True:
        found = prover.find(lambda score: score >= 2 * SCORE_UNIT, lambda: None)
        verdict = found.verdict
        if verdict.correct_ticket > verdict.correct_head:
            return build_proof(key, "pol-large", found.make_claim(), seed=status.seed, stamp_bits=0)


async def wait_for(ask: Callable[[], Awaitable[bool]]) -> float:
    """Ask until it is so; the time then, in s."""
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        try:
            if await ask():
                return time.perf_counter()
        except (NodeUnreachable, RpcError):
            pass
        await asyncio.sleep(POLL_S)
    raise TimeoutError("it did not come")


async def travel(task: Task, homes: tuple[Home, Home]) -> tuple[int, dict[str, float]]:
    """Send a proof to the second node; its size, and the seconds until each point of its way."""
    async with RpcClient(homes[0].settings.rpc_url, timeout_s=60.0) as first:  # noqa: SIM117
        async with RpcClient(homes[1].settings.rpc_url, timeout_s=60.0) as second:

            async def has_begun() -> bool:
                return (await get_chain_status(second)).head_time_ms > 0

            async def is_kept_by(rpc: RpcClient) -> bool:
                status = await get_chain_status(rpc)
                return status.tickets.kept > 0 or status.generation > 0

            async def has_it(rpc: RpcClient) -> bool:
                return (await get_chain_status(rpc)).generation > 0

            await wait_for(has_begun)
            say("mining")
            raw = mine(task, await get_chain_status(second), homes[1])
            say(f"sending {len(raw):,} bytes")
            start_s = time.perf_counter()
            await second.broadcast_tx_sync(raw)
            points = {"answered by the RPC": time.perf_counter()}
            points["verified by the node it was sent to"] = await wait_for(
                lambda: is_kept_by(second)
            )
            points["verified by the validator"] = await wait_for(lambda: is_kept_by(first))
            points["in the validator's state"] = await wait_for(lambda: has_it(first))
            points["in the other node's state"] = await wait_for(lambda: has_it(second))
            return len(raw), {name: at - start_s for name, at in points.items()}


def measure() -> Iterator[Figure]:
    """Two nodes, one proof."""
    cometbft = find_cometbft(say)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        homes = make_homes(Path(folder), cometbft)
        genesis = homes[0].genesis
        task = load_task(genesis.params, genesis.weights_root, "pol-large")
        for home in homes:
            start(stack, home, cometbft)
        size, points = asyncio.run(travel(task, homes))
    for name, seconds in points.items():
        yield Figure(name=f"a proof of {size / 1e6:.1f} MB: {name}", value=f"{seconds:.1f} s")


if __name__ == "__main__":
    main(measure)
