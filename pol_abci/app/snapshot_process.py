"""The process that makes one snapshot out of a copy of the store, beside a node that goes on.

Its arguments are the copy's file and the folder that the snapshot is to be.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pol_abci.rules.errors import PolError
from pol_abci.store.snapshots import write_snapshot

NICENESS = 10
"""Blocks, and the walks that they wait for, go first."""


def main() -> int:
    """Write the snapshot; the exit code, with the reason on standard error when it is 1."""
    os.nice(NICENESS)
    copy, target = map(Path, sys.argv[1:])
    try:
        write_snapshot(copy, target)
    except (PolError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201  (it goes into the node's log)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
