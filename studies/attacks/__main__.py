"""Run attacks against the rules and the learning code, and write their rows of docs/security.md.

python -m studies.attacks [NAME …]
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import torch

from studies.attacks.report import Row, write_rows

ATTACKS = (
    "chosen_batches",
    "dead_taps",
    "early_abandon",
    "fairness",
    "head_start",
    "interval_stability",
    "label_filter",
    "nonce_preselection",
    "replay",
    "ring_capture",
    "seed_grinding",
    "spoofed_weights",
    "steered_weights",
    "theft",
    "useful_steps",
)
"""Modules beside this one; each has a `measure()` that gives its rows."""


def main() -> None:
    """Run what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="an attack; all when none")
    names = parser.parse_args().names or ATTACKS
    for name in names:
        if name not in ATTACKS:
            parser.error(f"no attack {name}; there is: {', '.join(ATTACKS)}")
    torch.set_num_threads(1)
    for name in names:
        start = time.perf_counter()
        rows: list[Row] = []
        for row in importlib.import_module(f"studies.attacks.{name}").measure():
            print(row, flush=True)
            rows.append(row)
        write_rows(name, rows)
        print(f"-- {Path(name)}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
