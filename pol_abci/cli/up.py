"""`up`: everything of a node on one machine, with a live picture of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pol_abci.cli.apart import check_device_apart, init_apart
from pol_abci.cli.commands import (
    EXIT_CODES_STOPPABLE,
    data_dir_option,
    device_option,
    home_option,
    report,
)
from pol_abci.cli.history import EmptyChain
from pol_abci.cli.init import (
    DEFAULT_PRESET,
    chain_id_option,
    p2p_port_option,
    preset_option,
    rpc_port_option,
    target_interval_option,
)
from pol_abci.cli.logs import log_format_option, log_level_option
from pol_abci.cli.observer import Observer
from pol_abci.cli.passphrase import find_passphrase, passphrase_file_option
from pol_abci.cli.plain import Narrator
from pol_abci.cli.plot import FIGURE_NAME, load_history, write_figure
from pol_abci.cli.progress import poll_and_note
from pol_abci.cli.screen import open_screen
from pol_abci.cli.stopping import exit_after, run_until_stopped
from pol_abci.cli.view import LiveView
from pol_abci.client.rpc import RpcClient
from pol_abci.node.binary import find_cometbft
from pol_abci.node.children import compose_children
from pol_abci.node.home import Home, load_home
from pol_abci.node.layout import SETTINGS_FILE
from pol_abci.node.presets import load_preset
from pol_abci.node.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.cli.view import Snapshot

POLL_S = 0.5
RPC_TIMEOUT_S = 3.0


@click.command(epilog=EXIT_CODES_STOPPABLE)
@home_option
@click.option(
    "--generations",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N new generations, counted from this start; without it, on Ctrl-C.",
)
@click.option("--mine/--no-mine", "is_mining", default=True, help="Mine on this machine too.")
@device_option
@data_dir_option
@passphrase_file_option
@preset_option
@chain_id_option
@target_interval_option
@rpc_port_option
@p2p_port_option
@log_level_option
@log_format_option
@click.pass_context
def up(
    ctx: click.Context,
    *,
    home: Path,
    generations: int | None,
    is_mining: bool,
    device: str | None,
    data_dir: Path | None,
    passphrase_file: Path | None,
    preset: str | None,
    chain_id: str | None,
    target_interval_s: float | None,
    rpc_port: int,
    p2p_port: int,
    log_level: str,
    log_format: str | None,
) -> None:
    """Run CometBFT, the app and a miner together, and watch them.

    A home that does not exist is made first, as `pol-abci init` would; one that exists goes on
    from where it was. At the end the figure of the chain so far is left in the home.
    """
    if (home / SETTINGS_FILE).exists():
        _refuse_settings_of_new_homes(ctx)
        cometbft = find_cometbft(report)
    else:
        load_preset(preset or DEFAULT_PRESET)  # a mistyped name is told at once
        cometbft = find_cometbft(report)
        options = {"--preset": preset, "--chain-id": chain_id, "--device": device}
        options |= {"--target-interval": str(target_interval_s) if target_interval_s else None}
        options |= {"--data-dir": str(data_dir) if data_dir else None}
        options |= {"--rpc-port": str(rpc_port), "--p2p-port": str(p2p_port)}
        init_apart(home, *(f"{name}={value}" for name, value in options.items() if value))
    here = load_home(home)
    if device is not None:
        here = replace(here, settings=replace(here.settings, device=device))
    if data_dir is not None:
        here = replace(here, settings=replace(here.settings, data_dir=data_dir.absolute()))
    check_device_apart(here.settings.device)
    here.check_free()
    passphrase = find_passphrase(here.account_file, passphrase_file) if is_mining else None
    log_options = ("--log-level", log_level, "--log-format", log_format or "plain")
    work = _run(
        here,
        cometbft,
        str(home),
        generations=generations,
        is_mining=is_mining,
        log_options=log_options,
        passphrase=passphrase,
    )
    received = run_until_stopped(work, asyncio.run)
    click.echo(f"Stopped cleanly. The chain is in {here.path}")
    click.echo("To go on from here, run the same command again.")
    with suppress(EmptyChain):  # stopped before the first generation
        path = here.path / FIGURE_NAME
        click.echo(f"{path}: {write_figure(load_history(here), path)}")
    exit_after(received)


def _refuse_settings_of_new_homes(ctx: click.Context) -> None:
    """Refuse options that would seem to change a chain that exists."""
    for name in ("preset", "chain_id", "target_interval_s", "rpc_port", "p2p_port"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = name.removesuffix("_s").replace("_", "-")
            raise click.UsageError(
                f"--{flag} is for a new home, and this one exists: leave it "
                f"out, or choose another folder with --home"
            )


async def _run(
    here: Home,
    cometbft: Path,
    label: str,
    *,
    generations: int | None,
    is_mining: bool,
    log_options: tuple[str, ...],
    passphrase: str | None,
) -> None:
    """Run the node until it has made its generations or is cancelled."""
    observer: Observer | None = None

    def hear_miner(line: str) -> None:
        if observer is not None:
            observer.hear_miner(line)

    children = compose_children(
        here,
        cometbft,
        on_miner_line=hear_miner if is_mining else None,
        log_options=log_options,
        passphrase=passphrase,
    )
    async with AsyncExitStack() as stack:
        show = open_screen(stack, LiveView, Narrator().tell)
        rpc = await stack.enter_async_context(
            RpcClient(here.settings.rpc_url, timeout_s=RPC_TIMEOUT_S)
        )
        supervisor = await stack.enter_async_context(Supervisor(here.path, children))
        observer = Observer(
            rpc,
            supervisor.children,
            chain_id=here.settings.chain_id,
            home=label,
            generations=generations,
        )
        await watch(supervisor, observer, show)


async def watch(
    supervisor: Supervisor, observer: Observer, show: Callable[[Snapshot], None]
) -> None:
    """Show the node until it has made its generations, or a process has failed for good."""
    start_s = time.monotonic()
    failed = asyncio.create_task(supervisor.wait_failed())
    polling = asyncio.create_task(_poll(supervisor, observer))
    try:
        while not observer.is_done:
            show(observer.take_snapshot(time.monotonic() - start_s, is_stopping=False))
            done, _ = await asyncio.wait(
                {failed, polling}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
    finally:
        show(observer.take_snapshot(time.monotonic() - start_s, is_stopping=True))
        failed.cancel()
        polling.cancel()
        await asyncio.gather(failed, polling, return_exceptions=True)


async def _poll(supervisor: Supervisor, observer: Observer) -> None:
    """Ask the node again and again."""
    while not observer.is_done:
        await poll_and_note(observer, supervisor)
        await asyncio.sleep(POLL_S)
