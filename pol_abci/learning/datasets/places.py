"""Where datasets lie on a machine: one place, searched in two folders."""

from __future__ import annotations

from pathlib import Path

SYSTEM_FOLDER = Path("/usr/share/datasets")
"""Where Debian's dataset packages put a folder each."""


def get_folders(name: str, directory: Path | None) -> list[Path]:
    """Where the files of a dataset may be: the given folder, or one of its name in it."""
    if directory is None:
        return [SYSTEM_FOLDER / name]
    return [directory, directory / name]
