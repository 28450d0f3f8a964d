"""Files that only their owner may read: keys and passphrases."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from pol_abci.rules.errors import PolError


class KeyFileError(PolError):
    """A key file that cannot be read or written as asked."""


def read_private_text(path: Path, what: str) -> str:
    """Read a file that only its owner may read; `what` names its content in sentences.

    Raises
    ------
    KeyFileError
        When it is missing, readable by others, or no text.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileError(
                    f"others can read the {what} {path} (mode {mode:04o}); run: chmod 600 {path}"
                )
            return file.read()
    except FileNotFoundError as error:
        raise KeyFileError(f"there is no {what} at {path}") from error
    except OSError as error:
        raise KeyFileError(f"cannot read the {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{path} is not text, so it holds no {what}") from error


def read_private_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file that only its owner may read; errors as above."""
    try:
        content = json.loads(read_private_text(path, what))
    except ValueError as error:
        raise KeyFileError(f"{path} is not JSON, so it holds no {what}") from error
    if not isinstance(content, dict):
        raise KeyFileError(f"{path} is not a JSON object, so it holds no {what}")
    return content


def write_private_json(path: Path, content: dict[str, Any], *, replace: bool = False) -> None:
    """Write a JSON object to a file of mode 0600, wholly or not at all.

    It is written beside its place and moved there when it is on the disk, so that a crash or a
    full disk leaves either the old file or the new one. Where `path` is a link, the file that it
    leads to is replaced: an old key must not stay behind there.

    Raises
    ------
    KeyFileError
        When the file exists and is not to be replaced, or cannot be written.
    """
    try:
        if replace:
            path = path.resolve()
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # of mode 0600
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                draft.replace(path)
            else:
                path.hardlink_to(draft)  # unlike a rename, it never takes an existing file's place
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} exists; a key is never overwritten, name another file"
        ) from error
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's new entry to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
