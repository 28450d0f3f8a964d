"""What deploy/ runs is what this program takes; nothing here builds an image."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest

from pol_abci.cli import main
from pol_abci.node.binary import ENVIRONMENT_VARIABLE, RELEASES

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
UNITS = sorted(DEPLOY.glob("*.service"))
IN_UNITS, IN_CONTAINERS = "/opt/pol-abci/bin/pol-abci", "pol-abci"


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    unit.read(path)
    return unit


def assert_taken(arguments: list[str]) -> None:
    """The command is there, and takes all of these options."""
    name, *options = arguments
    command = main.get_command(None, name)  # type: ignore[arg-type]  # it looks at the name alone
    assert command is not None, name
    command.make_context(name, options)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_commands_that_there_are(path: Path) -> None:
    program, *arguments = shlex.split(read_unit(path)["Service"]["ExecStart"])
    assert program == IN_UNITS
    assert_taken(arguments)


def test_containers_run_commands_that_there_are() -> None:
    lists = [json.loads(found) for found in re.findall(r"(?:command|test): (\[.*\])", COMPOSE)]
    lists += [
        json.loads(found) for found in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    ]
    assert len(lists) == 4
    for words in lists:
        assert_taken(words[2:] if words[:2] == ["CMD", IN_CONTAINERS] else words)
    assert f'ENTRYPOINT ["{IN_CONTAINERS}"]' in DOCKERFILE


def test_versions_are_those_that_everything_else_uses() -> None:
    assert re.findall(r"go install (\S+)", DOCKERFILE) == [RELEASES[0].module]
    assert f"{ENVIRONMENT_VARIABLE}=/usr/local/bin/cometbft" in DOCKERFILE
    (go,) = re.findall(r"^FROM golang:(\d+)\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert tuple(map(int, go)) >= RELEASES[0].smallest_go[:2]
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    uv = re.findall(r"^UV_VERSION := (\S+)", makefile, re.MULTILINE)
    operations = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    assert re.findall(r"uv==(\S+)", DOCKERFILE) == re.findall(r"uv==(\S+)", operations) == uv


def test_what_is_copied_into_the_image_is_there_and_let_through() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    ]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert copied
    for name in copied:
        assert (REPOSITORY / name).exists(), name
        assert f"!{name}" in ignored
