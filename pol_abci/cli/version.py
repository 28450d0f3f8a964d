"""`version`: what is installed here, for bug reports and scripts."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from pol_abci import __version__
from pol_abci.cli.commands import EXIT_CODES, json_option, print_json, report
from pol_abci.node.binary import WrongCometBFT, get_release, locate_cometbft
from pol_abci.rules.params import ARITHMETIC_VERSION, PROTOCOL_VERSION

LIBRARIES = ("torch", "lmdb", "numpy", "protobuf", "pynacl")
"""What results or files depend on."""


@click.command(epilog=EXIT_CODES)
@json_option
def version(as_json: bool) -> None:
    """Print the versions of everything here.

    Nothing is built or downloaded: CometBFT is looked for where `up` would look first.
    """
    try:
        cometbft = locate_cometbft(report)
    except WrongCometBFT as wrong:  # the other versions are still worth telling
        report(f"passed over: {wrong}")
        cometbft = None
    found: dict[str, str | int | None] = {
        "pol_abci": __version__,
        "protocol": PROTOCOL_VERSION,
        "arithmetic": ARITHMETIC_VERSION,
        "cometbft_wanted": get_release().tag,
        "cometbft": None if cometbft is None else str(cometbft),
        "python": platform.python_version(),
        **{library: metadata.version(library) for library in LIBRARIES},
    }
    if as_json:
        print_json(found)
        return
    found["cometbft"] = found["cometbft"] or "none found here"
    for name, value in found.items():
        click.echo(f"{name.replace('_', '-'):16} {value}")
