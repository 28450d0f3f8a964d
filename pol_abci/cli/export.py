"""`export`: any generation's model, for programs that know nothing of the chain."""

from __future__ import annotations

import functools
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import track

from pol_abci.cli.commands import (
    EXIT_CODES,
    data_dir_option,
    home_option,
    json_option,
    print_json,
    torch_device_option,
)
from pol_abci.cli.plot import load_history
from pol_abci.cli.replay import open_blocks
from pol_abci.cli.words import format_share
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import load_home
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pol_abci.audit.folder import ChainGenesis
    from pol_abci.rules.codec import GenerationRecord


class GenerationMissing(PolError):
    """A generation that the chain has not reached where it was read."""


@click.command(epilog=EXIT_CODES)
@click.option(
    "--generation", type=click.IntRange(min=0), metavar="N", help="The newest if left out."
)
@click.option(
    "--audit",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="An audit's folder to take it from, in place of --home; see `pol-abci replay`.",
)
@home_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("model.safetensors"),
    show_default=True,
    help="The file to write; its provenance goes beside it, with .json at the end.",
)
@data_dir_option
@torch_device_option
@json_option
def export(
    *,
    generation: int | None,
    audit: Path | None,
    home: Path,
    out: Path,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Write a generation's model as safetensors, and where it is from.

    Its weights are not taken from anywhere: every walk since the chain's first weights is redone,
    and each must end where the chain says. Under the paper's scheme each last step is, out of the
    blocks. The tensors have the layouts of torch.nn;
    examples/load_model.py loads them. An older file is overwritten.
    """
    chain, records = _read_audit(audit) if audit is not None else _read_home(home)
    newest = records[-1].generation if records else 0
    wanted = newest if generation is None else generation
    if wanted > newest:
        raise GenerationMissing(
            f"there is no generation {wanted} of {chain.chain_id} here yet: the newest is {newest}"
        )
    from pol_abci.audit.export import export_model  # noqa: PLC0415 (torch takes seconds to load)
    from pol_abci.audit.model import rebuild_generation  # noqa: PLC0415
    from pol_abci.learning.task import load_task  # noqa: PLC0415

    if audit is None:
        data_dir = data_dir or load_home(home).settings.data_dir
    task = load_task(
        chain.genesis.params, chain.genesis.weights_root, chain.chain_id, data_dir, device
    )
    console = Console(stderr=True)
    shown = track(
        [record for record in records if record.generation <= wanted],
        "walking again",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with ExitStack() as stack:
        get_proof = _open_proofs(stack, audit, home)
        exported = export_model(out, task, chain, rebuild_generation(task, chain, shown, get_proof))
    document = exported.document
    if as_json:
        print_json({"model": str(exported.model), **document})
        return
    accuracy = document["accuracy"]
    click.echo(
        f"{exported.model}: generation {wanted} of {chain.chain_id}, "
        f"weights root {document['weights_root']}"
    )
    click.echo(
        f"{exported.provenance}: {wanted} proofs of {document['steps']} steps, accuracy "
        f"{format_share(accuracy['correct'], accuracy['size'])} "
        f"({accuracy['correct']} of {accuracy['size']})"
    )


def _read_audit(path: Path) -> tuple[ChainGenesis, Sequence[GenerationRecord]]:
    from pol_abci.audit.folder import AuditFolder, read_chain  # noqa: PLC0415

    chain = read_chain(path)
    with closing(AuditFolder.open(path, chain)) as folder:
        return chain, folder.read_records()


def _read_home(home: Path) -> tuple[ChainGenesis, Sequence[GenerationRecord]]:
    """Read what a node remembers, whether or not it runs."""
    from pol_abci.audit.folder import ChainGenesis  # noqa: PLC0415

    here = load_home(home)
    document = read_genesis_document(here.genesis_file)
    chain = ChainGenesis(document.chain_id, document.initial_height, document.genesis)
    return chain, load_history(here).records


def _open_proofs(
    stack: ExitStack, audit: Path | None, home: Path
) -> Callable[[GenerationRecord], bytes]:
    """Say where transactions come from; a node's blocks are looked for when one is asked for."""
    from pol_abci.audit.folder import AuditFolder, read_chain  # noqa: PLC0415
    from pol_abci.client.proofs import find_proof  # noqa: PLC0415

    if audit is not None:
        folder = stack.enter_context(closing(AuditFolder.open(audit, read_chain(audit))))
        return lambda record: folder.read_proof(record.generation)
    source = functools.cache(lambda: open_blocks(stack, None, load_home(home)))
    return lambda record: find_proof(source().get_block(record.height).txs, record)
