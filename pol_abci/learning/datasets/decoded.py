"""Images that were decoded once: kept in the user's cache, mapped into memory, held by digest."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.cache_folder import get_cache_folder
from pol_abci.learning.datasets.dataset import DatasetMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Pixels = tuple["NDArray[np.uint8]", "NDArray[np.uint8]"]
"""Images [count, H, W, C] and labels [count]."""

_VERSION = 1
"""Of what decoding means here: a higher one makes every copy anew."""


def load_decoded(
    name: str, source: Path, files: Sequence[Path], decode: Callable[[], dict[str, Pixels]]
) -> dict[str, Pixels]:
    """Images and labels of each part, decoded now or at an earlier start.

    Parameters
    ----------
    name
        Of the dataset.
    source, files
        Where it was found, and all that it was found in: a copy is of these files as they are,
        by path, size and time of change.
    decode
        Makes the parts out of the files.

    Raises
    ------
    DatasetMissing
        When a file cannot be looked at, or the copy not be written.
    """
    try:
        states = [(file, file.stat()) for file in files]
    except OSError as error:
        raise DatasetMissing(f"{error.filename}: {error.strerror}; get {name} again") from error
    listing = "\n".join(
        f"{file.relative_to(source)} {state.st_size} {state.st_mtime_ns}" for file, state in states
    )
    fingerprint = hashlib.sha256(f"{_VERSION}\n{source.resolve()}\n{listing}".encode())
    folder = get_cache_folder() / "datasets" / f"{name}-{fingerprint.hexdigest()[:16]}"
    parts = _open(folder)
    if parts is None:
        try:
            _write(folder, decode())
        except OSError as error:
            raise DatasetMissing(
                f"cannot keep the images of {name} in {folder}: {error.strerror}; free some space, "
                "or let XDG_CACHE_HOME name another folder"
            ) from error
        parts = _open(folder)
        assert parts is not None
    return parts


def _open(folder: Path) -> dict[str, Pixels] | None:
    """Map a copy; None where there is none, or not the one that was written."""
    try:
        digests: dict[str, str] = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
        parts = {part: _map(folder, part) for part in digests}
    except (OSError, ValueError):
        return None
    is_whole = all(_compute_digest(parts[part]) == digest for part, digest in digests.items())
    return parts if is_whole else None


def _map(folder: Path, part: str) -> Pixels:
    images, labels = (
        np.load(folder / f"{part}-{kind}.npy", mmap_mode="r", allow_pickle=False)
        for kind in ("images", "labels")
    )
    return np.asarray(images), np.array(labels)


def _compute_digest(pixels: Pixels) -> str:
    images, labels = pixels
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(images.data)
    digest.update(labels.data)
    return digest.hexdigest()


def _write(folder: Path, parts: dict[str, Pixels]) -> None:
    """Put a copy into its place whole, whatever ends this process before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        digests = {}
        for part, (images, labels) in parts.items():
            whole = np.ascontiguousarray(images)
            np.save(made / f"{part}-images.npy", whole)
            np.save(made / f"{part}-labels.npy", labels)
            digests[part] = _compute_digest((whole, labels))
        (made / "digests.json").write_text(json.dumps(digests), encoding="utf-8")
        if folder.exists() and _open(folder) is None:  # another process may have been quicker
            shutil.rmtree(folder)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else the same copy is there
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
