"""Whether somebody listens where an application is to, before CometBFT is sent there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pol_abci.abci.listener import (
    TcpAddress,
    UnixAddress,
    is_listening,
    open_tcp_listener,
    open_unix_listener,
    parse_address,
)

LONGEST_PATH = 107


@pytest.fixture
def socket_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path too long for a socket, but from its own folder."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert len(str(folder)) > LONGEST_PATH
    return folder / "app.sock"


def test_a_socket_file_has_a_listener_or_had_one(socket_file: Path) -> None:
    address, folder = parse_address("unix://app.sock"), socket_file.parent
    assert not is_listening(address, folder)
    with open_unix_listener(Path(socket_file.name)):
        assert is_listening(address, folder)
        assert is_listening(UnixAddress(socket_file), Path("elsewhere"))
    assert socket_file.exists(), "what a killed process leaves"
    assert not is_listening(address, folder)


def test_a_place_that_no_socket_can_be_in_has_no_listener(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_listening(UnixAddress(Path("missing/app.sock")), tmp_path)
    assert not is_listening(UnixAddress(Path("file")), tmp_path)


def test_a_port_has_a_listener_or_had_one(tmp_path: Path) -> None:
    listener, _ = open_tcp_listener(TcpAddress("127.0.0.1", 0))
    address = TcpAddress("127.0.0.1", listener.getsockname()[1])
    with listener:
        assert is_listening(address, tmp_path)
        listener.shutdown(socket.SHUT_RDWR)
    assert not is_listening(address, tmp_path)
