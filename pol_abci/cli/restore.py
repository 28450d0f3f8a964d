"""`restore`: a home out of what `backup` wrote."""

from __future__ import annotations

from pathlib import Path

import click

from pol_abci.cli.commands import EXIT_CODES, home_option, report
from pol_abci.node.binary import find_cometbft


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@click.option(
    "--signs-after",
    type=click.IntRange(0, 2**62),
    metavar="HEIGHT",
    help="The validator signs nothing at this height or below.",
)
@click.option(
    "--new-keys", is_flag=True, help="Follow the chain with new keys; the old validator may go on."
)
def restore(*, file: Path, home: Path, signs_after: int | None, new_keys: bool) -> None:
    """Make a new home out of what `pol-abci backup` wrote to FILE.

    A validator that signs a height twice is barred for ever, and a backup doesn't know what was
    signed after it. So say which it is. If the old node is gone for good, take the newest height
    that any node of the chain shows, add ten, and give that as --signs-after: ten blocks are soon
    past. If it may still run, or be started again, or if this is only to try a backup: --new-keys.

    A validator without which two thirds of the power are missing cannot sit blocks out: the chain
    would wait for it at that height for ever. It gives the newest height itself, and runs the risk
    that it had just signed the next one. If no other node has a block that the backup lacks, 0 will
    do.
    """
    if new_keys == (signs_after is not None):
        raise click.UsageError("give one of --signs-after HEIGHT and --new-keys; see --help")
    from pol_abci.node.backup import restore_backup  # noqa: PLC0415 (zstd and tar, of two commands)

    here = restore_backup(file, home, signs_after=signs_after, cometbft=find_cometbft(report))
    click.echo(f"{here.path}: a home of {here.settings.chain_id}")
    if signs_after is None:
        click.echo("Its validator and its peer have new keys; the account is the old one.")
    else:
        click.echo(f"Its validator signs from height {signs_after + 1} on, or from where it was.")
