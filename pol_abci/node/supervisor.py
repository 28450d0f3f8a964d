"""Run a node's processes: start in order, restart on any exit, stop in order, outlive none.

Each child is a session of its own, so Ctrl-C in the terminal reaches the supervisor alone and the
children are stopped one after the other. A child that exits is started again, whatever its exit
code (CometBFT leaves with 0 when its app is gone), after a pause that doubles. One that keeps
exiting without progress ends everything, with the end of its log in the error's words.
`pol_abci.node.guard` ends the children when the supervisor is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from pol_abci.client.sealing import PASSPHRASE_VARIABLE
from pol_abci.node.guard import signal_group
from pol_abci.node.occupancy import lock_home
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence
    from io import FileIO
    from pathlib import Path
    from types import TracebackType

MAX_FAILURES = 5
"""Exits of one child without progress in between that end everything."""
SETTLED_S = 120.0
"""A child that ran so long has made progress, whether or not anyone noted it. Long against the
start of an app that loads torch on a busy machine (35 s seen)."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
GRACE_S = 10.0
"""From SIGTERM to SIGKILL."""
LEAVE_S = 5.0
"""From a child's end to the SIGKILL of one that should have ended with it."""
DUE_S = 0.05
"""Between two looks whether a child is due."""
LISTEN_S = 1.0
"""Between two looks for a child's last words."""
MAX_LOG_BYTES = 32 * 1024 * 1024
"""A log longer than this is set aside as `.1` when its child starts."""
MAX_LINE_BYTES = 1024 * 1024
LOGS_FOLDER = "logs"
_TAIL_LINES = 12
_TAIL_BYTES = 16_384
ChildState = Literal["starting", "running", "restarting", "stopped"]


class ChildFailed(PolError):
    """A child could not be started, or its log not be written, or it kept exiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCommand:
    """What to start. `on_line` gets each line of its stdout, which else goes to its log.

    `ends_with` names a child that this one does not outlive: it ends by itself when that one has
    ended, and is killed when it hangs in doing so, to be started again. `last_words` are found in
    the line of its log that it writes when it does nothing more and yet stays: it is killed then,
    likewise, and when a full disk has cut its log off amid a line, which may be this one. `is_due`
    is what each of its starts waits for.
    """

    name: str
    arguments: tuple[str, ...]
    on_line: Callable[[str], None] | None = None
    niceness: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    ends_with: str | None = None
    last_words: re.Pattern[bytes] | None = None
    is_due: Callable[[], bool] | None = None


@dataclass(slots=True)
class Child:
    """A supervised process as it stands: for people and for the supervisor's own bookkeeping."""

    command: ChildCommand
    state: ChildState = "starting"
    pid: int | None = None
    restarts: int = 0
    failures: int = 0  # exits since the last progress
    started_s: float = 0.0  # of time.monotonic()
    log: FileIO | None = None  # of this run, by whatever name it goes meanwhile
    log_start: int = 0  # where in its log this run begins
    is_stopping: bool = False
    process: asyncio.subprocess.Process | None = None
    stdout: asyncio.StreamReader | None = None


class Supervisor:
    """Keeps `children` running inside `home` between `async with` and its end.

    They start in the given order, when they are due, and stop in the reverse order; `home` is their
    working directory.

    Raises
    ------
    HomeInUse
        On entry, when another supervisor holds this home.
    ChildFailed
        On entry, when the program of a child that is due at once cannot be started.
    """

    def __init__(
        self,
        home: Path,
        children: Sequence[ChildCommand],
        *,
        grace_s: float = GRACE_S,
        leave_s: float = LEAVE_S,
    ) -> None:
        self._home = home
        self._grace_s = grace_s
        self._leave_s = leave_s
        self._leaving: set[asyncio.Task[None]] = set()
        self._resources = contextlib.ExitStack()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._guard: asyncio.subprocess.Process | None = None
        self.children = {command.name: Child(command) for command in children}

    async def __aenter__(self) -> Self:
        """Lock the home and start the children."""
        self._resources.enter_context(lock_home(self._home))
        (self._home / LOGS_FOLDER).mkdir(exist_ok=True)
        try:
            self._guard = await _start_guard()
            for child in self.children.values():
                if child.command.is_due is None:
                    await self._start(child)
                self._tasks[child.command.name] = asyncio.create_task(self._keep(child))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the children, newest first, and unlock the home."""
        # A second Ctrl-C must not leave children behind: what has begun to stop is stopped.
        stopping = asyncio.ensure_future(self._stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await stopping
            raise

    async def wait_failed(self) -> None:
        """Wait until a child has failed for good, then raise its `ChildFailed`."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def note_progress(self, *names: str) -> None:
        """Forget the exits of these children: what they are for goes on."""
        for name in names:
            self.children[name].failures = 0

    async def _keep(self, child: Child) -> None:
        """Restart a child until it is to stop, or has failed too often."""
        while True:
            if child.process is None:
                await self._start_when_due(child)
            assert child.process is not None
            code = await self._watch(child, child.process)
            if child.is_stopping:
                return
            self._expect_to_leave(child.command.name)
            if time.monotonic() - child.started_s >= SETTLED_S:
                child.failures = 0
            child.failures += 1
            if child.failures >= MAX_FAILURES:
                child.state = "stopped"
                raise ChildFailed(self._describe_failure(child, code))
            child.state = "restarting"
            await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** (child.failures - 1), LONGEST_PAUSE_S))
            child.restarts += 1

    async def _start_when_due(self, child: Child) -> None:
        is_due = child.command.is_due
        while is_due is not None and not is_due():  # noqa: ASYNC110 (it lies in other processes)
            await asyncio.sleep(DUE_S)
        await self._start(child)

    def _expect_to_leave(self, ended: str) -> None:
        """Give the children that end with one that has ended their time to do so."""
        for child in self.children.values():
            if child.command.ends_with == ended and child.process is not None:
                task = asyncio.create_task(self._await_leave(child.process))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def _await_leave(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._leave_s):
                await process.wait()
        except TimeoutError:
            signal_group(process.pid, signal.SIGKILL)

    async def _watch(self, child: Child, process: asyncio.subprocess.Process) -> int:
        """Hand on a process's lines until it exits; return its exit code."""
        async with asyncio.TaskGroup() as tasks:
            if child.stdout is not None:
                tasks.create_task(_hand_on_lines(child.stdout, child.command.on_line))
            listening = tasks.create_task(self._await_last_words(child, process))
            code = await process.wait()
            listening.cancel()
            # What it left behind goes too; the group's last writer gone, its stdout ends.
            signal_group(process.pid, signal.SIGKILL)
        self._tell_guard(f"-{process.pid}")
        child.pid = child.process = child.stdout = None
        return code

    async def _await_last_words(self, child: Child, process: asyncio.subprocess.Process) -> None:
        """Kill a process that has written that it does nothing more."""
        if child.command.last_words is None:
            return
        assert child.log is not None
        position = child.log_start
        while True:
            position, size = _find_end(child.log, position)
            written = os.pread(child.log.fileno(), size - position, position)
            # The last line may be unfinished, or cut off by a disk that was full amid it.
            *lines, last = written.split(b"\n")
            if any(map(child.command.last_words.search, (*lines, last))):
                break
            if last and _has_no_room(child.log):
                break
            position += len(written) - len(last)
            await asyncio.sleep(LISTEN_S)
        signal_group(process.pid, signal.SIGKILL)

    async def _start(self, child: Child) -> None:
        """Start a child's process in a session of its own."""
        command = child.command
        log_path = self._home / LOGS_FOLDER / f"{command.name}.log"
        with contextlib.ExitStack() as ends:
            if child.log is not None:
                child.log.close()
            child.log = log = _open_log(log_path)
            child.log_start = log.tell()
            stdout: int | FileIO = log
            if command.on_line is not None:
                # Not asyncio's own pipe: there an exit is known only when the pipe has ended.
                reading, stdout = os.pipe()
                ends.callback(os.close, stdout)
                child.stdout = await _open_reader(reading)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.arguments,
                    cwd=self._home,
                    env={**_get_environment(), **command.environment},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise ChildFailed(
                    f"cannot start {command.name} ({command.arguments[0]}): {error.strerror}"
                ) from error
        self._tell_guard(f"+{process.pid}")
        if command.niceness:
            with contextlib.suppress(ProcessLookupError):  # already gone: seen by _watch
                os.setpriority(os.PRIO_PROCESS, process.pid, command.niceness)
        child.process, child.pid = process, process.pid
        child.started_s = time.monotonic()
        child.state = "running"

    async def _stop(self) -> None:
        """Stop all children, the last started first, then the guard."""
        for task in self._leaving:
            task.cancel()
        for child in reversed(self.children.values()):
            await self._stop_child(child)
            if child.log is not None:
                child.log.close()
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            await self._guard.wait()
        self._resources.close()
        for task in self._tasks.values():
            fault = None if task.cancelled() else task.exception()
            if fault is not None and not isinstance(fault, ChildFailed):
                raise fault  # a bug, in on_line or here

    async def _stop_child(self, child: Child) -> None:
        """Ask a child to end, and end it when it does not."""
        child.is_stopping = True
        task = self._tasks.get(child.command.name)
        if task is None:
            child.state = "stopped"
            return
        process = child.process
        if process is None:
            task.cancel()  # in its pause, not due yet, or failed for good
        else:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._grace_s):
                    await process.wait()
            except TimeoutError:
                signal_group(process.pid, signal.SIGKILL)
                await process.wait()
        await asyncio.wait({task})
        child.state = "stopped"

    def _tell_guard(self, line: str) -> None:
        """Write a line to the guard."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{line}\n".encode())

    def _describe_failure(self, child: Child, code: int) -> str:
        """Say which child failed, how, and what it wrote last; also that with which it ends."""
        how = f", at last {_describe_exit(code)}"
        text = self._describe_end(child, how, child.log_start)
        leader = self.children.get(child.command.ends_with or "")
        if leader is not None and leader.failures:
            # It may run again already: what ended it stands further up.
            text += "\n" + self._describe_end(leader, f", and {child.command.name} with it", 0)
        return text

    def _describe_end(self, child: Child, how: str, log_start: int) -> str:
        name = child.command.name
        log_path = self._home / LOGS_FOLDER / f"{name}.log"
        assert child.log is not None
        start, size = _find_end(child.log, log_start)
        start = max(start, size - _TAIL_BYTES)
        text = os.pread(child.log.fileno(), size - start, start).decode(errors="replace")
        tail = "\n".join(text.splitlines()[-_TAIL_LINES:]) or "(nothing)"
        often = "once" if child.failures == 1 else f"{child.failures} times in a row"
        return f"{name} ended {often}{how}. The end of {log_path}:\n{tail}"


async def _open_reader(pipe: int) -> asyncio.StreamReader:
    """Read from a pipe's end with asyncio, which closes it when the pipe has ended."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(pipe, "rb", 0))
    return reader


async def _hand_on_lines(
    reader: asyncio.StreamReader, on_line: Callable[[str], None] | None
) -> None:
    """Give each line to `on_line`, without its end."""
    assert on_line is not None
    async for line in reader:
        on_line(line.decode(errors="replace").rstrip("\r\n"))


async def _start_guard() -> asyncio.subprocess.Process:
    """Start the process that ends the children when this one is gone."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pol_abci.node.guard",
        env=_get_environment(),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _get_environment() -> dict[str, str]:
    """What every child may know of this one's environment: not the account key's passphrase."""
    return {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}


def _open_log(path: Path) -> FileIO:
    """Open a child's log to append to, setting a long one aside, and mark a start in it."""
    try:
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        log = path.open("a+b", buffering=0)
        with contextlib.ExitStack() as ends:
            ends.callback(log.close)
            log.write(f"=== started {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
            ends.pop_all()
    except OSError as error:
        raise ChildFailed(
            f"cannot write {path} ({error.strerror}): is the disk full? The chain stays as it was "
            f"at its last block; make room, and start again"
        ) from error
    return log


def _find_end(log: FileIO, start: int) -> tuple[int, int]:
    """Return where to read a log on from, which is 0 when it was cut since, and where it ends."""
    size = os.fstat(log.fileno()).st_size
    return (start if start <= size else 0), size


def _has_no_room(log: FileIO) -> bool:
    """Whether nothing more can be written where this log is."""
    return os.fstatvfs(log.fileno()).f_bavail == 0


def _describe_exit(code: int) -> str:
    """Say an exit code as people do."""
    if code >= 0:
        return f"with exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
