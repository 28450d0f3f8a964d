"""`backup`: a stopped node's home in one file."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pol_abci.cli.commands import EXIT_CODES, home_option
from pol_abci.node.home import load_home


@click.command(epilog=EXIT_CODES)
@home_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write, a .tar.zst; it must not exist.",
)
def backup(*, home: Path, out: Path) -> None:
    """Write a stopped node's home into one file.

    It holds all that the node needs to go on: settings, keys, genesis, blocks, and the app's
    state; no logs. A node that runs is refused, since its blocks change while they are read: stop
    it for the seconds that this takes. Who has the file has the account's coins and can sign as
    the validator.
    """
    from pol_abci.node.backup import write_backup  # noqa: PLC0415 (zstd and tar, of two commands)

    made = write_backup(load_home(home), out)
    click.echo(f"{out}: {made.chain_id} at height {made.height}, {made.size:,} bytes")
    click.echo("It holds private keys. What to do with it:")
    click.echo(f"  pol-abci restore {shlex.quote(str(out))} --home NEW --signs-after HEIGHT")
