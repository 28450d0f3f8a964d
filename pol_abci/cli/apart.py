"""What needs PyTorch, in a process of its own: once loaded by a command that runs on, it stays."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path


def init_apart(home: Path, *options: str) -> None:
    """Make a home as `pol-abci init` does; its sentences, a fault's too, go to stderr.

    When this process is to end meanwhile, the other one is ended first, and undoes what it made.

    Raises
    ------
    click.exceptions.Exit
        With the exit code of an `init` that failed; it has said why.
    """
    process = subprocess.Popen(  # noqa: S603 (this program)
        [sys.executable, "-m", "pol_abci.cli", "init", "--home", str(home), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,  # a terminal's Ctrl-C reaches this process alone, which passes on one
    )
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        while process.poll() is None:
            with suppress(KeyboardInterrupt, SystemExit):  # impatience ends no clean-up
                process.wait()
        raise
    if code:
        raise click.exceptions.Exit(code)


def check_device_apart(device: str) -> None:
    """Look whether PyTorch can compute on a device; that it cannot goes to stderr, in words.

    Raises
    ------
    click.exceptions.Exit
        When it cannot.
    """
    if device == "cpu":
        return
    command = [sys.executable, "-m", "pol_abci.learning.exact.machine", device]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 (this program)
    if code:
        raise click.exceptions.Exit(code)
