"""What `up` shows: a Snapshot of the node, and the live terminal picture of it.

Pure: nothing here polls, sleeps or reads a clock. The picture fills whatever terminal it gets;
80x24 shows everything, more room gives a taller chart and more proofs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Group
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pol_abci.cli.chart import draw_bar, draw_columns
from pol_abci.cli.describe import describe_difficulty, describe_interval
from pol_abci.cli.words import format_bits, format_duration, format_seconds, format_share
from pol_abci.client.keys import format_address
from pol_abci.rules.params import Address

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from pol_abci.client.chain import Accuracy
    from pol_abci.rules.codec import GenerationRecord

FIXED_LINES = 14
"""Lines that are neither chart nor proofs."""
NOTICE_LINES = 2
WIDE = 110
"""Columns from which whole addresses fit."""
NARROW = 72
"""Columns below which the bars beside the intervals are left out."""
SHORT_ADDRESS = 8
BAR_WIDTH = 7
BAR_INTERVALS = 3
"""Target intervals that fill an interval's bar."""
LABELLED_CHART = 5
"""Lines from which a chart has room for a label in the middle."""
Health = Literal["good", "waiting", "bad"]
STYLES: dict[Health, str] = {"good": "green", "waiting": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One supervised process, in a word or two, and how well that is."""

    name: str
    state: str
    health: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the picture shows. Difficulties in 1/65,536 bit; `records` oldest first.

    Values that only a reachable app can tell are None until it has told them once.
    """

    chain_id: str
    home: str
    goal: int | None = None  # the generation at which `up` stops
    generation: int | None = None
    height: int | None = None
    accuracy: Accuracy | None = None
    difficulty_now: int | None = None
    difficulty_head: int | None = None
    target_interval_ms: int | None = None
    since_head_ms: int | None = None
    records: tuple[GenerationRecord, ...] = ()
    miner: str = "not started yet"
    verifier: str = "not started yet"
    standstill: str | None = None
    uptime_s: float = 0.0
    processes: tuple[ProcessState, ...] = ()
    is_stopping: bool = False


def split_height(height: int) -> tuple[int, int]:
    """Compute the chart's and the proofs' lines (without heading) in a picture of `height`."""
    rest = max(height - FIXED_LINES, 4)
    chart = min(max(rest // 2, 2), 12)
    return chart, rest - chart


@dataclass(frozen=True, slots=True)
class LiveView:
    """The picture of a snapshot, as high and wide as the terminal."""

    snapshot: Snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the room that the console has."""
        chart_height, proof_count = split_height(options.height or console.height)
        width = options.max_width
        snapshot = self.snapshot
        yield Group(
            _draw_header(snapshot),
            Rule(style="dim"),
            _draw_headline(snapshot),
            *_draw_chart(snapshot, width, chart_height),
            Text(),
            _draw_facts(snapshot),
            Text(),
            _draw_proofs(snapshot, width, proof_count),
            *_draw_notice(snapshot, console, width),
            _draw_hint(snapshot),
        )


def _draw_header(snapshot: Snapshot) -> Table:
    header = Table.grid(expand=True)
    header.add_column(no_wrap=True, overflow="ellipsis")
    header.add_column(no_wrap=True, justify="right")
    height = "" if snapshot.height is None else f"height {snapshot.height}  "
    header.add_row(
        Text.assemble(("Proof of Learning", "bold"), "  ", (snapshot.chain_id, "cyan")),
        Text(f"{height}up {format_duration(snapshot.uptime_s)}", "dim"),
    )
    return header


def _draw_headline(snapshot: Snapshot) -> Table:
    headline = Table.grid(expand=True)
    headline.add_column(no_wrap=True)
    headline.add_column(no_wrap=True, justify="right")
    generation = Text("waiting for the chain", "yellow")
    if snapshot.generation is not None:
        generation = Text.assemble("generation ", (str(snapshot.generation), "bold cyan"))
        if snapshot.goal is not None:
            generation.append(f" of {snapshot.goal}", "dim")
    accuracy = Text("accuracy not known yet", "dim")
    if snapshot.accuracy is not None:
        measured = snapshot.accuracy
        accuracy = Text.assemble(
            "accuracy ",
            (format_share(measured.correct, measured.size), "bold green"),
            (f"  {measured.correct} of {measured.size}, generation {measured.generation}", "dim"),
        )
    headline.add_row(generation, accuracy)
    return headline


def _draw_chart(snapshot: Snapshot, width: int, height: int) -> list[Text]:
    shares = [
        record.correct_all / record.size_all for record in snapshot.records if record.has_accuracy
    ]
    labels = {0: "100% ┤", height - 1: "  0% ┤"}
    if height >= LABELLED_CHART:
        labels[height // 2] = " 50% ┤"
    above = " " * (width - 7)
    texts = []
    for row, line in enumerate(draw_columns(shares, width - 7, height)):
        text = Text.assemble((labels.get(row, "     │"), "dim"))
        for cell, cell_above in zip(line, above, strict=True):
            # The outline is bright, what lies under it dim: a curve rather than a wall.
            text.append(cell, "green" if cell_above == " " else "dim green")
        texts.append(text)
        above = line
    return texts


def _draw_facts(snapshot: Snapshot) -> Table:
    facts = Table.grid(padding=(0, 2), expand=True)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    facts.add_row("interval", describe_interval(snapshot.records, snapshot.target_interval_ms))
    facts.add_row("difficulty", _describe_difficulty(snapshot))
    facts.add_row("miner", snapshot.miner)
    facts.add_row("verifier", snapshot.verifier)
    processes = Text(" · ", "dim").join(
        Text.assemble(process.name + " ", (process.state, STYLES[process.health]))
        for process in snapshot.processes
    )
    facts.add_row("processes", processes)
    return facts


def _describe_difficulty(snapshot: Snapshot) -> str:
    if snapshot.difficulty_now is None or snapshot.difficulty_head is None:
        return "not known yet"
    sentence = describe_difficulty(snapshot.difficulty_now, snapshot.difficulty_head)
    if snapshot.since_head_ms is None:
        return sentence
    return f"{sentence}, {format_seconds(snapshot.since_head_ms)} ago"


def _draw_proofs(snapshot: Snapshot, width: int, count: int) -> Table:
    is_wide = width >= WIDE
    proofs = Table(
        box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim", show_edge=False
    )
    proofs.add_column("gen", justify="right", no_wrap=True)
    proofs.add_column("interval", justify="right", no_wrap=True)
    bar_width = BAR_WIDTH if width >= NARROW else 0
    proofs.add_column("", no_wrap=True, width=bar_width, style="blue")
    proofs.add_column("difficulty", justify="right", no_wrap=True)
    proofs.add_column("score", justify="right", no_wrap=True)
    proofs.add_column("steps", justify="right", no_wrap=True)
    proofs.add_column("sample", justify="right", no_wrap=True)
    proofs.add_column("accuracy", justify="right", no_wrap=True)
    proofs.add_column("miner", no_wrap=True, overflow="ellipsis", ratio=1)
    newest_first = snapshot.records[: -count - 1 : -1]
    for record in newest_first:
        address = format_address(Address(record.miner))
        share = record.interval_ms / (BAR_INTERVALS * (snapshot.target_interval_ms or 1))
        proofs.add_row(
            str(record.generation),
            format_seconds(record.interval_ms),
            draw_bar(share, bar_width),
            format_bits(record.difficulty),
            format_bits(record.score),
            str(record.steps),
            f"{record.correct_head}→{record.correct_ticket}",
            format_share(record.correct_all, record.size_all) if record.has_accuracy else "…",
            address if is_wide else f"{address[:SHORT_ADDRESS]}…",
        )
    for _ in range(count - len(newest_first)):  # a picture that keeps its height does not jump
        proofs.add_row()
    return proofs


def _draw_notice(snapshot: Snapshot, console: Console, width: int) -> list[Text]:
    """Draw what keeps the chain from going on, in as many lines as are kept free for it."""
    sentence = "Stopping cleanly …" if snapshot.is_stopping else snapshot.standstill or ""
    lines = list(Text(sentence, "yellow").wrap(console, width))[:NOTICE_LINES]
    return [*[Text()] * (NOTICE_LINES - len(lines)), *lines]


def _draw_hint(snapshot: Snapshot) -> Text:
    return Text.assemble(
        ("Ctrl-C", "bold"),
        (f" stops cleanly and keeps the chain · data in {snapshot.home}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
