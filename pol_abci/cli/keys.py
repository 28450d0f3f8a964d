"""`keys`: make and show account keys, and set their passphrases.

A key is never overwritten, and its seed never printed.
"""

from __future__ import annotations

from pathlib import Path

import click

from pol_abci.cli.commands import EXIT_CODES, json_option, print_json
from pol_abci.cli.passphrase import choose_passphrase, load_key, passphrase_file_option
from pol_abci.client.keys import AccountKey, KeyFile, format_address

file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group(epilog=EXIT_CODES)
def keys() -> None:
    """Make and show account keys, and set their passphrases.

    An account is an ed25519 key. Whoever has its file can spend its coins, unless it has a
    passphrase that they don't know. Keep a copy: nothing brings a lost key back.
    """


@keys.command(epilog=EXIT_CODES)
@file_argument
@click.option("--passphrase", "is_sealed", is_flag=True, help="Seal the key with a passphrase.")
@passphrase_file_option
@json_option
def new(file: Path, *, is_sealed: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Write a new key to FILE and print its address.

    The file is readable by you alone, and an existing one is left alone. With --passphrase you
    are asked for one twice, or it comes from where the options below say. There is no way around a
    passphrase that is forgotten.
    """
    passphrase = None
    if is_sealed or passphrase_file is not None:
        passphrase = choose_passphrase(file, passphrase_file, environment=True)
    AccountKey.generate().save(file, passphrase)
    _print_key(file, as_json=as_json)


@keys.command(epilog=EXIT_CODES)
@file_argument
@json_option
def show(file: Path, *, as_json: bool) -> None:
    """Print the address and the public key of the key in FILE. No passphrase is needed."""
    _print_key(file, as_json=as_json)


@keys.command(epilog=EXIT_CODES)
@file_argument
@passphrase_file_option
@click.option(
    "--new-passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Holds the new passphrase; you are asked twice when left out.",
)
@click.option("--remove", is_flag=True, help="Take the passphrase away.")
@json_option
def passphrase(
    file: Path,
    *,
    passphrase_file: Path | None,
    new_passphrase_file: Path | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Give the key in FILE a passphrase, another one, or none.

    The file is replaced at once or not at all. Copies of it open with what they opened with.
    """
    if remove and new_passphrase_file is not None:
        raise click.UsageError("--remove leaves no passphrase: leave out --new-passphrase-file")
    key = load_key(file, passphrase_file)
    chosen = None
    if not remove:
        chosen = choose_passphrase(file, new_passphrase_file, environment=False)
    key.save(file, chosen, replace=True)
    _print_key(file, as_json=as_json)


def _print_key(file: Path, *, as_json: bool) -> None:
    key = KeyFile.read(file)
    address = format_address(key.address)
    if as_json:
        print_json(
            {
                "file": str(file),
                "address": address,
                "address_hex": key.address.hex(),
                "public_key": key.public_key.hex(),
                "has_passphrase": key.is_sealed,
            }
        )
        return
    click.echo(f"address     {address}")
    click.echo(f"public key  {key.public_key.hex()}")
    click.echo(f"passphrase  {'yes' if key.is_sealed else 'no'}")
    click.echo(f"file        {file}")
