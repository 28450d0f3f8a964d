"""`replay` believes nothing that a foreign node says of itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pol_abci.audit.folder import ChainGenesis
from pol_abci.cli import main
from tests.abci.digits_chain import make_genesis

if TYPE_CHECKING:
    from pathlib import Path


class ForeignNode:
    """A node that gives its chain a name of its choice."""

    def __init__(self, chain_id: str) -> None:
        self.chain_id = chain_id

    def get_genesis(self) -> ChainGenesis:
        return ChainGenesis(self.chain_id, 1, make_genesis())


@pytest.mark.parametrize("chain_id", ["x/../../escaped", "a\x1b[2Jb", "x" * 51, ""])
def test_a_foreign_chain_id_that_is_none_becomes_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain_id: str
) -> None:
    here = tmp_path / "deep" / "here"
    (here / "audit-x").mkdir(parents=True)
    monkeypatch.chdir(here)
    module = importlib.import_module("pol_abci.cli.replay")
    monkeypatch.setattr(module, "open_blocks", lambda *_: ForeignNode(chain_id))
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["replay", "--node", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "chain id" in result.stderr
    assert "letters, digits, dots, dashes or underscores" in result.stderr
    assert repr(chain_id) in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
