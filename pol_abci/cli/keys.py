"""`keys`: make and show account keys. A key is never overwritten, and its seed never printed."""

from __future__ import annotations

from pathlib import Path

import click

from pol_abci.cli.commands import EXIT_CODES, json_option, print_json
from pol_abci.client.keys import AccountKey, format_address

file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group(epilog=EXIT_CODES)
def keys() -> None:
    """Make and show account keys.

    An account is an ed25519 key. Whoever has its file can spend its coins: keep a copy.
    """


@keys.command(epilog=EXIT_CODES)
@file_argument
@json_option
def new(file: Path, as_json: bool) -> None:
    """Write a new key to FILE, readable by you alone, and print its address.

    An existing file is left alone.
    """
    key = AccountKey.generate()
    key.save(file)
    _print_key(key, file, as_json)


@keys.command(epilog=EXIT_CODES)
@file_argument
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print the address and the public key of the key in FILE."""
    _print_key(AccountKey.load(file), file, as_json)


def _print_key(key: AccountKey, file: Path, as_json: bool) -> None:
    address = format_address(key.address)
    if as_json:
        print_json(
            {
                "file": str(file),
                "address": address,
                "address_hex": key.address.hex(),
                "public_key": key.public_key.hex(),
            }
        )
        return
    click.echo(f"address     {address}")
    click.echo(f"public key  {key.public_key.hex()}")
    click.echo(f"file        {file}")
