"""`replay`: recompute a chain from its genesis out of a node's blocks."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import (
    EXIT_CODES,
    data_dir_option,
    home_option,
    json_option,
    report,
    torch_device_option,
    torch_threads_option,
)
from pol_abci.cli.node_choice import NodeChoice, node_option
from pol_abci.cli.replay_view import ReplayView
from pol_abci.node.binary import find_cometbft
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import check_chain_id, load_home
from pol_abci.node.occupancy import HomeInUse, PortInUse
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.errors import StoreLocked
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pol_abci.audit.folder import ChainGenesis
    from pol_abci.audit.replay import Replay
    from pol_abci.audit.source import BlockSource
    from pol_abci.node.home import Home

AUDIT_FOLDER = "audit"
EXIT_DIFFERENT = 1


class NothingToReplay(PolError):
    """A node that has no block that the audit lacks, or not those that it needs."""


@click.command(
    epilog=f"{EXIT_CODES} A difference is exit code 1, the first one is the last line; Ctrl-C is "
    f"130, and the same command goes on from there."
)
@node_option
@home_option
@click.option(
    "--genesis",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The genesis to believe; with --node asked of the node when left out.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where the audit is kept; {AUDIT_FOLDER} in the home, or {AUDIT_FOLDER}-CHAIN here with "
    f"--node, when left out.",
)
@click.option(
    "--until-height", type=click.IntRange(min=1), metavar="N", help="The last block to execute."
)
@data_dir_option
@torch_device_option
@torch_threads_option
@json_option
def replay(
    *,
    node: str | None,
    home: Path,
    genesis: Path | None,
    out: Path | None,
    until_height: int | None,
    data_dir: Path | None,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Recompute a chain from a node's blocks, every walk and weight.

    Blocks come from a running node, or from the store of a stopped one. Each header is held
    against the blocks before it, as recomputed here; of the chain itself only its genesis is
    believed. The last line says "the same, bit for bit", or the first difference. What was
    recomputed is kept: the same command goes on from there, and `pol-abci export` has any
    generation's model from it.
    """
    import torch  # noqa: PLC0415 (takes seconds to load)

    from pol_abci.audit.checking import Difference  # noqa: PLC0415
    from pol_abci.audit.folder import AuditFolder  # noqa: PLC0415
    from pol_abci.audit.replay import Replay  # noqa: PLC0415
    from pol_abci.learning.golden import check_golden_walk  # noqa: PLC0415
    from pol_abci.learning.task import load_task  # noqa: PLC0415

    torch.set_num_threads(threads)
    start_s = time.monotonic()
    with ExitStack() as stack:
        here = load_home(home) if node is None else None
        if here is not None:
            data_dir = data_dir or here.settings.data_dir
        source = open_blocks(stack, node, here)
        chain = _choose_chain(source, here, genesis)
        if here is None:
            check_chain_id(chain.chain_id)  # the node's own word, and part of a path
        if out is None:
            out = Path(f"{AUDIT_FOLDER}-{chain.chain_id}") if here is None else home / AUDIT_FOLDER
        folder = stack.enter_context(closing(AuditFolder.open(out, chain)))
        check_golden_walk(device)  # a machine that errs would be told as a chain that does
        task = load_task(
            chain.genesis.params, chain.genesis.weights_root, chain.chain_id, data_dir, device
        )
        audit = Replay(folder, task)
        last = _choose_last(source, audit, until_height)
        view = ReplayView(chain, audit, last, as_json=as_json)
        view.begin(size=len(task.test))
        try:
            with view.progress:
                for block in source.iterate_blocks(audit.next_height, last):
                    view.tell(audit.execute(block))
            is_proven = _check_end(source, audit, here)
        except Difference as difference:
            view.tell_difference(difference)
            raise click.exceptions.Exit(EXIT_DIFFERENT) from None
        view.end(folder, time.monotonic() - start_s, is_proven=is_proven)


def open_blocks(stack: ExitStack, node: str | None, home: Home | None) -> BlockSource:
    """Connect to a running node, or have the blocks of a stopped one served."""
    from pol_abci.audit.source import open_source, serve_in_thread  # noqa: PLC0415
    from pol_abci.node.inspect import serve_blocks  # noqa: PLC0415

    if home is None:
        assert node is not None
        return stack.enter_context(open_source(node))
    try:
        home.check_free()
    except (HomeInUse, PortInUse):  # it runs, under `up` or by hand
        settings = home.settings
        source = stack.enter_context(open_source(settings.rpc_url))
        choice = NodeChoice(settings.rpc_url, home.path, settings.chain_id)
        choice.check(source.get_chain_id())
        return source
    url = stack.enter_context(serve_in_thread(serve_blocks(home, find_cometbft(report))))
    return stack.enter_context(open_source(url))


def _choose_chain(source: BlockSource, home: Home | None, genesis: Path | None) -> ChainGenesis:
    """Choose the genesis to believe: a file's, the home's, or what the node says."""
    from pol_abci.audit.folder import ChainGenesis  # noqa: PLC0415

    path = home.genesis_file if genesis is None and home is not None else genesis
    if path is None:
        return source.get_genesis()
    document = read_genesis_document(path)
    return ChainGenesis(document.chain_id, document.initial_height, document.genesis)


def _choose_last(source: BlockSource, audit: Replay, until_height: int | None) -> int:
    """Choose the last block to execute: the node's newest, or the one that was asked for."""
    newest = source.get_last_height()
    if newest < audit.height:
        raise NothingToReplay(
            f"the node has blocks up to height {newest}, the audit has executed {audit.height}: "
            f"another chain, or a node that has yet to catch up"
        )
    if until_height is None:
        return newest
    if until_height > newest:
        raise NothingToReplay(f"the node has no block {until_height} yet: its newest is {newest}")
    return until_height


def _check_end(source: BlockSource, audit: Replay, home: Home | None) -> bool:
    """Hold the last executed block against what follows it; whether something did."""
    if audit.height == 0:
        return True
    if source.get_last_height() > audit.height:
        audit.check_next(source.get_block(audit.height + 1))
        return True
    app_hash = source.find_app_hash(audit.height)
    if app_hash is None and home is not None:
        app_hash = _read_app_hash(home, audit.height)
    audit.check_last(source.get_commit(audit.height), app_hash)
    return app_hash is not None


def _read_app_hash(home: Home, height: int) -> bytes | None:
    """App hash in a stopped node's own store, if it is at that height."""
    if not home.store_folder.exists():
        return None
    try:
        store = Store.open(
            home.store_folder,
            chain_id=home.settings.chain_id,
            genesis_digest=compute_genesis_digest(home.genesis),
        )
    except StoreLocked:
        return None
    with closing(store):
        return store.app_hash if store.height == height else None
