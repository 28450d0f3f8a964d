"""How a miner is doing: JSON lines for programs, a sentence for `up`, and `mine`'s own picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pol_abci.cli.words import format_seconds
from pol_abci.client.keys import format_amount
from pol_abci.miner.status import MinerStatus, Odds
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from rich.console import RenderableType

PROGRESS_PAUSE_S = 30.0
"""Without a terminal progress is worth a line so often."""


def encode_status(status: MinerStatus) -> str:
    """Write a status as one line of JSON; the keys are the dataclass's fields."""
    return json.dumps(asdict(status))


def decode_status(line: str) -> MinerStatus:
    """Read what `encode_status` wrote; ValueError, KeyError or TypeError for anything else."""
    fields: dict[str, Any] = json.loads(line)
    odds = fields.pop("odds")
    return MinerStatus(**fields, odds=None if odds is None else Odds(**odds))


def describe_miner(status: MinerStatus) -> str:
    """Tell a miner's speed, best proof and earnings; what keeps it from mining comes first."""
    if status.generation is None:
        return status.note or status.connection
    if not status.is_connected:
        return status.connection
    return " · ".join(
        (
            f"{status.steps_per_second:,.0f} steps/s",
            describe_best(status),
            f"{status.blocks_won} won, {format_amount(Amount(status.coins_won))} coins",
        )
    )


def describe_best(status: MinerStatus) -> str:
    """Tell the best proof of this generation, and when its time comes."""
    if status.best_score_bits is None or status.best_good_in_s is None:
        return "no proof yet"
    when = (
        f"good in {format_seconds(1_000 * status.best_good_in_s)}"
        if status.best_good_in_s > 0
        else "good now"
    )
    return f"best {status.best_score_bits:.2f} bits, {when}"


def describe_odds(odds: Odds) -> str:
    """Tell a miner's chances, if the other miners stay as they are."""
    expected = "" if odds.expected_s is None else f", alone a proof in {odds.expected_s:.1f} s"
    return f"about {100 * odds.share:.0f}% of all steps{expected}"


def draw_miner(status: MinerStatus, uptime: str) -> RenderableType:
    """Draw `mine`'s picture for a terminal, a few lines."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    chain = status.chain_id or "not known yet"
    place = "" if status.generation is None else f", generation {status.generation}"
    facts.add_row("chain", f"{chain}{place}")
    facts.add_row("node", Text(status.connection, "" if status.is_connected else "yellow"))
    if status.difficulty_bits is not None:
        facts.add_row("difficulty", f"{status.difficulty_bits:.2f} bits now")
    facts.add_row("speed", f"{status.steps_per_second:,.0f} steps/s · {status.steps:,} steps done")
    facts.add_row("proof", describe_best(status))
    if status.odds is not None:
        facts.add_row("odds", describe_odds(status.odds))
    earned = f"{status.blocks_won} won, {format_amount(Amount(status.coins_won))} coins"
    if status.balance is not None:
        earned += f" · {format_amount(Amount(status.balance))} coins spendable"
    facts.add_row("earnings", Text(earned, "green"))
    facts.add_row("", Text(status.note, "dim"))
    facts.add_row("", Text(f"up {uptime} · Ctrl-C stops", "dim"))
    return facts


class MinerNarrator:
    """Turns statuses into rare plain lines, for a miner without a terminal."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._told_s: float | None = None

    def tell(self, status: MinerStatus, uptime_s: float) -> list[str]:
        """Return what is new: the connection, the note, and now and then the progress."""
        now = {sentence for sentence in (status.connection, status.note) if sentence}
        lines = sorted(now - self._told)
        self._told = now
        if self._told_s is None or uptime_s - self._told_s >= PROGRESS_PAUSE_S:
            self._told_s = uptime_s
            if status.is_connected and status.generation is not None:
                lines.append(f"generation {status.generation}: {describe_miner(status)}")
        return lines
