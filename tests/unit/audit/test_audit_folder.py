"""What an audit keeps is on the disk before it is built upon."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING

from pol_abci.audit.folder import POSITION_FILE, AuditFolder, ChainGenesis, Position
from tests.abci.digits_chain import CHAIN_ID, make_genesis

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_position_and_its_name_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = Position(height=1, block_hash=bytes(32), codes=(), faults=(), sets=({}, {}, {}))
    synced: list[tuple[bool, bool]] = []

    def note(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        synced.append((is_folder, (tmp_path / POSITION_FILE).exists()))

    with closing(AuditFolder.open(tmp_path, ChainGenesis(CHAIN_ID, 1, make_genesis()))) as folder:
        monkeypatch.setattr(os, "fsync", note)
        folder.write_position(None, position)
    # Content before it has its name, then the folder that holds the name.
    assert synced[:2] == [(False, False), (True, True)]
