"""Homes of quick chains and programs run in them: the preset with a second to the generation."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

import tomlkit

from pol_abci.client.chain import ChainStatus, get_chain_status
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.node.binary import find_cometbft
from pol_abci.node.cometbft_setup import change_config
from pol_abci.node.home import load_home
from pol_abci.node.init import create_home
from pol_abci.node.presets import load_preset
from pol_abci.node.settings import write_settings
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.ledger import compute_supply_gap
from pol_abci.rules.merkle import BUCKETS
from pol_abci.rules.params import WalkParams
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pol_abci.client.rpc import RpcClient
    from pol_abci.node.home import Home
    from pol_abci.node.presets import Preset
    from pol_abci.rules.params import Params

Answer = TypeVar("Answer")

APP, COMETBFT = "start --home", "node --home"
MINER, VERIFIER = "mine --node", "verifier_process"
"""What tells these children's command lines from the others'."""
PATIENCE_S = 240.0
"""What a test waits for something that must come; far more than it takes on a busy machine."""
_RANGE = range(20_000, 32_000)
_PORTS = itertools.cycle(random.sample(_RANGE, len(_RANGE)))
"""Below those of outgoing connections; shuffled, since other tests run in other processes."""


def get_free_port() -> int:
    """A port that nobody listens on now, and that Linux gives no connection meanwhile.

    A node that is stopped for a while finds it free again: no other call here returns it soon.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports do not end")


def make_quick_preset(name: str, change: Callable[[Params], Params]) -> Preset:
    """A preset with a target interval of 1 s and stamps of 4 bits, changed further."""
    preset = load_preset(name).with_target_interval(1_000)
    params = preset.params
    if isinstance(params.scheme, WalkParams):
        params = replace(params, scheme=replace(params.scheme, stamp_bits=4))
    return replace(preset, params=change(params))


def make_quick_home(
    path: Path,
    *,
    name: str = "digits",
    difficulty_bits: float = 6.0,
    transport: str = "socket",
    change: Callable[[Params], Params] = lambda params: params,
) -> Home:
    """A home of a quick chain's only validator."""
    quick = make_quick_preset(name, change)
    with mock.patch("pol_abci.node.init.load_preset", return_value=quick):
        return create_home(
            path,
            cometbft=find_cometbft(print),
            preset=name,
            chain_id="pol-e2e",
            report=print,
            rpc_port=get_free_port(),
            p2p_port=get_free_port(),
            difficulty_bits=difficulty_bits,
            transport=transport,
        )


def get_p2p_port(home: Home) -> int:
    """Where its CometBFT listens for other nodes."""
    config = tomlkit.parse(home.config_file.read_text(encoding="utf-8"))
    return int(str(config["p2p"]["laddr"]).rpartition(":")[2])


def move_ports(home: Home) -> Home:
    """Give a home that is a copy of another one ports of its own."""
    rpc_port = get_free_port()
    change_config(
        home.path,
        {
            "rpc": {"laddr": f"tcp://127.0.0.1:{rpc_port}"},
            "p2p": {"laddr": f"tcp://127.0.0.1:{get_free_port()}"},
        },
    )
    write_settings(home.path, replace(home.settings, rpc_url=f"http://127.0.0.1:{rpc_port}"))
    return load_home(home.path)


@dataclass(slots=True)
class Program:
    """A `pol-abci` that runs; `lines` are those of its standard output so far."""

    process: asyncio.subprocess.Process
    lines: list[str]

    async def wait_for_line(self, part: str) -> str:
        """The first line that holds `part`."""
        await wait_until(lambda: any(part in line for line in self.lines) or self.has_ended)
        for line in self.lines:
            if part in line:
                return line
        raise AssertionError(f"it ended without saying {part!r}:\n" + "\n".join(self.lines))

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.returncode is not None

    async def wait(self) -> int:
        """The exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def run_program(*arguments: str | Path) -> AsyncIterator[Program]:
    """Run `pol-abci` with these arguments; kill it if it is still there in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pol_abci.cli",
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    program = Program(process, [])
    reading = asyncio.create_task(_read_lines(program))
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read_lines(program: Program) -> None:
    assert program.process.stdout is not None
    async for line in program.process.stdout:
        program.lines.append(line.decode().rstrip())


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Look every 50 ms."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)


async def wait_for(
    ask: Callable[[], Awaitable[Answer | None]], patience_s: float = PATIENCE_S
) -> Answer:
    """Ask every 100 ms until there is an answer."""
    deadline = time.monotonic() + patience_s
    while (answer := await ask()) is None:
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.1)
    return answer


def read_chain(home: Home) -> tuple[bytes, list[GenerationRecord]]:
    """App hash and generations on disk, the coins counted."""
    digest = compute_genesis_digest(home.genesis)
    store = Store.open(home.store_folder, chain_id=home.settings.chain_id, genesis_digest=digest)
    try:
        store.verify()
        state = store.state()
        entries = [entry for bucket in range(BUCKETS) for entry in state.bucket(bucket)]
        assert compute_supply_gap(state, entries) == 0
        records = [GenerationRecord.decode(data) for _, data in store.records(1, 1_000)]
        return store.app_hash, records
    finally:
        store.close()


def strip_accuracy(records: list[GenerationRecord]) -> list[tuple[int, int, int, bytes, bytes]]:
    """What consensus decided of each generation."""
    return [
        (each.generation, each.height, each.score, each.weights_root, each.tx_hash)
        for each in records
    ]


async def stop_program(program: Program) -> None:
    """Ask a program to end, as an operator's service manager does."""
    program.process.send_signal(signal.SIGTERM)
    assert await program.wait() == 0, "\n".join(program.lines)


async def wait_for_status(rpc: RpcClient, is_so: Callable[[ChainStatus], bool]) -> ChainStatus:
    """The node's status once it is so; a node that is away is waited for."""

    async def ask() -> ChainStatus | None:
        try:
            status = await get_chain_status(rpc)
        except (NodeUnreachable, RpcError):
            return None
        return status if is_so(status) else None

    return await wait_for(ask)


async def wait_for_generation(rpc: RpcClient, generation: int) -> int:
    """The newest generation, once it is at least this one."""
    status = await wait_for_status(rpc, lambda status: status.generation >= generation)
    return status.generation


async def kill_child(up: Program, part: str) -> None:
    """kill -9 the process below an `up` whose command line holds `part`, as soon as it is there."""
    os.kill(await find_child(up, part), signal.SIGKILL)


async def find_child(up: Program, part: str) -> int:
    """The process below an `up` whose command line holds `part`, as soon as it is there."""
    await wait_until(lambda: find_process(up.process.pid, part) is not None or up.has_ended)
    pid = find_process(up.process.pid, part)
    assert pid is not None, "\n".join(up.lines)
    return pid


def find_process(ancestor: int, part: str) -> int | None:
    """A process below `ancestor` whose command line holds `part`, if there is one."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    for pid, command in commands.items():
        line, parent = command.decode(errors="replace"), pid
        while parent in parents and parent != ancestor:
            parent = parents[parent]
        if parent == ancestor and pid != ancestor and part in line:
            return pid
    return None


def read_memory_bytes(process: int) -> int:
    """What a process holds of the machine's memory now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
