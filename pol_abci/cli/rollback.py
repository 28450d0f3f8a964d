"""`rollback`: the app goes back by one block, beside `cometbft rollback`."""

from __future__ import annotations

import shlex
from contextlib import closing
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import EXIT_CODES, home_option
from pol_abci.cli.history import check_store
from pol_abci.node.home import load_home
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=EXIT_CODES)
@home_option
def rollback(*, home: Path) -> None:
    """Take a stopped app back by one block.

    For a node that alone came to another app hash than its chain, once the cause is mended: it
    then executes the block again. `cometbft rollback --home HOME/cometbft` belongs to it, before
    or after. Only one block can be taken back; a node that is further off, and has all blocks,
    executes its whole chain again when HOME/app is deleted.
    """
    here = load_home(home)
    check_store(here.store_folder)
    digest = compute_genesis_digest(here.genesis)
    store = Store.open(here.store_folder, chain_id=here.settings.chain_id, genesis_digest=digest)
    with closing(store):
        height = store.rollback()
    click.echo(f"The app is at height {height}. If you have not yet, also run:")
    click.echo(f"  cometbft rollback --home {shlex.quote(str(here.cometbft_folder))}")
