"""What `testnet up` shows: a row a node, in a live table, or plain lines where is no terminal.

Pure, as `view` is: nothing here polls or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pol_abci.cli.plain import STANDSTILL_PAUSE_S
from pol_abci.cli.view import STYLES, ProcessState
from pol_abci.cli.words import format_duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

SHORT_HASH_BYTES = 4
UNKNOWN = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node as it answered last. What it has not told yet is None.

    `app_hash` is that of `height`. `steps_per_second` is its miner's, None where it has none.
    `trouble` is what keeps it from going on.
    """

    name: str
    height: int | None = None
    app_hash: bytes | None = None
    power: int | None = None
    generation: int | None = None
    peers: int | None = None
    has_miner: bool = False
    steps_per_second: float | None = None
    processes: tuple[ProcessState, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestnetSnapshot:
    """All that the picture shows. `fork` names a height at which app hashes differ, or is None."""

    __test__ = False  # no class of tests, whatever pytest makes of the name

    chain_id: str
    home: str
    goal: int | None = None
    uptime_s: float = 0.0
    rows: tuple[NodeRow, ...] = ()
    fork: str | None = None
    is_stopping: bool = False


@dataclass(frozen=True, slots=True)
class TestnetView:
    """The picture of a snapshot, as wide as the terminal."""

    __test__ = False

    snapshot: TestnetSnapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the room that the console has."""
        del console, options
        snapshot = self.snapshot
        goal = "" if snapshot.goal is None else f" · to generation {snapshot.goal}"
        header = f" · {len(snapshot.rows)} nodes · up {format_duration(snapshot.uptime_s)}{goal}"
        yield Group(
            Text.assemble((snapshot.chain_id, "bold"), (header, "dim")),
            Text(),
            _draw_nodes(snapshot.rows),
            Text(),
            *_draw_notices(snapshot),
            Text.assemble(
                ("Ctrl-C", "bold"),
                (f" stops all cleanly and keeps the chain · data in {snapshot.home}", "dim"),
                no_wrap=True,
                overflow="ellipsis",
            ),
        )


def _draw_nodes(rows: tuple[NodeRow, ...]) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("node", no_wrap=True)
    for name in ("height", "app hash", "power", "generation", "peers", "steps/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("processes", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        processes = Text(" ").join(
            Text(process.name, STYLES[process.health]) for process in row.processes
        )
        table.add_row(
            row.name,
            _format(row.height),
            UNKNOWN if row.app_hash is None else row.app_hash[:SHORT_HASH_BYTES].hex(),
            _format(row.power),
            _format(row.generation),
            _format(row.peers),
            _format_speed(row),
            processes,
        )
    return table


def _draw_notices(snapshot: TestnetSnapshot) -> list[Text]:
    """Draw what stands still: a line for each trouble, with the nodes that have it."""
    if snapshot.is_stopping:
        return [Text("Stopping cleanly …", "yellow"), Text()]
    lines = [Text(words, "yellow") for words in _tell_troubles(snapshot)]
    if snapshot.fork is not None:
        lines.insert(0, Text(snapshot.fork, "bold red"))
    return [*lines, Text()] if lines else []


def _tell_troubles(snapshot: TestnetSnapshot) -> list[str]:
    """Say each trouble once: all nodes of a chain that stands still give the same reason."""
    nodes: dict[str, list[str]] = {}
    for row in snapshot.rows:
        if row.trouble is not None:
            nodes.setdefault(row.trouble, []).append(row.name)
    return [
        f"{'all nodes' if len(names) == len(snapshot.rows) else ', '.join(names)}: {trouble}"
        for trouble, names in nodes.items()
    ]


def _format(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _format_speed(row: NodeRow) -> str:
    if not row.has_miner:
        return "-"
    return UNKNOWN if row.steps_per_second is None else f"{row.steps_per_second:,.0f}"


class TestnetNarrator:
    """Turns a series of snapshots into lines: each says only what is new since the last."""

    __test__ = False

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], str] = {}
        self._powers: dict[str, int] = {}
        self._generation: int | None = None
        self._troubles_told: tuple[float, list[str]] | None = None
        self._told_fork: str | None = None
        self._is_stopping = False

    def tell(self, snapshot: TestnetSnapshot) -> list[str]:
        """Return the lines for what has changed."""
        if snapshot.is_stopping:
            lines = [] if self._is_stopping else ["stopping cleanly"]
            self._is_stopping = True
            return self._tell_generation(snapshot) + lines
        return [
            *self._tell_nodes(snapshot),
            *self._tell_generation(snapshot),
            *self._tell_faults(snapshot),
        ]

    def _tell_nodes(self, snapshot: TestnetSnapshot) -> list[str]:
        lines = []
        for row in snapshot.rows:
            for process in row.processes:
                place = (row.name, process.name)
                if self._states.get(place) != process.state:
                    lines.append(f"{row.name} {process.name}: {process.state}")
                self._states[place] = process.state
            if row.power is not None:
                before = self._powers.get(row.name)
                if before not in (None, row.power):
                    lines.append(f"{row.name}: voting power {before} -> {row.power}")
                self._powers[row.name] = row.power
        return lines

    def _tell_generation(self, snapshot: TestnetSnapshot) -> list[str]:
        known = [row.generation for row in snapshot.rows if row.generation is not None]
        if not known or max(known) == self._generation:
            return []
        self._generation = max(known)
        nodes = ", ".join(
            f"{row.name} {_format(row.height)}"
            for row in snapshot.rows
            if row.generation is not None
        )
        return [f"generation {self._generation}: heights {nodes}"]

    def _tell_faults(self, snapshot: TestnetSnapshot) -> list[str]:
        lines = []
        if snapshot.fork is not None and snapshot.fork != self._told_fork:
            self._told_fork = snapshot.fork
            lines.append(snapshot.fork)
        troubles = _tell_troubles(snapshot)
        told = self._troubles_told
        if not troubles:
            self._troubles_told = None
        elif told is None or snapshot.uptime_s - told[0] >= STANDSTILL_PAUSE_S:
            self._troubles_told = (snapshot.uptime_s, troubles)
            lines += [f"standing still: {trouble}" for trouble in troubles]
        return lines
