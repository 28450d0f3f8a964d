"""A passphrase comes from a file, the environment or the terminal, and is never shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from nacl.pwhash import argon2id

from pol_abci.cli import main, passphrase
from pol_abci.client import keys as keys_module
from pol_abci.client.keys import AccountKey, KeyFile
from pol_abci.client.sealing import PASSPHRASE_VARIABLE, Cost, seal_seed

if TYPE_CHECKING:
    from pathlib import Path

CHEAP = Cost(argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "seal_seed", lambda seed, text: seal_seed(seed, text, CHEAP))
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "has_terminal", lambda: True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key.json"


def run(*arguments: str | Path, typed: str = "", env: str | None = None) -> Result:
    environment = {PASSPHRASE_VARIABLE: env}
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, words, input=typed, env=environment)


def write_passphrase(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.mark.usefixtures("typing")
def test_a_person_types_a_new_passphrase_twice(file: Path) -> None:
    made = run("keys", "new", file, "--passphrase", typed="open sesame\nopen sesame\n")
    assert made.exit_code == 0, made.stderr
    assert "sesame" not in made.output
    assert AccountKey.load(file, lambda: "open sesame")
    shown = run("keys", "show", file, "--json")
    assert json.loads(shown.stdout)["has_passphrase"] is True


@pytest.mark.usefixtures("typing")
@pytest.mark.parametrize(("typed", "why"), [("one\ntwo\n", "differ"), ("\n\n", "empty")])
def test_a_mistyped_passphrase_makes_no_key(file: Path, typed: str, why: str) -> None:
    result = run("keys", "new", file, "--passphrase", typed=typed)
    assert result.exit_code == 1
    assert why in result.stderr
    assert not file.exists()


def test_services_give_it_in_the_environment_or_in_a_file(file: Path, tmp_path: Path) -> None:
    words = write_passphrase(tmp_path / "words", "from a file\n")
    assert run("keys", "new", file, "--passphrase", env="from env").exit_code == 0
    changed = run("keys", "passphrase", file, "--new-passphrase-file", words, env="from env")
    assert changed.exit_code == 0, changed.stderr
    assert AccountKey.load(file, lambda: "from a file")
    removed = run("keys", "passphrase", file, "--passphrase-file", words, "--remove")
    assert removed.exit_code == 0, removed.stderr
    assert not KeyFile.read(file).is_sealed


def test_a_passphrase_file_that_others_can_read_is_refused(file: Path, tmp_path: Path) -> None:
    words = write_passphrase(tmp_path / "words", "secret")
    words.chmod(0o644)
    result = run("keys", "new", file, "--passphrase-file", words)
    assert result.exit_code == 1
    assert f"chmod 600 {words}" in result.stderr
    assert not file.exists()


def test_without_anybody_to_ask_it_says_what_to_give(file: Path) -> None:
    AccountKey.generate().save(file, "open")
    result = run("keys", "passphrase", file, "--remove")
    assert result.exit_code == 1
    assert "--passphrase-file" in result.stderr
    assert PASSPHRASE_VARIABLE in result.stderr
    result = run("keys", "passphrase", file, "--remove", env="shut")
    assert (result.exit_code, "not the passphrase of" in result.stderr) == (1, True)
    assert KeyFile.read(file).is_sealed


def test_mine_unlocks_its_key(file: Path) -> None:
    AccountKey.generate().save(file, "open")
    locked = run("mine", "--key", file, "--node", "ftp://host:1")
    assert "has a passphrase" in locked.stderr
    unlocked = run("mine", "--key", file, "--node", "ftp://host:1", env="open")
    assert "not the address of a node's RPC" in unlocked.stderr


@pytest.mark.usefixtures("typing")
def test_ctrl_c_at_the_question_is_code_130(file: Path) -> None:
    assert run("keys", "new", file, "--passphrase").exit_code == 130  # the input ends
    assert not file.exists()
