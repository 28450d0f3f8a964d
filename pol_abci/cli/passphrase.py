"""Where a key's passphrase comes from: a file, the environment, or the person at the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pol_abci.client.keys import AccountKey, KeyFile, PassphraseMissing
from pol_abci.client.private_files import KeyFileError, read_private_text
from pol_abci.client.sealing import PASSPHRASE_VARIABLE

passphrase_file_option = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Holds the key's passphrase, if it has one; else {PASSPHRASE_VARIABLE} is looked at in "
    f"the environment, and then you are asked.",
)


class UnusablePassphrase(KeyFileError):
    """A new passphrase that would not do what it is for."""


def load_key(path: Path, passphrase_file: Path | None) -> AccountKey:
    """Read an account's key, asking for its passphrase if it has one.

    Raises
    ------
    KeyFileError
        When it cannot be read, or nobody is there to be asked.
    """
    return AccountKey.load(path, lambda: get_passphrase(path, passphrase_file))


def find_passphrase(path: Path, passphrase_file: Path | None) -> str | None:
    """Return the passphrase of the key in `path`, tried on it; None where it has none.

    Raises
    ------
    KeyFileError
        When the key cannot be read with it, or nobody is there to be asked.
    """
    file = KeyFile.read(path)
    passphrase = get_passphrase(path, passphrase_file) if file.is_sealed else None
    file.unlock(lambda: passphrase or "")
    return passphrase


def get_passphrase(path: Path, passphrase_file: Path | None) -> str:
    """Return the passphrase of the key in `path`, from the first place that has one.

    Raises
    ------
    KeyFileError
        When there is none, and no terminal to ask at.
    """
    given = _read_given(passphrase_file)
    if given is not None:
        return given
    if not has_terminal():
        raise PassphraseMissing(
            f"{path} has a passphrase and there is no terminal to ask for it: "
            f"give --passphrase-file FILE, or {PASSPHRASE_VARIABLE} in the environment"
        )
    return _prompt(f"Passphrase of {path}")


def choose_passphrase(path: Path, passphrase_file: Path | None, *, environment: bool) -> str:
    """Return a new passphrase for the key in `path`; a person types it twice.

    `environment` is whether the variable counts.

    Raises
    ------
    KeyFileError
        When there is none, or an empty one.
    """
    given = _read_given(passphrase_file, environment=environment)
    if given is None:
        if not has_terminal():
            raise PassphraseMissing(
                "there is no terminal to type a passphrase at: give it in a file"
            )
        given = _prompt(f"New passphrase of {path}")
        if given != _prompt("The same again"):
            raise UnusablePassphrase("the two differ; nothing was changed")
    if not given:
        raise UnusablePassphrase("an empty passphrase keeps nobody out; nothing was changed")
    return given


def has_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _read_given(file: Path | None, *, environment: bool = True) -> str | None:
    if file is not None:
        return read_private_text(file, "passphrase").rstrip("\r\n")
    return os.environ.get(PASSPHRASE_VARIABLE) if environment else None


def _prompt(text: str) -> str:
    """Ask on stderr, so that what is piped on stays clean; nothing typed is shown."""
    answer = click.prompt(text, hide_input=True, err=True, default="", show_default=False)
    assert isinstance(answer, str)
    return answer
