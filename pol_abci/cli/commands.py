"""The table of commands, and what all of them share: exit codes, faults in words, options.

A command's module is imported when the command is asked for, and heavy libraries inside the
commands that need them, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

import json
import signal
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import click

from pol_abci.rules.errors import PolError

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
EXIT_CODES = "Exit codes: 0 fine, 1 a fault, said in words, 2 wrong usage."
EXIT_CODES_STOPPABLE = (
    "Exit codes: 0 ended as asked (also by SIGTERM), 1 a fault, said in words, 2 wrong usage, "
    "130 stopped by Ctrl-C."
)
DEFAULT_HOME = Path("pol-home")

MODULES = {
    "init": "pol_abci.cli.init",
    "join": "pol_abci.cli.join",
    "up": "pol_abci.cli.up",
    "testnet": "pol_abci.cli.testnet",
    "status": "pol_abci.cli.status",
    "plot": "pol_abci.cli.plot",
    "mine": "pol_abci.cli.mine",
    "start": "pol_abci.cli.start",
    "dataset": "pol_abci.cli.dataset",
    "keys": "pol_abci.cli.keys",
    "transfer": "pol_abci.cli.transfer",
    "balance": "pol_abci.cli.balance",
    "history": "pol_abci.cli.account_history",
    "validator": "pol_abci.cli.validator",
    "replay": "pol_abci.cli.replay",
    "export": "pol_abci.cli.export",
    "backup": "pol_abci.cli.backup",
    "restore": "pol_abci.cli.restore",
    "rollback": "pol_abci.cli.rollback",
    "doctor": "pol_abci.cli.doctor",
    "version": "pol_abci.cli.version",
}
"""Command to module; the module holds a click command of the same name. Order is help's."""


class Fault(click.ClickException):
    """A PolError on its way to the user: one or two lines on stderr, exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `error: ...` without usage or traceback."""
        click.echo(f"error: {self.format_message()}", file=file, err=file is None)


class CommandTable(click.Group):
    """A group that imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the help page."""
        del ctx
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look a command up, or None where there is none of that name."""
        del ctx
        if cmd_name not in MODULES:
            return None
        command = getattr(import_module(MODULES[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a PolError becomes a sentence, Ctrl-C exit code 130.

        SIGTERM unwinds as Ctrl-C does, so that what is half made is undone: 143, until a command
        that runs on takes the signal over.
        """
        before = signal.signal(signal.SIGTERM, _end)
        try:
            return super().invoke(ctx)
        except PolError as fault:
            raise Fault(str(fault)) from fault
        except (KeyboardInterrupt, click.Abort):  # the latter at a question
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@click.group(
    cls=CommandTable,
    epilog=f"{EXIT_CODES} Commands that run until they are stopped end with 130 on Ctrl-C.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """Run a chain whose proof of work trains a neural network.

    `pol-abci up` does everything on one machine: it makes a home folder, starts CometBFT, the
    app and a miner, and shows what they do.
    """


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_HOME,
    show_default=True,
    help="The node's folder: configuration, keys, chain data and logs.",
)
metrics_option = click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve /metrics for Prometheus and /health there; nowhere when left out.",
)
device_option = click.option(
    "--device",
    metavar="NAME",
    help="What to train on, cpu, cuda, cuda:1 …, in place of what pol.toml says.",
)
torch_device_option = click.option(
    "--device",
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="What to compute on: cpu, cuda, cuda:1 …",
)
torch_threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1_024),
    default=1,
    show_default=True,
    help="Of torch; small models are quickest with one.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the dataset's files lie, if not in /usr/share/datasets or where pol.toml says.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: Any) -> None:
    """Print one JSON document on one line, keys in the order given."""
    click.echo(json.dumps(value))


def report(sentence: str) -> None:
    """Tell people on stderr what takes its time or is passed over."""
    click.echo(sentence, err=True)
