"""README.md and the index of decisions: what they list is what there is, nothing left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pol_abci.cli.commands import MODULES

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_commands_are_those_of_the_program() -> None:
    assert sorted(re.findall(r"^\| `pol-abci (\w+)`", README, re.MULTILINE)) == sorted(MODULES)


def test_links_lead_to_files() -> None:
    # The picture comes out of a run, and is put there for a release.
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


@pytest.mark.parametrize(("title", "lines"), [("Algorithm 1", 21), ("Algorithm 2", 7)])
def test_each_line_of_the_paper_has_its_row(title: str, lines: int) -> None:
    table = README.split(f"**{title},")[1].split("\n\n")[1]
    rows = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
    assert rows == ["line", "input", *map(str, range(1, lines + 1))]
    shown_by = [row.split("| ")[-1] for row in table.splitlines()[2:]]
    assert all(re.match(r"\[[\w ]+\]\(", cell) for cell in shown_by), "a row without evidence"


def test_files_named_in_the_text_exist() -> None:
    named = set(re.findall(r"`((?:pol_abci/)?(?:\w+/)+\w+\.py)`", README))
    assert named
    for name in named:
        assert (REPOSITORY / "pol_abci" / name.removeprefix("pol_abci/")).exists(), name


def test_index_of_decisions_lists_each_with_its_title() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    titles = {
        path.name: path.read_text("utf-8").splitlines()[0].split(" ", 2)[2]
        for path in folder.glob("[0-9]*.md")
    }
    index = re.findall(
        r"^- \[\d{4}\]\((.*?)\) (.*)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert dict(index) == titles
