"""Memory of a digits node that runs and mines, each process at its largest.

    BENCH_GENERATIONS=10 python benchmarks/memory.py

`pol-abci up` runs as a user runs it; its app serves metrics, which are read every half second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from benchmarks.figures import Figure, main

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATIONS = int(os.environ.get("BENCH_GENERATIONS", "10"))
PROGRAM = (sys.executable, "-m", "pol_abci.cli")
PORTS = ("--rpc-port", "29757", "--p2p-port", "29756")
METRICS = "127.0.0.1:29755"
POLL_S = 0.5
PROCESSES = {
    "app": "pol_abci.cli start",
    "verifier": "verifier_process",
    "miner": "pol_abci.cli mine",
    "up": "pol_abci.cli up",
}
"""What tells their command lines apart."""
TORCH = "import psutil, torch; print(psutil.Process().memory_info().rss)"
MB = 10**6


def measure() -> Iterator[Figure]:
    """Run a chain and weigh its processes, then one that does nothing but import torch."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "chain"
        subprocess.run([*PROGRAM, "init", "--home", home, *PORTS], check=True, stdout=sys.stderr)  # noqa: S603 - this package's own command
        settings = home / "pol.toml"
        served = f'[app]\nmetrics = "{METRICS}"\n'
        settings.write_text(settings.read_text().replace("[app]\n", served))
        up = subprocess.Popen(  # noqa: S603 - this package's own command
            [*PROGRAM, "up", "--home", home, "--generations", str(GENERATIONS)], stdout=sys.stderr
        )
        try:
            largest, reads = observe(psutil.Process(up.pid), up)
        finally:
            up.terminate()
            up.wait()
    if up.returncode != 0 or not reads:
        raise SystemExit(
            f"the chain ended with {up.returncode}, its metrics were read {reads} times"
        )
    torch_bytes = int(subprocess.check_output([sys.executable, "-c", TORCH]))  # noqa: S603 - a constant
    yield Figure(
        name=f"memory of the app, digits, metrics read {reads} times",
        value=f"{largest['app'] / MB:.0f} MB",
        goal="at most 60 MB",
    )
    for name in ("verifier", "miner"):
        yield Figure(
            name=f"memory of the {name}, digits",
            value=f"{largest[name] / MB:.0f} MB",
            beside=f"{torch_bytes / MB:.0f} MB `import torch`",
            ratio=largest[name] / torch_bytes,
            goal="what torch needs",
        )
    yield Figure(name="memory of `up` itself", value=f"{largest['up'] / MB:.0f} MB")


def observe(parent: psutil.Process, up: subprocess.Popen[bytes]) -> tuple[dict[str, int], int]:
    """Until `up` ends: resident bytes of each process at their most, and how often metrics came."""
    largest = dict.fromkeys(PROCESSES, 0)
    reads = 0
    with httpx.Client(trust_env=False) as http:
        while up.poll() is None:
            time.sleep(POLL_S)
            try:
                reads += http.get(f"http://{METRICS}/metrics").is_success
            except httpx.TransportError:
                continue  # the app comes up, or goes
            for process in (parent, *parent.children(recursive=True)):
                try:
                    line, size = " ".join(process.cmdline()), process.memory_info().rss
                except psutil.Error:
                    continue  # it has just ended
                for name, part in PROCESSES.items():
                    if part in line:
                        largest[name] = max(largest[name], size)
    return largest, reads


if __name__ == "__main__":
    main(measure)
