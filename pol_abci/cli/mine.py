"""`mine`: search for proofs, on any machine that reaches a node."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live

from pol_abci.cli.commands import (
    EXIT_CODES_STOPPABLE,
    data_dir_option,
    json_option,
    metrics_option,
    torch_device_option,
    torch_threads_option,
)
from pol_abci.cli.logs import configure_logs, log_format_option, log_level_option
from pol_abci.cli.miner_view import MinerNarrator, draw_miner, encode_status
from pol_abci.cli.passphrase import load_key, passphrase_file_option
from pol_abci.cli.stopping import exit_after, hold_signals, run_until_stopped
from pol_abci.cli.words import format_duration
from pol_abci.client.rpc import parse_node_url
from pol_abci.node.home import RPC_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.miner.status import MinerStatus


@click.command(epilog=EXIT_CODES_STOPPABLE)
@click.option(
    "--node",
    metavar="URL",
    default=f"http://127.0.0.1:{RPC_PORT}",
    show_default=True,
    help="The RPC of the node to follow and to send proofs to.",
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The key of the account that earns; see `pol-abci keys new`.",
)
@passphrase_file_option
@data_dir_option
@torch_device_option
@torch_threads_option
@metrics_option
@log_level_option
@log_format_option
@json_option
def mine(
    *,
    node: str,
    key: Path,
    passphrase_file: Path | None,
    data_dir: Path | None,
    device: str,
    threads: int,
    metrics: str | None,
    log_level: str,
    log_format: str | None,
    as_json: bool,
) -> None:
    """Search for proofs and send them to a node.

    The miner begins with the head's weights, which it downloads with proofs, and follows the
    chain by redoing each winning walk. It waits for a node that is away. With --json it prints a
    line of JSON twice a second.
    """
    configure_logs(log_level, log_format)
    account, url = load_key(key, passphrase_file), parse_node_url(node)
    with hold_signals():
        from pol_abci.miner.miner import (  # noqa: PLC0415 (torch takes seconds to load)
            MinerSettings,
            run_miner,
        )

    settings = MinerSettings(
        node_url=url,
        key=account,
        data_dir=data_dir,
        device=device,
        threads=threads,
        metrics=metrics,
    )
    with ExitStack() as stack:
        show = _choose_report(stack, as_json=as_json)
        received = run_until_stopped(run_miner(settings, show), asyncio.run)
    exit_after(received)


def _choose_report(stack: ExitStack, *, as_json: bool) -> Callable[[MinerStatus], None]:
    """Choose how a miner's progress is shown: JSON lines, a live picture or plain lines."""
    if as_json:
        return lambda status: click.echo(encode_status(status))
    start_s = time.monotonic()
    console = Console()
    if console.is_terminal:
        live = stack.enter_context(Live(console=console, auto_refresh=False))
        return lambda status: live.update(
            draw_miner(status, format_duration(time.monotonic() - start_s)), refresh=True
        )
    narrator = MinerNarrator()

    def show(status: MinerStatus) -> None:
        for line in narrator.tell(status, time.monotonic() - start_s):
            click.echo(line)

    return show
