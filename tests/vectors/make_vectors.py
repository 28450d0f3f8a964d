"""Write all vectors: `python tests/vectors/make_vectors.py`.

Vectors fix what is computed, for this package and for any other. They change only with the
protocol: a difference that `git diff` shows here splits a chain.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

MODULES = ("rules_vectors", "make_ledger_vectors")
"""Files beside this one that are there; each has `make_documents()`: JSON content by file name."""


def main() -> None:
    """Write one file a document, one case a line."""
    folder = Path(__file__).parent
    for module in MODULES:
        if find_spec(module) is None:
            continue
        for name, cases in import_module(module).make_documents().items():
            lines = ",\n".join(json.dumps(case, sort_keys=True) for case in cases)
            (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="ascii")


if __name__ == "__main__":
    main()
