"""Checks of a machine: what every node on it depends on."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pol_abci.node.binary import get_release, locate_cometbft
from pol_abci.node.doctor.finding import Finding, Patient, fault, ok, warning
from pol_abci.node.presets import get_preset_names, load_preset
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED_MEMORY_BYTES = 1_500 * 10**6
"""Of app, verifier, miner and CometBFT together, PyTorch twice among them, with some room."""
SMALL_DISK_BYTES, FULL_DISK_BYTES = 10 * 10**9, 10**9
SYNCS = 50
SYNCED_BYTES = 4_096
SLOW_SYNC_S = 0.02
SYNCS_OF_A_BLOCK = 10
"""About: CometBFT's log of votes, its block and state stores, and the app's commit."""
CLOCK_AHEAD_S = 2.0

_TIMEX_BYTES = 512  # of struct timex there are 208; zeros in it only ask
_CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR
_CGROUP = Path("/sys/fs/cgroup")


def check_cometbft(patient: Patient) -> Iterator[Finding]:
    """Whether the right CometBFT is here, and what is passed over."""
    del patient
    passed_over: list[str] = []
    path = locate_cometbft(passed_over.append)
    for sentence in passed_over:
        yield warning("cometbft", sentence, "Nothing to do where another one is found.")
    if path is None:
        yield warning(
            "cometbft",
            f"no CometBFT {get_release().tag} on this machine",
            "`pol-abci up` builds it, which takes minutes and the network, once.",
        )
    else:
        release = get_release()
        yield ok("cometbft", f"{release.tag}, which reports {release.reported}: {path}")


def check_cores(patient: Patient) -> Iterator[Finding]:
    """Whether the verifier's threads have cores: threads that wait for each other crawl."""
    cores, load = count_cores(), os.getloadavg()[0]
    threads = 1 if patient.home is None else patient.home.settings.threads
    found = f"{cores:g} cores, load {load:.1f}, {threads} thread{'s' * (threads > 1)} to verify"
    if threads > cores:
        yield fault(
            "cores",
            f"{found}: more threads than cores wait for each other at each operation",
            "Set threads under [verifier] in pol.toml to 1.",
        )
    elif threads > 1 and load > cores - threads + 1:
        yield warning(
            "cores",
            f"{found}: when one of them has to wait for a core, all do",
            "Set threads under [verifier] in pol.toml to 1, or take other work off this machine.",
        )
    elif load > 2 * cores:
        yield warning(
            "cores",
            f"{found}: a verifier gets a fraction of a core",
            "Take other work off this machine: proofs that are verified late delay blocks.",
        )
    else:
        yield ok("cores", found)


def count_cores() -> float:
    """Cores that this process may use, by affinity and by its control group's quota."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = _read_words(_CGROUP / "cpu.max")
    if len(quota) == 2 and quota[0] != "max":  # noqa: PLR2004 - quota and period
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def check_memory(patient: Patient) -> Iterator[Finding]:
    """Whether the processes fit, unless they run already."""
    free = count_free_memory()
    found = f"{free / 10**9:.1f} GB of memory free"
    if free >= NEEDED_MEMORY_BYTES or patient.node is not None:
        yield ok("memory", found)
    else:
        yield warning(
            "memory",
            f"{found}; a node with a miner takes about {NEEDED_MEMORY_BYTES / 10**9:.1f} GB",
            "End other programs, or start with `up --no-mine`.",
        )


def count_free_memory() -> int:
    """Bytes that this process may still get, from the machine or its control group."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (available,) = [line for line in lines if line.startswith("MemAvailable:")]
    free = int(available.split()[1]) * 1_024
    limit, used = _read_words(_CGROUP / "memory.max"), _read_words(_CGROUP / "memory.current")
    if limit and used and limit[0] != "max":
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Room, and how long a small synced write takes: each block waits for several."""
    folder = patient.home.path if patient.home is not None else Path.cwd()
    free = shutil.disk_usage(folder).free
    found = f"{free / 10**9:,.1f} GB free under {folder}"
    if free < FULL_DISK_BYTES:
        yield fault("disk", found, "Make room: a node stops when a block cannot be written.")
    elif free < SMALL_DISK_BYTES:
        yield warning("disk", found, "Make room soon: blocks and weights are kept for ever.")
    else:
        yield ok("disk", found)
    median_s = measure_sync(folder)
    found = f"a synced write of {SYNCED_BYTES} bytes takes {median_s * 1_000:.1f} ms (median)"
    block_s = SYNCS_OF_A_BLOCK * median_s
    if median_s > SLOW_SYNC_S:
        yield warning(
            "disk",
            f"{found}; a block waits for about {SYNCS_OF_A_BLOCK} of them, {block_s:.1f} s",
            "Put the home on an SSD of this machine: no network folder, no spinning disk.",
        )
    else:
        yield ok("disk", f"{found}: about {block_s * 1_000:.0f} ms of each block")


def measure_sync(folder: Path) -> float:
    """Median seconds of appending a few kilobytes to a file and syncing it to disk."""
    times_s = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            start_s = time.perf_counter()
            file.write(bytes(SYNCED_BYTES))
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s)


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Whether somebody keeps the clock, by the kernel's own word, and how it is against blocks."""
    if not is_clock_kept():
        yield warning(
            "clock",
            "the kernel knows of no time service that keeps this clock; how far it is off cannot "
            "be seen from here",
            "Install chrony or turn systemd-timesyncd on, unless this machine's host keeps time. "
            "Validators stamp blocks, and proofs become good by those stamps.",
        )
    else:
        yield ok("clock", "kept by a time service, says the kernel")
    if patient.node is not None and patient.node.latest_height:
        ahead_s = patient.node.latest_time_ms / 1_000 - time.time()
        if ahead_s > CLOCK_AHEAD_S:
            yield fault(
                "clock",
                f"the newest block is from {ahead_s:.0f} s in this clock's future",
                "Set this clock: it is behind those of the validators.",
            )
        else:
            yield ok("clock", f"the newest block was stamped {-ahead_s:.1f} s ago by this clock")


def is_clock_kept() -> bool:
    """Whether a time service keeps the clock, by the kernel's word: what timedatectl asks too.

    Whichever program it is. The host of a virtual machine may keep time and tell nobody.
    """
    library = ctypes.CDLL(None)
    state: int = library.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return state != _CLOCK_UNSYNCHRONISED


def check_datasets(patient: Patient) -> Iterator[Finding]:
    """The dataset of the home's chain against its genesis; without one, those of all presets."""
    from pol_abci.learning.datasets import (  # noqa: PLC0415 (numpy takes its time to load)
        DatasetMissing,
        check_digest,
        load_dataset,
    )

    home = patient.home
    if home is not None:
        tasks = [(home.genesis.params.task, True)]
    else:
        presets = [load_preset(name) for name in get_preset_names()]
        tasks = [(preset.params.task, not preset.is_of_any_edition) for preset in presets]
    for task, has_digests in tasks:
        try:
            parts = load_dataset(task.dataset, None if home is None else home.settings.data_dir)
            if has_digests:
                check_digest(task.dataset, "train", parts[0], task.train_digest)
                check_digest(task.dataset, "test", parts[1], task.test_digest)
        except DatasetMissing as missing:
            if home is None:
                yield ok("dataset", f"no {task.dataset} here: no matter until a chain learns it")
            else:
                yield fault("dataset", str(missing))
        except PolError as error:
            yield fault("dataset", str(error))
        else:
            whose = "the preset's" if home is None else "its genesis's"
            counts = " + ".join(f"{len(part):,}" for part in parts)
            digests = f"both digests are {whose}" if has_digests else "of any edition"
            yield ok("dataset", f"{task.dataset}: {counts} images, {digests}")


def check_bits(patient: Patient) -> Iterator[Finding]:
    """The golden walk on every device here, and on the one that the home names."""
    from pol_abci.learning.exact.machine import describe_device, list_devices  # noqa: PLC0415
    from pol_abci.learning.golden import (  # noqa: PLC0415 (torch takes seconds to load)
        check_golden_walk,
        read_golden_walk,
    )

    devices = list_devices()
    if patient.home is not None:
        devices = list(dict.fromkeys([*devices, patient.home.settings.device]))
    steps = read_golden_walk()["given"]["steps"]
    for device in devices:
        start_s = time.perf_counter()
        try:
            check_golden_walk(device)
        except PolError as error:
            yield fault("bits", str(error))
        else:
            took_s = time.perf_counter() - start_s
            yield ok(
                "bits",
                f"{describe_device(device)}: the golden walk of {steps} steps, bit for bit, in "
                f"{took_s:.1f} s",
            )
    if len(devices) == 1:
        yield ok("bits", "torch finds no GPU here; none was looked at")


def _read_words(path: Path) -> list[str]:
    """The words of a small file of the kernel's; none where the kernel has no such file."""
    try:
        return path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
