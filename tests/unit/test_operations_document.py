"""docs/operations.md lists the log events that there are."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CALL = re.compile(r"\b(?:log|get_logger\(__name__\))\.(debug|info|warning|error)\(\s*\"([^\"]+)\"")


def test_each_log_event_has_its_row() -> None:
    written = {
        event
        for path in (REPOSITORY / "pol_abci").rglob("*.py")
        for event in CALL.findall(path.read_text("utf-8"))
    }
    document = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| (debug|info|warning|error) \| `(.+?)` \|", document, re.MULTILINE)
    assert sorted(rows) == sorted(written)
