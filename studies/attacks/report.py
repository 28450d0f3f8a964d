"""Rows of the tables in docs/security.md, each with the script that it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import find_section, write_section

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
_SCRIPT = re.compile(r"\| `studies/attacks/(\w+)\.py` \|$")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table that stands between the markers `<!-- NAME -->` and `<!-- end -->`."""

    table: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table}: {' | '.join(self.cells)}"


def write_rows(script: str, rows: list[Row], document: Path = DOCUMENT) -> None:
    """Put a script's rows in the place of its old ones; each table stays in order of scripts."""
    for table in dict.fromkeys(row.table for row in rows):
        text = document.read_text(encoding="utf-8")
        # The first two lines are the table's head.
        head, rule, *lines = text[find_section(text, table)].splitlines()
        by_script: dict[str, list[str]] = {}
        for line in lines:
            found = _SCRIPT.search(line)
            assert found, f"a row of no script in the table {table}: {line}"
            by_script.setdefault(found[1], []).append(line)
        by_script[script] = [
            f"| {' | '.join(row.cells)} | `studies/attacks/{script}.py` |"
            for row in rows
            if row.table == table
        ]
        body = [line for name in sorted(by_script) for line in by_script[name]]
        write_section(document, table, "\n".join((head, rule, *body)))
