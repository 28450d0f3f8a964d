"""`plot`: Figure 1 of the paper, drawn from a chain's own data."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import EXIT_CODES, home_option
from pol_abci.cli.history import (
    History,
    decode_history,
    encode_history,
    fetch_history,
    read_history,
)
from pol_abci.node.home import load_home
from pol_abci.rules.errors import PolError
from pol_abci.store.errors import StoreLocked

if TYPE_CHECKING:
    from pol_abci.node.home import Home

FIGURE_NAME = "figure1.png"


class FigureNotWritten(PolError):
    """A figure, or its data, that has no place on this disk."""


@click.command(epilog=EXIT_CODES)
@click.option("--node", metavar="URL", help="A running node's RPC, in place of --home.")
@home_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The PNG to write; {FIGURE_NAME} in the home, else here, when left out.",
)
@click.option(
    "--data",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the data there too, as JSON.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that --data wrote, in place of --home.",
)
def plot(
    *, node: str | None, home: Path, output: Path | None, data: Path | None, source: Path | None
) -> None:
    """Draw accuracy and block interval as the chain grows.

    The data is the chain's own: read from the home's store when its node is stopped, else asked
    of the running node. An older figure is overwritten.
    """
    if node is not None and source is not None:
        raise click.UsageError("--node and --from name two places to take the data from: give one")
    path = output or Path(FIGURE_NAME)
    if source is not None:
        history = decode_history(source.read_text(encoding="utf-8", errors="replace"))
    elif node is not None:
        history = asyncio.run(fetch_history(node))
    else:
        history = load_history(load_home(home))
        path = output or home / FIGURE_NAME
    if data is not None:
        try:
            data.write_text(encode_history(history), encoding="utf-8")
        except OSError as error:
            raise FigureNotWritten(f"cannot write {data}: {error.strerror}") from error
    click.echo(f"{path}: {write_figure(history, path)}")


def load_history(home: Home) -> History:
    """Read a home's history, whether or not its node runs."""
    try:
        return read_history(home.store_folder, home.settings.chain_id, home.genesis)
    except StoreLocked:
        return asyncio.run(fetch_history(home.settings.rpc_url))


def write_figure(history: History, path: Path) -> str:
    """Draw the figure and return its caption."""
    from pol_abci.cli.figure import describe_history, draw_figure  # noqa: PLC0415 (a slow import)

    try:
        draw_figure(history, path)
    except OSError as error:
        raise FigureNotWritten(f"cannot write {path}: {error.strerror}") from error
    return describe_history(history)
