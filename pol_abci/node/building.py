"""What all ways to make a home share.

A home appears whole or not at all, and never in the place of another one.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pol_abci.node.layout import HomeError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def build_home(path: Path, command: str = "pol-abci up") -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the body has made it whole.

    `command` is what goes on from a folder that is there already.
    """
    path = path.absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise HomeError(
            f"{path} exists and is not empty; nothing is ever overwritten: go on with "
            f"`{command} --home {shlex.quote(str(path))}`, or choose another folder"
        )
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        with contextlib.ExitStack() as undo:
            for parent in reversed(missing):
                parent.mkdir()
                undo.callback(parent.rmdir)
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
            undo.callback(shutil.rmtree, folder)
            yield folder
            folder.rename(path)
            undo.pop_all()
    except OSError as error:
        raise HomeError(f"cannot make {path}: {error}") from error


def make_cometbft_files(folder: Path, cometbft: Path) -> None:
    """Let CometBFT make what its home `folder` lacks of keys, genesis and configuration.

    Raises
    ------
    HomeError
        When it fails; the message has its words.
    """
    run = subprocess.run(  # noqa: S603 (a binary that find_cometbft has checked)
        [cometbft, "init", "--home", folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode != 0:
        raise HomeError(f"`{cometbft} init` failed: {(run.stderr or run.stdout).strip()}")
