"""What `replay` shows: a bar on a terminal, a line a generation, what came out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pol_abci.cli.commands import print_json
from pol_abci.cli.words import format_proof, format_share
from pol_abci.client.keys import format_address
from pol_abci.rules.params import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.audit.checking import Difference
    from pol_abci.audit.folder import AuditFolder, ChainGenesis
    from pol_abci.audit.replay import Replay
    from pol_abci.rules.codec import GenerationRecord

SAME = "the same, bit for bit"


class ReplayView:
    """Lines for people, or JSON lines for programs, while an audit goes on up to `last`."""

    def __init__(self, chain: ChainGenesis, audit: Replay, last: int, *, as_json: bool) -> None:
        self._chain, self._audit, self._as_json = chain, audit, as_json
        console = Console()
        self.progress = Progress(
            TextColumn("height"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("generation {task.fields[generation]}  {task.fields[speed]:,.0f} steps/s"),
            TimeRemainingColumn(),
            console=console,
            disable=as_json or not console.is_terminal,
            transient=True,
        )
        self._start_s = time.monotonic()
        self._bar = self.progress.add_task(
            "", total=last, completed=audit.height, generation=audit.generation, speed=0.0
        )

    def begin(self, *, size: int) -> None:
        """Say what is believed, and where it begins."""
        audit, chain = self._audit, self._chain
        if self._as_json:
            return
        click.echo(f"chain {chain.chain_id}, genesis digest {chain.digest.hex()}")
        if audit.height:
            click.echo(
                f"going on after height {audit.height}, generation {audit.generation}, "
                f"recomputed before"
            )
        else:
            share = format_share(audit.count_correct(), size)
            click.echo(f"generation 0: accuracy {share}, from the chain's name alone")

    def tell(self, record: GenerationRecord | None) -> None:
        """Show a block that was executed, and the generation that it made."""
        audit = self._audit
        if record is not None:
            if self._as_json:
                print_json(_encode(record))
            else:
                self._print(format_proof(record))
        seconds = time.monotonic() - self._start_s
        self.progress.update(
            self._bar,
            completed=audit.height,
            generation=audit.generation,
            speed=audit.work.steps / seconds,
        )

    @property
    def _print(self) -> Callable[[str], None]:
        """Lines go above the bar, whole."""
        if self.progress.disable:
            return click.echo
        return lambda line: self.progress.console.print(line, soft_wrap=True, highlight=False)

    def tell_difference(self, difference: Difference) -> None:
        """Name the first difference."""
        if self._as_json:
            print_json(
                {
                    "same": False,
                    "height": difference.height,
                    "what": difference.what,
                    "chain": difference.chain,
                    "recomputed": difference.here,
                }
            )
        else:
            click.echo(f"different at {difference}")

    def end(self, folder: AuditFolder, seconds: float, *, is_proven: bool) -> None:
        """Sum up: nothing differs."""
        audit, work = self._audit, self._audit.work
        steps = sum(record.steps for record in folder.read_records())
        if self._as_json:
            print_json(
                {
                    "same": True,
                    "chain_id": self._chain.chain_id,
                    "genesis_digest": self._chain.digest.hex(),
                    "height": audit.height,
                    "generation": audit.generation,
                    "steps": steps,
                    "app_hash": audit.app_hash.hex(),
                    "last_result_is_proven": is_proven,
                    "this_run": {
                        "blocks": work.blocks,
                        "walks": work.walks,
                        "steps": work.steps,
                        "seconds": round(seconds, 3),
                    },
                    "audit": str(folder.path),
                }
            )
            return
        if not is_proven:
            click.echo(
                f"what block {audit.height} made stands in no header yet; it was executed, and "
                f"nothing tells whether it is the chain's"
            )
        click.echo(
            f"this run: {work.blocks} blocks, {work.walks} walks, {work.steps} steps in "
            f"{seconds:.1f} s; kept in {folder.path}"
        )
        click.echo(
            f"up to height {audit.height}: {audit.generation} generations of {steps} steps, "
            f"app hash {audit.app_hash.hex()}"
        )
        click.echo(SAME)


def _encode(record: GenerationRecord) -> dict[str, object]:
    return {
        "generation": record.generation,
        "height": record.height,
        "correct": record.correct_all,
        "size": record.size_all,
        "steps": record.steps,
        "score": record.score,
        "miner": format_address(Address(record.miner)),
        "weights_root": record.weights_root.hex(),
        "tx_hash": record.tx_hash.hex(),
    }
