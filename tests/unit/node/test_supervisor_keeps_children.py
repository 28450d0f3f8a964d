"""The supervisor, with real small processes: order, restarts, ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from pol_abci.client.sealing import PASSPHRASE_VARIABLE
from pol_abci.node import supervisor as supervisor_module
from pol_abci.node.children import LAST_WORDS
from pol_abci.node.occupancy import HomeInUse, PortInUse, check_port
from pol_abci.node.supervisor import MAX_FAILURES, ChildCommand, ChildFailed, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE_S = 60.0
SLEEP = "import time; time.sleep(600)"
FAILURE = re.compile(rb"^CONSENSUS FAILURE!!!")


def python_child(
    name: str, program: str, on_line: Callable[[str], None] | None = None
) -> ChildCommand:
    return ChildCommand(
        name=name, arguments=(sys.executable, "-c", textwrap.dedent(program)), on_line=on_line
    )


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110 (what is waited for lies in other processes)
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 (a kernel's file)
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_children_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    program = """
        import os, signal, sys, time
        def end(*_):
            # Not print: the signal may come while the one below is still printing.
            os.write(1, f"{os.getcwd()} ends\\n".encode())
            with open("order", "a") as order:
                order.write(sys.argv[1] + " ")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        time.sleep(600)
    """
    lines: dict[str, list[str]] = {"app": [], "miner": []}
    children = [
        ChildCommand(
            name=name,
            arguments=(sys.executable, "-c", textwrap.dedent(program), name),
            on_line=lines[name].append,
        )
        for name in lines
    ]
    async with Supervisor(tmp_path, children) as supervisor:
        await wait_until(lambda: all(lines.values()))
        states = [child.state for child in supervisor.children.values()]
        assert states == ["running", "running"]
    assert (tmp_path / "order").read_text() == "miner app "
    assert lines["app"] == ["ready", f"{tmp_path} ends"]
    assert [child.state for child in supervisor.children.values()] == ["stopped", "stopped"]


async def test_a_child_starts_when_it_is_due_each_time(tmp_path: Path) -> None:
    due = tmp_path / "due"
    late = replace(python_child("cometbft", SLEEP), is_due=due.exists)
    async with Supervisor(tmp_path, [python_child("app", SLEEP), late]) as supervisor:
        child = supervisor.children["cometbft"]

        def has_state(state: str) -> bool:
            return child.state == state

        async def kill() -> None:
            due.touch()
            await wait_until(lambda: has_state("running"))
            due.unlink()
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            await wait_until(lambda: has_state("restarting"))

        await asyncio.sleep(0.3)
        assert has_state("starting")
        await kill()
        await asyncio.sleep(0.6)  # longer than its pause
        assert has_state("restarting")
        await kill()
    assert has_state("stopped"), "what is not due keeps nobody from stopping"


async def test_a_child_that_exits_with_0_is_started_again(tmp_path: Path) -> None:
    program = """
        import os, time
        with open("starts", "a") as starts:
            starts.write("x")
        if os.path.getsize("starts") < 3:
            raise SystemExit(0)
        print("stays", flush=True)
        time.sleep(600)
    """
    lines: list[str] = []
    async with Supervisor(tmp_path, [python_child("app", program, lines.append)]) as supervisor:
        await wait_until(lambda: lines == ["stays"])
        assert supervisor.children["app"].restarts == 2


async def test_a_killed_child_is_started_again_and_its_children_are_ended(tmp_path: Path) -> None:
    program = """
        import subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(grandchild.pid, flush=True)
        time.sleep(600)
    """
    lines: list[str] = []
    async with Supervisor(tmp_path, [python_child("app", program, lines.append)]) as supervisor:
        await wait_until(lambda: len(lines) == 1)
        pid = supervisor.children["app"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        # The grandchild holds the same stdout open: the exit is noticed all the same.
        await wait_until(lambda: len(lines) == 2)
        await wait_until(lambda: not is_running(int(lines[0])))
    # Its SIGKILL is on its way when the supervisor is done.
    await wait_until(lambda: not is_running(int(lines[1])))


async def test_a_child_that_keeps_failing_ends_everything_with_its_last_words(
    tmp_path: Path,
) -> None:
    program = 'raise SystemExit("the dataset is missing")'
    children = [python_child("app", SLEEP), python_child("miner", program)]
    async with Supervisor(tmp_path, children) as supervisor:
        other = supervisor.children["app"].pid
        with pytest.raises(ChildFailed) as failure:
            await supervisor.wait_failed()
    assert f"miner ended {MAX_FAILURES} times in a row, at last with exit code 1" in str(
        failure.value
    )
    assert str(failure.value).count("the dataset is missing") == 1  # of its last run alone
    assert str(tmp_path / "logs" / "miner.log") in str(failure.value)
    assert other is not None
    assert not is_running(other)


async def test_what_ends_with_another_that_fails_tells_the_last_words_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0.05)
    failing = """
        import pathlib, time
        failed = pathlib.Path("failed")
        if failed.exists():
            time.sleep(600)
        failed.touch()
        raise SystemExit("no dataset here")
    """
    following = """
        import pathlib, time
        while not pathlib.Path("failed").exists():
            time.sleep(0.01)
        print("EOF")
    """
    app = python_child("app", failing)
    node = replace(python_child("cometbft", following), ends_with="app")
    async with Supervisor(tmp_path, [app, node]) as supervisor:
        with pytest.raises(ChildFailed, match=f"cometbft ended {MAX_FAILURES} times") as failure:
            await supervisor.wait_failed()
    assert "app ended once, and cometbft with it" in str(failure.value)
    assert "no dataset here" in str(failure.value)
    assert "EOF" in str(failure.value)


async def test_progress_forgives_failures(tmp_path: Path) -> None:
    lines: list[str] = []
    child = python_child("app", 'print("up", flush=True); raise SystemExit(1)', lines.append)
    async with Supervisor(tmp_path, [child]) as supervisor:
        failed = asyncio.create_task(supervisor.wait_failed())
        while len(lines) < 2 * MAX_FAILURES:
            supervisor.note_progress("app")
            await asyncio.sleep(0.01)
        assert not failed.done()
        failed.cancel()


async def test_a_program_that_does_not_exist_is_said_and_nothing_stays(tmp_path: Path) -> None:
    absent = ChildCommand(name="cometbft", arguments=("/no/such/program",))
    supervisor = Supervisor(tmp_path, [python_child("app", SLEEP), absent])
    with pytest.raises(ChildFailed, match="cannot start cometbft"):
        await supervisor.__aenter__()
    assert supervisor.children["app"].state == "stopped"
    async with Supervisor(tmp_path, []):
        pass  # the home is free again


async def test_a_child_that_stays_after_its_last_words_is_started_again(tmp_path: Path) -> None:
    program = """
        import sys, time
        print("CONSENSUS FAIL", end="", flush=True)
        time.sleep(1.5)
        print("URE!!! no space left", flush=True)
        time.sleep(600)
    """
    frozen = replace(python_child("cometbft", program), last_words=FAILURE)
    async with Supervisor(tmp_path, [frozen]) as supervisor:
        with pytest.raises(ChildFailed, match="no space left"):
            await supervisor.wait_failed()


@pytest.mark.parametrize("cut", ["CONSENSUS FAILURE!!! err=write", "CONSENSUS FAI"])
async def test_last_words_that_a_full_disk_cut_off_are_heard(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LISTEN_S", 0.05)
    monkeypatch.setattr(supervisor_module, "_has_no_room", lambda _: True)
    program = f"import time; print('whole'); print({cut!r}, end='', flush=True); time.sleep(600)"
    frozen = replace(python_child("cometbft", program), last_words=FAILURE)
    async with Supervisor(tmp_path, [frozen]) as supervisor:
        with pytest.raises(ChildFailed, match=cut):
            await supervisor.wait_failed()


@pytest.mark.parametrize("rotation", ["moved", "cut"])
async def test_last_words_are_heard_in_a_log_that_was_rotated(
    tmp_path: Path, rotation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LISTEN_S", 0.05)
    program = """
        import pathlib, time
        print("a line longer than the last words are " * 9, flush=True)
        while not pathlib.Path("rotated").exists():
            time.sleep(0.01)
        print("CONSENSUS FAILURE!!! no space left", flush=True)
        time.sleep(600)
    """
    frozen = replace(python_child("cometbft", program), last_words=FAILURE)
    log, aside = tmp_path / "logs" / "cometbft.log", tmp_path / "logs" / "cometbft.log.1"
    async with Supervisor(tmp_path, [frozen]) as supervisor:
        await wait_until(lambda: b"longer" in log.read_bytes())
        await asyncio.sleep(0.2)  # looks at the log go by
        if rotation == "moved":
            log.rename(aside)
        else:
            os.truncate(log, 0)
        await asyncio.sleep(0.2)
        assert supervisor.children["cometbft"].failures == 0
        (tmp_path / "rotated").touch()
        await wait_until(lambda: supervisor.children["cometbft"].failures > 0)


async def test_a_moved_log_of_a_failed_child_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0.01)
    program = """
        import os, sys
        os.rename("logs/app.log", "logs/aside")
        sys.exit("the dataset is missing")
    """
    async with Supervisor(tmp_path, [python_child("app", program)]) as supervisor:
        with pytest.raises(ChildFailed, match="the dataset is missing"):
            await supervisor.wait_failed()


async def test_no_child_inherits_the_passphrase_but_who_is_given_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "open sesame")
    program = f"""
        import os, time
        print(os.environ.get({PASSPHRASE_VARIABLE!r}), "PATH" in os.environ, flush=True)
        time.sleep(600)
    """
    lines: dict[str, list[str]] = {"app": [], "miner": []}
    app = python_child("app", program, lines["app"].append)
    miner = replace(
        python_child("miner", program, lines["miner"].append),
        environment={PASSPHRASE_VARIABLE: "given"},
    )
    async with Supervisor(tmp_path, [app, miner]):
        await wait_until(lambda: all(lines.values()))
        assert lines == {"app": ["None True"], "miner": ["given True"]}
        for process in psutil.Process().children():  # the guard is one of them
            if "pol_abci.node.guard" in process.cmdline():
                assert PASSPHRASE_VARIABLE not in process.environ()
                break
        else:
            pytest.fail("there is no guard")


ERROR_LINE = b"E[2026-11-24|13:24:08.854] %-44s module=p2p err=%s"


@pytest.mark.parametrize(
    ("line", "is_last"),
    [
        (ERROR_LINE % (b"CONSENSUS FAILURE!!!", b'"failed to save"'), True),
        (b'{"_msg":"CONSENSUS FAILURE!!!","err":"failed to save","level":"error"}', True),
        (ERROR_LINE % (b"Error dialing peer", b'"Got CONSENSUS FAILURE!!!, expected x"'), False),
        (ERROR_LINE % (b"Error dialing peer", rb'"\nE[0] CONSENSUS FAILURE!!! , x"'), False),
        (rb'{"_msg":"Error","err":"{\"_msg\":\"CONSENSUS FAILURE!!!\""}', False),
    ],
)
def test_a_peer_s_words_are_not_cometbft_s_last_ones(line: bytes, is_last: bool) -> None:
    assert bool(LAST_WORDS.search(line)) == is_last


async def test_a_log_that_cannot_be_written_ends_everything_in_words(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "miner.log").symlink_to("/dev/full")
    children = [python_child("app", SLEEP), python_child("miner", SLEEP)]
    supervisor = Supervisor(tmp_path, children)
    with pytest.raises(
        ChildFailed, match=r"miner\.log \(No space left on device\): is the disk full"
    ):
        await supervisor.__aenter__()
    assert not any(child.pid for child in supervisor.children.values())


async def test_a_child_deaf_to_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    program = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(600)
    """
    lines: list[str] = []
    child = python_child("app", program, lines.append)
    async with Supervisor(tmp_path, [child], grace_s=0.2) as supervisor:
        await wait_until(lambda: lines == ["deaf"])
        pid = supervisor.children["app"].pid
    assert pid is not None
    assert not is_running(pid)


async def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, []):
        with pytest.raises(HomeInUse, match="another `pol-abci up` runs on it"):
            await Supervisor(tmp_path, []).__aenter__()


async def test_a_fault_in_a_line_s_reader_is_not_swallowed(tmp_path: Path) -> None:
    def fail(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ExceptionGroup) as failure:
        async with Supervisor(
            tmp_path, [python_child("miner", f"print('line', flush=True); {SLEEP}", fail)]
        ) as supervisor:
            await supervisor.wait_failed()
    assert failure.group_contains(ValueError, match="line")


async def test_logs_hold_both_streams_of_every_run(tmp_path: Path) -> None:
    program = 'import sys; print("out"); print("err", file=sys.stderr)'
    with pytest.raises(ChildFailed):
        async with Supervisor(tmp_path, [python_child("app", program)]) as supervisor:
            await supervisor.wait_failed()
    log = (tmp_path / "logs" / "app.log").read_text()
    assert log.count("out\n") == log.count("err\n") == MAX_FAILURES


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pathlib import Path
        from pol_abci.node.supervisor import (ChildCommand, Supervisor,)
        async def main():
            child = ChildCommand(name="app", arguments=(sys.executable, "-c", {SLEEP!r}))
            async with Supervisor(Path("."), [child]) as supervisor:
                print(supervisor.children["app"].pid, flush=True)
                await supervisor.wait_failed()
        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert is_running(pid)
        supervisor.kill()
    deadline = time.monotonic() + DEADLINE_S
    while is_running(pid):
        assert time.monotonic() < deadline, "the child outlived its supervisor"
        time.sleep(0.02)


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port} .*--rpc-port"):
            check_port(f"tcp://127.0.0.1:{port}", "--rpc-port")
    check_port(f"tcp://127.0.0.1:{port}", "--rpc-port")


async def test_a_child_that_hangs_when_it_should_end_with_another_is_started_again(
    tmp_path: Path,
) -> None:
    app = python_child("app", SLEEP)
    stubborn = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    """
    node = replace(python_child("cometbft", stubborn), ends_with="app")
    apart = python_child("miner", SLEEP)
    async with Supervisor(tmp_path, [app, node, apart], grace_s=0.2, leave_s=0.2) as supervisor:
        first = {name: child.pid for name, child in supervisor.children.items()}
        assert first["app"] is not None
        os.kill(first["app"], signal.SIGKILL)
        await wait_until(
            lambda: all(
                supervisor.children[name].pid not in {None, first[name]}
                for name in ("app", "cometbft")
            )
        )
        assert supervisor.children["miner"].pid == first["miner"]
