"""What `up` prints where there is no terminal: a line a generation, and rare notices. No ANSI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.cli.words import format_proof

if TYPE_CHECKING:
    from pol_abci.cli.view import Snapshot

STANDSTILL_PAUSE_S = 30.0
"""A standstill is told when it begins, and again after so long."""


class Narrator:
    """Turns a series of snapshots into lines: each says only what is new since the last."""

    def __init__(self) -> None:
        self._told_generation: int | None = None
        self._states: dict[str, str] = {}
        self._standstill_told_s: float | None = None
        self._is_stopping = False

    def tell(self, snapshot: Snapshot) -> list[str]:
        """Return the lines for what has changed, oldest first."""
        lines = self._tell_processes(snapshot)
        lines += self._tell_generations(snapshot)
        lines += self._tell_standstill(snapshot)
        if snapshot.is_stopping and not self._is_stopping:
            self._is_stopping = True
            lines.append("stopping cleanly")
        return lines

    def _tell_processes(self, snapshot: Snapshot) -> list[str]:
        lines = []
        for process in snapshot.processes:
            if self._states.get(process.name) != process.state:
                lines.append(f"{process.name}: {process.state}")
            self._states[process.name] = process.state
        return [] if snapshot.is_stopping else lines

    def _tell_generations(self, snapshot: Snapshot) -> list[str]:
        if snapshot.generation is None:
            return []
        if self._told_generation is None:
            self._told_generation = snapshot.generation
            goal = "" if snapshot.goal is None else f", to stop at generation {snapshot.goal}"
            place = f"generation {snapshot.generation}, height {snapshot.height}"
            return [f"chain {snapshot.chain_id} is at {place}{goal}"]
        lines = []
        for record in snapshot.records:
            if record.generation <= self._told_generation:
                continue
            is_newest = record.generation == snapshot.records[-1].generation
            if is_newest and not record.has_accuracy and not snapshot.is_stopping:
                break  # its accuracy comes within moments, or the next generation does
            lines.append(format_proof(record))
            self._told_generation = record.generation
        return lines

    def _tell_standstill(self, snapshot: Snapshot) -> list[str]:
        if snapshot.standstill is None or snapshot.is_stopping:
            self._standstill_told_s = None
            return []
        told_s = self._standstill_told_s
        if told_s is not None and snapshot.uptime_s - told_s < STANDSTILL_PAUSE_S:
            return []
        self._standstill_told_s = snapshot.uptime_s
        return [f"standing still: {snapshot.standstill}"]
