"""Where the server listens: addresses, and sockets opened with faults told in words.

A unix socket's file outlives a process that was killed; it is replaced if nobody answers on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from pathlib import Path
from typing import NamedTuple

from pol_abci.rules.errors import PolError

_PROBE_S = 0.2
"""That a look for a listener may take: who looks waits for it with everything else."""


class InvalidAddress(PolError):
    """An address on which nothing can listen."""


class AddressInUse(PolError):
    """Another process listens on the address."""


class UnixAddress(NamedTuple):
    """`unix://path`; a relative path starts in the working directory."""

    path: Path


class TcpAddress(NamedTuple):
    """`tcp://host:port`; port 0 takes a free one."""

    host: str
    port: int


def parse_address(address: str) -> UnixAddress | TcpAddress:
    """Read "unix://path" or "tcp://host:port".

    Raises
    ------
    InvalidAddress
        It is neither.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix" and rest:
        return UnixAddress(Path(rest))
    if separator and scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if host and re.fullmatch("[0-9]{1,5}", port) and int(port) < 2**16:
            return TcpAddress(host.removeprefix("[").removesuffix("]"), int(port))
    raise InvalidAddress(f"{address!r} is not an address: write unix://path or tcp://host:port")


def open_listener(address: UnixAddress | TcpAddress) -> tuple[socket.socket, str]:
    """Bind and listen; gives the socket and its address in full.

    Raises
    ------
    InvalidAddress, AddressInUse
        In words, with what to do.
    """
    if isinstance(address, UnixAddress):
        return open_unix_listener(address.path), f"unix://{address.path}"
    return open_tcp_listener(address)


def open_unix_listener(path: Path) -> socket.socket:
    """Listen on a socket file that only this user can open, replacing a dead one."""
    remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        listener.listen()
    except OSError as fault:
        listener.close()
        if fault.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{path} is in use by a process that started just now") from fault
        # OSError without a number: Python's own "AF_UNIX path too long"
        reason = os.strerror(fault.errno) if fault.errno else str(fault)
        raise InvalidAddress(
            f"cannot listen on unix://{path}: {reason}. Its folder must exist and be writable, "
            "and the path be at most 107 bytes long"
        ) from fault
    return listener


def remove_stale_socket(path: Path) -> None:
    """Delete a socket file on which nobody listens any more.

    Raises
    ------
    AddressInUse
        Somebody does.
    InvalidAddress
        The path is something other than a socket.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # absent, or in an unreadable place: bind says which
    if not stat.S_ISSOCK(mode):
        raise InvalidAddress(f"{path} exists and is no socket: remove it or take another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as fault:
            raise InvalidAddress(f"cannot look at the socket {path}: {fault}") from fault
    raise AddressInUse(
        f"{path} is in use: stop the application that listens there, or take another path"
    )


def is_listening(address: UnixAddress | TcpAddress, folder: Path) -> bool:
    """Whether somebody listens there; a relative path starts in `folder`."""
    if isinstance(address, UnixAddress):
        path = folder / address.path
        with contextlib.ExitStack() as ends:
            try:
                # By its folder's number: a path may be too long for a socket.
                number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
                ends.callback(os.close, number)
                probe = ends.enter_context(socket.socket(socket.AF_UNIX))
                probe.settimeout(_PROBE_S)
                probe.connect(f"/proc/self/fd/{number}/{path.name}")
            except OSError:
                return False
        return True
    try:
        socket.create_connection(address, timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


def remove_socket_file(listener: socket.socket) -> None:
    """Delete the file of a listening unix socket; nothing for TCP."""
    if listener.family == socket.AF_UNIX:
        Path(listener.getsockname()).unlink(missing_ok=True)


def open_tcp_listener(address: TcpAddress) -> tuple[socket.socket, str]:
    """Listen on one address of the host; port 0 takes a free one."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as fault:
        raise InvalidAddress(f"cannot listen on host {address.host}: {fault}") from fault
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
    except OSError as fault:
        listener.close()
        name = f"tcp://{address.host}:{address.port}"
        if fault.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{name} is in use: stop what listens there, or take another port"
            ) from fault
        raise InvalidAddress(f"cannot listen on {name}: {fault.strerror}") from fault
    host = f"[{address.host}]" if ":" in address.host else address.host
    return listener, f"tcp://{host}:{listener.getsockname()[1]}"
