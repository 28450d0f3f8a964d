"""`doctor`: looks at a machine and a home, and says of each thing what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pol_abci.cli.commands import DEFAULT_HOME, json_option, print_json
from pol_abci.node.doctor import Finding, examine
from pol_abci.node.layout import SETTINGS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

COLOURS = {"ok": "green", "warning": "yellow", "fault": "bold red"}
_WIDTH_OF_A_PIPE = 2_000  # one line to a finding, for grep


@click.command(epilog="Exit codes: 0 no fault, 1 a fault, or several, 2 wrong usage.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"A node's folder; {DEFAULT_HOME} where there is one, else the machine alone.",
)
@click.option(
    "--deep",
    "is_deep",
    is_flag=True,
    help="Compute the state's tree anew from every entry; the node must be stopped.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, home: Path | None, is_deep: bool, as_json: bool) -> None:
    """Look at this machine and a node's home, and say what to do.

    It computes the golden walk on each device, which must come out bit for bit, and looks at
    CometBFT, cores, memory, disk, clock, datasets, keys, ports and the store. Nothing is changed.
    With --json: a list of {check, verdict, finding, advice}; verdicts are ok, warning and fault.
    """
    if home is None and (DEFAULT_HOME / SETTINGS_FILE).exists():
        home = DEFAULT_HOME
    if home is None and is_deep:
        raise click.UsageError("--deep looks into a home: name it with --home")
    findings = examine(home, is_deep=is_deep)
    seen = list(findings) if as_json else _show(findings)
    if as_json:
        print_json([asdict(finding) for finding in seen])
    ctx.exit(1 if any(finding.verdict == "fault" for finding in seen) else 0)


def _show(findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it comes, and a count of them at the end."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_PIPE)
    seen = []
    for finding in findings:
        console.print(_draw(finding, separator="\n" if console.is_terminal else " "))
        seen.append(finding)
    counts = [(seen_as(seen, kind), kind) for kind in ("fault", "warning")]
    told = " and ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in counts if count)
    console.print(f"{told or 'Nothing is wrong'}; {len(seen)} things were looked at.")
    return seen


def seen_as(findings: list[Finding], verdict: str) -> int:
    """Count the findings of a verdict."""
    return sum(finding.verdict == verdict for finding in findings)


def _draw(finding: Finding, separator: str) -> Table:
    """Lay one finding out: verdict, check, what was found, and below it what to do."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for width in (7, 8):
        table.add_column(width=width, no_wrap=True)
    table.add_column(overflow="fold")
    said = Text(finding.finding)
    if finding.advice:
        said.append(f"{separator}> {finding.advice}", style="bold")
    table.add_row(Text(finding.verdict, COLOURS[finding.verdict]), finding.check, said)
    return table
