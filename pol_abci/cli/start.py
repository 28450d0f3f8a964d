"""`start`: the app alone, beside a CometBFT that someone else runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import uvloop

from pol_abci.app.retention import Retention
from pol_abci.app.run import AppSettings, run_app
from pol_abci.cli.commands import (
    EXIT_CODES_STOPPABLE,
    data_dir_option,
    device_option,
    home_option,
    metrics_option,
)
from pol_abci.cli.logs import configure_logs, log_format_option, log_level_option
from pol_abci.cli.stopping import exit_after, run_until_stopped
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import load_home

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=EXIT_CODES_STOPPABLE)
@home_option
@device_option
@data_dir_option
@metrics_option
@log_level_option
@log_format_option
def start(
    *,
    home: Path,
    device: str | None,
    data_dir: Path | None,
    metrics: str | None,
    log_level: str,
    log_format: str | None,
) -> None:
    """Run the app beside a CometBFT that you run yourself.

    Start it before or after `cometbft node --home HOME/cometbft`, whose working directory must be
    HOME: the socket between them is named relative to it. A CometBFT that loses its app exits;
    one that comes up first waits for it.
    """
    configure_logs(log_level, log_format)
    here = load_home(home)
    document = read_genesis_document(here.genesis_file)
    data_dir = here.settings.data_dir if data_dir is None else data_dir.absolute()
    # A unix socket's name has room for about 100 bytes, so that it must be a relative one.
    os.chdir(here.path)
    settings = AppSettings(
        chain_id=here.settings.chain_id,
        genesis=here.genesis,
        initial_height=document.initial_height,
        store_path=here.store_folder,
        listen=here.settings.listen,
        rpc_url=here.settings.rpc_url,
        threads=here.settings.threads,
        device=device or here.settings.device,
        data_dir=data_dir,
        metrics=metrics or here.settings.metrics,
        transport=here.read_transport(),
        snapshot_interval=here.settings.snapshot_interval,
        retention=Retention(
            keep_blocks=here.settings.keep_blocks, evidence_age_ms=document.evidence_age_ms
        ),
    )
    exit_after(run_until_stopped(run_app(settings), uvloop.run))
