"""`make fuzz INPUTS=1000000`: mutated inputs for everything that reads bytes from outside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.fuzz.bytes_targets import BYTES_TARGETS
from tests.fuzz.loop import Found, run_target
from tests.fuzz.node_targets import open_node_targets

if TYPE_CHECKING:
    from tests.fuzz.loop import Target

FAULT_FILE = Path("fuzz-fault.bin")


@click.command()
@click.option("--inputs", default=1_000_000, show_default=True, help="Over all targets.")
@click.option("--seed", default=1, show_default=True, help="The same seed, the same inputs.")
@click.option(
    "--repeat", nargs=2, metavar="TARGET FILE", help="Run one input that a fault has left."
)
def main(inputs: int, seed: int, repeat: tuple[str, str] | None) -> None:
    """Give mutated inputs to everything that reads bytes from outside.

    Ends with 1 at the first fault, whose input is left in a file.
    """
    with open_node_targets() as node_targets:
        targets = {target.name: target for target in (*BYTES_TARGETS, *node_targets)}
        if repeat is not None:
            name, file = repeat
            click.echo(targets[name].run(Path(file).read_bytes()))
            return
        try:
            total = fuzz(list(targets.values()), inputs, seed)
        except Found as found:
            FAULT_FILE.write_bytes(found.data)
            raise click.ClickException(
                f"{found}\nAgain: python -m tests.fuzz --repeat {found.target!r} {FAULT_FILE}"
            ) from found
    click.echo(f"{total} inputs, seed {seed}, no fault")


def fuzz(targets: list[Target], inputs: int, seed: int) -> int:
    """Give each target its share, print what came of it, and count the inputs."""
    click.echo(f"{'target':20}{'inputs':>9}{'accepted':>10}{'outcomes':>10}{'a second':>10}")
    whole = sum(target.share for target in targets)
    total = 0
    for target in targets:
        tally = run_target(target, math.ceil(inputs * target.share / whole), seed)
        total += tally.inputs
        click.echo(
            f"{target.name:20}{tally.inputs:9}{tally.accepted:10}{len(tally.outcomes):10}"
            f"{tally.inputs / tally.seconds:10.0f}"
        )
    return total


if __name__ == "__main__":
    main()
