"""Four validators and three miners under every fault of `tests.network.faults`, at random."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tests.e2e.quick_home import read_memory_bytes
from tests.network.faults import PROCESSES, VALIDATORS, besiege
from tests.soak.table import format_table, summarize

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.network.faults import Recoveries, Siege
    from tests.network.network import Network, Node

MINERS = (0, 1, 2)
SHORTEST_S, LONGEST_S = 1.0, 8.0
"""How long nodes stand still or are parted."""
RECOVERY_S = 30.0
"""From a fault's end to the chain's next block, at most."""
REPORT_S = 60.0
MEASURED = ("app", "verifier")


async def soak_network(path: Path, choose: random.Random, *, minutes: float) -> None:
    """Inject faults for so long, and at least each once; tell what became of it."""
    async with besiege(path, choose, miners=MINERS) as siege:
        before = read_memory(siege.network)
        deadline = time.monotonic() + 60 * minutes
        reported = time.monotonic()
        faults = list_faults(siege)
        is_first = True
        while is_first or time.monotonic() < deadline:
            choose.shuffle(faults)
            for fault in faults:
                if not is_first and time.monotonic() > deadline:
                    break
                await fault()
                if time.monotonic() - reported > REPORT_S:
                    reported = time.monotonic()
                    injected = sum(len(each.all_s) for each in siege.recoveries.values())
                    click.echo(f"{injected} faults, {siege.network.checked} blocks")
            is_first = False
        await siege.wait_whole()
        after = read_memory(siege.network)
    print_recoveries(siege.recoveries)
    print_memory(before, after)
    click.echo(
        f"{siege.network.checked} blocks, one app hash each on {VALIDATORS} nodes; "
        f"{len(siege.payments.committed)} payments reported committed, each in its block, once; "
        f"all coins counted"
    )
    slow = [name for name, each in siege.recoveries.items() if max(each.block_s) > RECOVERY_S]
    assert not slow, f"the chain took more than {RECOVERY_S:.0f} s to go on after: {slow}"


def list_faults(siege: Siege) -> list[Callable[[], Awaitable[None]]]:
    """All faults, each for a node or nodes of its own choice."""
    choose, nodes = siege.choose, siege.network.nodes

    def draw_node() -> Node:
        return choose.choice(nodes)

    def draw_seconds() -> float:
        return choose.uniform(SHORTEST_S, LONGEST_S)

    def draw_nodes(count: int) -> list[int]:
        return choose.sample(range(VALIDATORS), count)

    def kill(process: str) -> Callable[[], Awaitable[None]]:
        those = [nodes[number] for number in MINERS] if process == "miner" else nodes
        return lambda: siege.kill(choose.choice(those), process)

    def part(count: int, *, is_cut: bool) -> Callable[[], Awaitable[None]]:
        return lambda: siege.part(draw_nodes(count), draw_seconds(), is_cut=is_cut)

    return [
        *map(kill, PROCESSES),
        *(part(count, is_cut=is_cut) for count in (1, 2) for is_cut in (False, True)),
        lambda: siege.kill_mid_walk(draw_node()),
        lambda: siege.stop_verifier(draw_node(), draw_seconds()),
        lambda: siege.stop_node(draw_node(), draw_seconds()),
        lambda: siege.restart(draw_node()),
        lambda: siege.refuse_writes(draw_node()),
        lambda: siege.damage_store(draw_node()),
        lambda: siege.slow_network(draw_seconds()),
    ]


def read_memory(network: Network) -> dict[str, tuple[int, ...]]:
    """What app and verifier of each node hold, in bytes."""
    return {
        node.home.path.name: tuple(read_memory_bytes(node.get_pid(name)) for name in MEASURED)
        for node in network.nodes
    }


def print_recoveries(recoveries: dict[str, Recoveries]) -> None:
    """A line a fault."""
    click.echo(
        "Seconds from a fault's end to the next block, the next generation, and until all nodes\n"
        "have a new generation: median and most."
    )
    head = ["fault", "injected", "block", "most", "generation", "most", "all", "most", "lost"]
    rows = [
        [
            name,
            str(len(each.all_s)),
            *summarize(each.block_s),
            *summarize(each.generation_s),
            *summarize(each.all_s),
            str(each.lost),
        ]
        for name, each in sorted(recoveries.items())
    ]
    click.echo(format_table(head, rows))


def print_memory(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> None:
    """A line a node."""
    click.echo("MiB held at the beginning and at the end, by processes that may be newer:")
    head = ["node", *(word for name in MEASURED for word in (name, "end"))]
    rows = [
        [
            name,
            *(
                f"{each / 2**20:.0f}"
                for pair in zip(before[name], after[name], strict=True)
                for each in pair
            ),
        ]
        for name in before
    ]
    click.echo(format_table(head, rows))
