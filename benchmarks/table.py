"""Write the table of docs/performance.md anew: every benchmark runs, each in a process of its own.

    python benchmarks/table.py [NAME …]

Rows of benchmarks that are not named stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, describe

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
NO_BENCHMARKS = ("exact_resnet", "figures", "load", "table", "walkless_app", "yes_app")
COLUMNS = ("figure", "measured", "beside", "ratio", "goal", "command", "machine")
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
ROW = re.compile(r"^\|.*\| `benchmarks/(\w+)\.py` \| [^|]+ \|$", re.MULTILINE)


def get_names() -> list[str]:
    """Every benchmark, in alphabetical order."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NO_BENCHMARKS)


def run(name: str) -> list[Figure]:
    """Run one benchmark and give what it measured; what it says on stderr is passed on."""
    process = subprocess.Popen(  # noqa: S603 - this repository's own scripts
        [sys.executable, str(HERE / f"{name}.py"), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    assert process.stdout is not None
    figures = []
    for line in process.stdout:
        figures.append(Figure(**json.loads(line)))
        print(describe(figures[-1]), flush=True)
    if process.wait() != 0:
        raise SystemExit(f"benchmarks/{name}.py ended with {process.returncode}")
    return figures


def format_row(name: str, figure: Figure) -> str:
    """One row of the table."""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
    cells = (figure.name, figure.value, figure.beside, ratio, figure.goal)
    return f"| {' | '.join(cells)} | `benchmarks/{name}.py` | {describe_machine()} |"


def write_table(rows: dict[str, list[str]]) -> None:
    """Put the rows of these benchmarks in the place of their old ones."""
    text = DOCUMENT.read_text(encoding="utf-8")
    start, end = (text.index(f"<!-- table {mark} -->") for mark in ("begins", "ends"))
    table: dict[str, list[str]] = {match[1]: [] for match in ROW.finditer(text[start:end])}
    for match in ROW.finditer(text[start:end]):
        table[match[1]].append(match[0])
    table |= rows
    lines = [line for name in sorted(table) for line in table[name]]
    begun = f"<!-- table begins -->\n\n{HEADER}\n"
    DOCUMENT.write_text(text[:start] + begun + "\n".join(lines) + "\n\n" + text[end:], "utf-8")


def find_section(text: str, name: str) -> slice:
    """What stands between the markers `<!-- NAME -->` and `<!-- end -->` of a document."""
    begin = f"<!-- {name} -->\n"
    start = text.index(begin) + len(begin)
    return slice(start, text.index("<!-- end -->", start))


def write_section(document: Path, name: str, content: str) -> None:
    """Put lines in the place of what stands between a document's markers."""
    text = document.read_text(encoding="utf-8")
    section = find_section(text, name)
    document.write_text(
        f"{text[: section.start]}{content}\n{text[section.stop :]}", encoding="utf-8"
    )


def describe_machine() -> str:
    """Cores, what Linux calls the processor, and which Python this is."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    processor = found[1] if found else platform.machine()
    return f"{os.cpu_count()} cores, {processor}, Python {platform.python_version()}"


def main() -> None:
    """Run what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark; all when none")
    names = parser.parse_args().names or get_names()
    unknown = sorted(frozenset(names) - frozenset(get_names()))
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there is: {', '.join(get_names())}")
    for name in names:
        print(f"-- {name}", flush=True)
        write_table({name: [format_row(name, figure) for figure in run(name)]})


if __name__ == "__main__":
    main()
