"""`make soak KILLS=100 MINUTES=30`: chains under faults, at random, for as long as you like."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pol_abci.client.chain import get_chain_status
from pol_abci.client.rpc import RpcClient
from tests.e2e.faults import PARTS, Outcome, Victim, read_generations
from tests.e2e.flood import flood, make_bad_transactions, make_false_proofs
from tests.e2e.quick_home import (
    APP,
    find_child,
    make_quick_home,
    read_chain,
    read_memory_bytes,
    run_program,
    stop_program,
    strip_accuracy,
    wait_for_generation,
)
from tests.soak.network import soak_network
from tests.soak.table import format_table, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pol_abci.node.home import Home

CALM_S, FLOOD_S = 20.0, 40.0
SMALL_DISK_BYTES = 64 * 2**20
FLOODS = {"bad transactions": make_bad_transactions, "false proofs": make_false_proofs}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(["chain", "disk", "network"]))
@click.option("--kills", default=100, show_default=True, help="chain: kill -9, over 4 processes.")
@click.option("--minutes", default=30.0, show_default=True, help="chain, network: at least.")
@click.option("--seed", default=1, show_default=True, help="Of the order and the moments.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the homes, kept.")
def main(names: tuple[str, ...], kills: int, minutes: float, seed: int, keep: Path | None) -> None:
    """Put chains with a real CometBFT under every fault, and tell what became of them.

    `chain` is one node, `disk` one on a disk that fills up, `network` four validators; all of them
    when none is named. Ends with 0 when nothing was lost, doubled or changed, and with a traceback
    otherwise.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="pol-soak-"))
    if not names or "chain" in names:
        choose = random.Random(seed)
        asyncio.run(soak(folder / "home", choose, kills=kills, minutes=minutes))
    if not names or "disk" in names:
        asyncio.run(fill_a_disk(folder / "small"))
    if not names or "network" in names:
        choose = random.Random(seed)
        asyncio.run(soak_network(folder / "testnet", choose, minutes=minutes))
    if keep is None:
        shutil.rmtree(folder)


async def soak(path: Path, choose: random.Random, *, kills: int, minutes: float) -> None:
    """Kills, stops, failing writes and floods, then a replay of all that was decided."""
    home = make_quick_home(path)
    outcomes: dict[str, Outcome] = {}
    deadline = time.monotonic() + 60 * minutes
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=5.0) as rpc,
    ):
        await wait_for_generation(rpc, 1)
        victim = Victim(home, up, rpc, choose, outcomes)
        processes = [list(PARTS)[number % len(PARTS)] for number in range(kills)]
        choose.shuffle(processes)
        for number, process in enumerate(processes):
            await victim.kill(process)
            if number % 4 == 0:
                await victim.stop(choose.choice(list(PARTS)))
            if number % 10 == 0:
                await victim.refuse_writes()
            if (number + 1) % 10 == 0:
                click.echo(f"{number + 1} of {kills} kills")
        while time.monotonic() < deadline:
            await victim.stop(choose.choice(list(PARTS)))
        print_outcomes(outcomes)
        app = await find_child(up, APP)
        for name, make in FLOODS.items():
            await measure_flood(home, rpc, app, name, make)
        decided = await read_generations(rpc)
        await stop_program(up)
    click.echo(await compare_with_replay(home, decided))


def print_outcomes(outcomes: dict[str, Outcome]) -> None:
    """A line a fault."""
    rows = [
        [name, str(len(outcome.seconds)), *summarize(outcome.seconds), str(outcome.lost)]
        for name, outcome in sorted(outcomes.items())
    ]
    head = ["fault", "injected", "2nd generation, s: median", "most", "lost"]
    click.echo(format_table(head, rows))
    assert all(outcome.lost == 0 for outcome in outcomes.values())


async def measure_flood(
    home: Home, rpc: RpcClient, app: int, name: str, make: Callable[..., Callable[..., bytes]]
) -> None:
    """Blocks and generations a second in calm and in a flood, and what the app's memory did."""

    async def measure(seconds: float) -> tuple[float, float]:
        first, start = await get_chain_status(rpc), time.monotonic()
        await asyncio.sleep(seconds)
        last, end = await get_chain_status(rpc), time.monotonic()
        blocks, generations = last.height - first.height, last.generation - first.generation
        return blocks / (end - start), generations / (end - start)

    calm, memory = await measure(CALM_S), read_memory_bytes(app)
    async with flood(home.settings.rpc_url, make(home)) as running:
        wet = await measure(FLOOD_S)
    grown = (read_memory_bytes(app) - memory) / 2**20
    click.echo(
        f"flood of {name}: {running.sent / FLOOD_S:.0f} a second; blocks a second {calm[0]:.2f} "
        f"before, {wet[0]:.2f} in it; generations {calm[1]:.2f}, {wet[1]:.2f}; "
        f"the app grew by {grown:.0f} MiB"
    )
    assert wet[1] > 0, "no generation in a flood"


async def compare_with_replay(home: Home, decided: list[tuple[int, int, int, bytes, bytes]]) -> str:
    """Delete what the app knows and have CometBFT's blocks executed again."""
    app_hash, records = read_chain(home)
    assert strip_accuracy(records)[: len(decided)] == decided
    assert len({record.tx_hash for record in records}) == len(records)
    shutil.rmtree(home.store_folder)
    async with (
        run_program("up", "--home", home.path, "--no-mine") as again,
        RpcClient(home.settings.rpc_url, timeout_s=5.0) as rpc,
    ):
        await wait_for_generation(rpc, len(records))
        await stop_program(again)
    replayed_hash, replayed = read_chain(home)
    assert replayed_hash == app_hash
    assert strip_accuracy(replayed) == strip_accuracy(records)
    return f"{len(records)} generations, none lost or doubled; replayed: the same app hash"


async def fill_a_disk(path: Path) -> None:
    """A whole node on a disk that fills up: it ends in words, and goes on when there is room."""
    with mount_small_disk(path) as is_mounted:
        if not is_mounted:
            click.echo("a full disk: left out, since mounting one takes root")
            return
        home = make_quick_home(path / "home")
        filler = path / "filler"
        async with (
            run_program("up", "--home", home.path) as up,
            RpcClient(home.settings.rpc_url, timeout_s=5.0) as rpc,
        ):
            await wait_for_generation(rpc, 2)
            decided = await read_generations(rpc)
            fill(filler)
            assert await up.wait() == 1, up.lines
        click.echo("a full disk: up ended with 1, its last lines:")
        for line in up.lines[-4:]:
            click.echo(f"    {line}")
        assert not any("Traceback" in line for line in up.lines)
        filler.unlink()
        async with (
            run_program("up", "--home", home.path) as up,
            RpcClient(home.settings.rpc_url, timeout_s=5.0) as rpc,
        ):
            await wait_for_generation(rpc, len(decided) + 2)
            assert (await read_generations(rpc))[: len(decided)] == decided
            await stop_program(up)
        read_chain(home)
        click.echo("    with room again: it went on, nothing lost")


def fill(filler: Path) -> None:
    """Take all room that there is."""
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return


@contextmanager
def mount_small_disk(path: Path) -> Iterator[bool]:
    """A small file system at `path`, if this user may mount one."""
    path.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "pol-soak", str(path)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


if __name__ == "__main__":
    main()
