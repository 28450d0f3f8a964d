"""End a supervisor's children when the supervisor itself is gone, `kill -9` included.

Run as `python -m pol_abci.node.guard` with a pipe as stdin. The supervisor writes `+GROUP` for
each process group that it starts and `-GROUP` for each that has ended. When the pipe ends, so
has the supervisor: the groups that are left get SIGTERM and, after a grace, SIGKILL. A pipe does
this on every Unix, whichever thread started what, and reaches the children's children too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_S = 5.0
POLL_S = 0.05


def read_groups(lines: Iterable[str]) -> list[int]:
    """Read until the pipe ends; return the process groups that still run, newest first."""
    groups: list[int] = []
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.insert(0, group)
        else:
            groups.remove(group)
    return groups


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; whether there was one to send it to."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a zombie's group
        return False
    return True


def main() -> None:
    """Wait for the supervisor's end, then end what it left."""
    groups = read_groups(sys.stdin)
    left = [group for group in groups if signal_group(group, signal.SIGTERM)]
    deadline = time.monotonic() + GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [group for group in left if signal_group(group, 0)]
    for group in left:
        signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
