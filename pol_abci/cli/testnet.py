"""`testnet`: the homes of several validators, and all of them run in one terminal."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import (
    EXIT_CODES,
    EXIT_CODES_STOPPABLE,
    data_dir_option,
    json_option,
    print_json,
    report,
)
from pol_abci.cli.init import (
    DEFAULT_PRESET,
    chain_id_option,
    difficulty_option,
    preset_option,
    target_interval_option,
    to_ms,
)
from pol_abci.cli.logs import log_format_option, log_level_option
from pol_abci.cli.passphrase import find_passphrase, passphrase_file_option
from pol_abci.cli.progress import poll_and_note
from pol_abci.cli.screen import open_screen
from pol_abci.cli.stopping import exit_after, hold_signals, run_until_stopped
from pol_abci.cli.testnet_observer import NodeObserver, find_fork
from pol_abci.cli.testnet_view import TestnetNarrator, TestnetSnapshot, TestnetView
from pol_abci.client.rpc import RpcClient
from pol_abci.node.binary import find_cometbft
from pol_abci.node.children import compose_children
from pol_abci.node.presets import load_preset
from pol_abci.node.supervisor import Supervisor
from pol_abci.node.testnet import FIRST_PORT, create_testnet, load_testnet
from pol_abci.node.together import supervise_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pol_abci.node.home import Home

DEFAULT_VALIDATORS = 4
DEFAULT_MINERS = 3
MAX_VALIDATORS = 100
POLL_S = 0.5
RPC_TIMEOUT_S = 3.0

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("pol-testnet"),
    show_default=True,
    help="The folder that holds a home for each node.",
)


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@click.option(
    "--validators",
    type=click.IntRange(1, MAX_VALIDATORS),
    metavar="N",
    help=f"How many nodes; {DEFAULT_VALIDATORS}, or as many as hosts, when left out.",
)
@home_option
@preset_option
@chain_id_option
@target_interval_option
@difficulty_option
@data_dir_option
@click.option(
    "--hosts",
    metavar="A,B,…",
    help="For these machines, by name; without it all nodes are for this one.",
)
@click.option(
    "--first-port",
    type=click.IntRange(1, 65_535),
    default=FIRST_PORT,
    show_default=True,
    metavar="PORT",
    help="Of the first node of this machine; each further one has its ports ten higher.",
)
@json_option
@click.pass_context
def testnet(
    ctx: click.Context,
    *,
    validators: int | None,
    home: Path,
    preset: str | None,
    chain_id: str | None,
    target_interval_s: float | None,
    difficulty_bits: float | None,
    data_dir: Path | None,
    hosts: str | None,
    first_port: int,
    as_json: bool,
) -> None:
    """Make a new chain of several validators: a home for each. Nothing is ever overwritten.

    They share one genesis, have accounts of their own and equal parts of the share ring, and know
    each other as peers. `pol-abci testnet up` runs them, unless they are for several hosts.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_misplaced_options(ctx)
        return
    names = [] if hosts is None else hosts.split(",")
    if names and validators not in (None, len(names)):
        raise click.UsageError(f"--hosts names {len(names)} machines, --validators says otherwise")
    if names and ctx.get_parameter_source("first_port") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "--first-port is for nodes of one machine: leave it out with --hosts"
        )
    name = preset or DEFAULT_PRESET
    load_preset(name)  # a mistyped name is told before CometBFT is built for minutes
    cometbft = find_cometbft(report)
    chain = chain_id or f"{name}-{secrets.token_hex(3)}"
    with hold_signals():
        import pol_abci.node.init  # noqa: F401, PLC0415 (torch takes seconds to load, whole)
    folders = create_testnet(
        home,
        cometbft=cometbft,
        preset=name,
        chain_id=chain,
        report=report,
        validators=len(names) or validators or DEFAULT_VALIDATORS,
        first_port=first_port,
        hosts=names,
        data_dir=data_dir,
        difficulty_bits=difficulty_bits,
        target_interval_ms=to_ms(target_interval_s),
    )
    if as_json:
        print_json({"chain_id": chain, "homes": [str(folder) for folder in folders]})
        return
    count = "1 validator" if len(folders) == 1 else f"{len(folders)} validators of equal power"
    click.echo(f"chain       {chain}, {count}")
    for folder in folders:
        click.echo(f"home        {home / folder.name}")
    if names:
        click.echo("run it      copy each folder to its host; there: pol-abci up --home FOLDER")
    else:
        click.echo(f"run it      pol-abci testnet up --home {shlex.quote(str(home))}")


def _refuse_misplaced_options(ctx: click.Context) -> None:
    """Refuse options of `testnet` before a subcommand: they would be for nothing."""
    for name in ctx.params:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"write options after {ctx.invoked_subcommand}: pol-abci testnet "
                f"{ctx.invoked_subcommand} --help lists them"
            )


@testnet.command(epilog=EXIT_CODES_STOPPABLE)
@home_option
@click.option(
    "--miners",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"The first N nodes mine; {DEFAULT_MINERS}, or all where they are fewer, when left out.",
)
@click.option(
    "--generations",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop once all nodes have N new generations; without it, on Ctrl-C.",
)
@passphrase_file_option
@log_level_option
@log_format_option
def up(
    *,
    home: Path,
    miners: int | None,
    generations: int | None,
    passphrase_file: Path | None,
    log_level: str,
    log_format: str | None,
) -> None:
    """Run all nodes of a testnet on this machine, and watch them.

    Each node is what `pol-abci up` runs, with logs in its own folder; what ends is started again.
    """
    homes = load_testnet(home)
    if miners is not None and miners > len(homes):
        raise click.UsageError(f"--miners {miners}: there are {len(homes)} nodes, one miner each")
    mining = homes[: DEFAULT_MINERS if miners is None else miners]
    for each in homes:
        each.check_free()
    work = _run(
        homes,
        find_cometbft(report),
        str(home),
        passphrases=[find_passphrase(each.account_file, passphrase_file) for each in mining],
        generations=generations,
        log_options=("--log-level", log_level, "--log-format", log_format or "plain"),
    )
    received = run_until_stopped(work, asyncio.run)
    click.echo(f"Stopped cleanly. The chain is in {home.absolute()}")
    click.echo("To go on from here, run the same command again.")
    exit_after(received)


async def _run(
    homes: Sequence[Home],
    cometbft: Path,
    label: str,
    *,
    passphrases: Sequence[str | None],
    generations: int | None,
    log_options: tuple[str, ...],
) -> None:
    """Run all nodes until they have made their generations or this is cancelled.

    The first ones mine, as many as there are passphrases of their accounts.
    """
    nodes: list[_Node] = []
    async with AsyncExitStack() as stack:
        show = open_screen(stack, TestnetView, TestnetNarrator().tell)
        for number, home in enumerate(homes):
            rpc = await stack.enter_async_context(
                RpcClient(home.settings.rpc_url, timeout_s=RPC_TIMEOUT_S)
            )
            is_mining = number < len(passphrases)
            passphrase = passphrases[number] if is_mining else None
            nodes.append(
                _Node(home, rpc, cometbft, log_options, is_mining=is_mining, passphrase=passphrase)
            )
        await _watch(nodes, homes[0].settings.chain_id, label, generations, show)


class _Node:
    """One node: its supervisor, its RPC, and what is known of it."""

    def __init__(
        self,
        home: Home,
        rpc: RpcClient,
        cometbft: Path,
        log_options: tuple[str, ...],
        *,
        is_mining: bool,
        passphrase: str | None,
    ) -> None:
        children = compose_children(
            home,
            cometbft,
            on_miner_line=self._hear_miner if is_mining else None,
            log_options=log_options,
            passphrase=passphrase,
        )
        self.ready = asyncio.Event()
        self.supervisor = Supervisor(home.path, children)
        self.observer = NodeObserver(home.path.name, rpc, self.supervisor.children)

    def _hear_miner(self, line: str) -> None:
        self.observer.hear_miner(line)

    async def poll(self) -> None:
        """Ask the node again and again."""
        while True:
            await poll_and_note(self.observer, self.supervisor)
            if self.observer.is_ready:
                self.ready.set()
            await asyncio.sleep(POLL_S)


async def _watch(
    nodes: Sequence[_Node],
    chain_id: str,
    label: str,
    generations: int | None,
    show: Callable[[TestnetSnapshot], None],
) -> None:
    """Show the nodes until all have made their generations, or a process has failed for good."""
    start_s = time.monotonic()
    observers = [node.observer for node in nodes]
    goal: int | None = None

    def take_snapshot(*, is_stopping: bool = False) -> TestnetSnapshot:
        uptime_s = time.monotonic() - start_s
        return TestnetSnapshot(
            chain_id=chain_id,
            home=label,
            goal=goal,
            uptime_s=uptime_s,
            rows=tuple(observer.take_row(uptime_s) for observer in observers),
            fork=find_fork(observers),
            is_stopping=is_stopping,
        )

    at_once = max(1, os.cpu_count() or 1)
    running = asyncio.create_task(
        supervise_all([(node.supervisor, node.ready.wait) for node in nodes], at_once=at_once)
    )
    tasks = [running, *(asyncio.create_task(node.poll()) for node in nodes)]
    try:
        while True:
            show(take_snapshot())
            done, _ = await asyncio.wait(tasks, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            made = [node.observer.generation for node in nodes]
            known = [number for number in made if number is not None]
            if goal is None and generations is not None and known:
                goal = max(known) + generations
            if goal is not None and len(known) == len(nodes) and min(known) >= goal:
                return
    finally:
        show(take_snapshot(is_stopping=True))
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
