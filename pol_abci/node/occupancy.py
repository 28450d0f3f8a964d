"""Whether a home and its ports are free, and holding a home."""

from __future__ import annotations

import contextlib
import fcntl
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE = "up.lock"


class HomeInUse(PolError):
    """Another supervisor runs on this home."""


class PortInUse(PolError):
    """A port that a child would listen on is taken."""


def check_lock(home: Path) -> None:
    """Raise `HomeInUse` when a supervisor runs on this home."""
    with lock_home(home):
        pass


def check_port(address: str, flag: str) -> None:
    """Raise `PortInUse`, naming `flag`, when `address` (`tcp://host:port`) is taken."""
    parts = urlsplit(address)
    host, port = parts.hostname or "0.0.0.0", parts.port or 0  # noqa: S104 (what CometBFT takes an empty host for)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, "
                f"or choose another port with {flag}"
            ) from error


@contextlib.contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Hold the home's lock; the kernel lets it go when this process ends in any way."""
    with (home / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HomeInUse(
                f"{home} is in use: another `pol-abci up` runs on it; "
                f"stop that one, or choose another folder with --home"
            ) from error
        yield
