"""The command line `pol-abci`: parse, call, print. One file a command."""

from pol_abci.cli.commands import main

__all__ = ["main"]
