"""`version`: what is installed here, for bug reports and scripts."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import click

from pol_abci import __version__
from pol_abci.cli.commands import EXIT_CODES, json_option, print_json
from pol_abci.node.binary import (
    COMETBFT_VERSION,
    ENVIRONMENT_VARIABLE,
    WrongCometBFT,
    check_cometbft,
    get_cache_folder,
)
from pol_abci.rules.params import ARITHMETIC_VERSION, PROTOCOL_VERSION

LIBRARIES = ("torch", "lmdb", "numpy", "protobuf", "pynacl")
"""What results or files depend on."""


@click.command(epilog=EXIT_CODES)
@json_option
def version(as_json: bool) -> None:
    """Print the versions of everything here.

    Nothing is built or downloaded: CometBFT is looked for where `up` would look first.
    """
    cometbft = _look_up_cometbft()
    found: dict[str, str | int | None] = {
        "pol_abci": __version__,
        "protocol": PROTOCOL_VERSION,
        "arithmetic": ARITHMETIC_VERSION,
        "cometbft_wanted": COMETBFT_VERSION,
        "cometbft": None if cometbft is None else str(cometbft),
        "python": platform.python_version(),
        **{library: metadata.version(library) for library in LIBRARIES},
    }
    if as_json:
        print_json(found)
        return
    found["cometbft"] = found["cometbft"] or "not found; `pol-abci up` builds it"
    for name, value in found.items():
        click.echo(f"{name.replace('_', '-'):16} {value}")


def _look_up_cometbft() -> Path | None:
    """Look for the right CometBFT where `up` would, building nothing."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    on_path = shutil.which("cometbft")
    built = sorted((get_cache_folder() / "bin").glob("cometbft-*"))
    for candidate in [named] if named else [on_path, *built]:
        if candidate is None:
            continue
        try:
            check_cometbft(Path(candidate))
        except WrongCometBFT as wrong:
            click.echo(f"passed over: {wrong}", err=True)
        else:
            return Path(candidate)
    return None
