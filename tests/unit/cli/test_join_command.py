"""`join` says what is wrong before anything is fetched or made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pol_abci.cli import main

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:1"
HASH = "AB" * 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Missing option '--from'"),
        (("--from", NOBODY, "--trust-height", "5"), "belong together"),
        (("--from", NOBODY, "--trust-hash", HASH), "belong together"),
        (("--from", NOBODY, "--trust-height", "5", "--trust-hash", "AB"), "64 hexadecimal digits"),
        (("--from", NOBODY, "--trust-height", "0", "--trust-hash", HASH), "--trust-height"),
        (
            ("--from", NOBODY, "--blocks", "--trust-height", "5", "--trust-hash", HASH),
            "--blocks trusts no block",
        ),
        (("--from", NOBODY, "--peers", "somebody"), "give ID@HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = CliRunner().invoke(main, ["join", "--home", str(tmp_path / "home"), *options])
    assert result.exit_code == 2
    assert words in result.stderr.replace("\n", " ")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("url", "words"), [(NOBODY, "no node answers"), ("nowhere", "is not the address of a node")]
)
def test_a_node_that_cannot_be_asked_is_a_fault_in_words(
    tmp_path: Path, url: str, words: str
) -> None:
    result = CliRunner().invoke(main, ["join", "--home", str(tmp_path / "home"), "--from", url])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert not (tmp_path / "home").exists()
