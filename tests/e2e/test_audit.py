"""A chain is recomputed from a real CometBFT's blocks, and any generation's model leaves it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.quick_home import make_quick_home, read_chain, run_program

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "load_model.py"
SAME = "the same, bit for bit"
GENERATIONS = 8


async def test_replay_survives_kill_9_and_export_gives_the_chains_accuracy(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    async with run_program("up", "--home", home.path, "--generations", str(GENERATIONS)) as up:
        # A node that runs is asked itself; the audit may end before its chain does.
        await up.wait_for_line("generation 2:")
        running = ("replay", "--home", home.path, "--out", tmp_path / "of-running")
        async with run_program(*running) as replay:
            assert await replay.wait() == 0, "\n".join(replay.lines)
        assert replay.lines[-1] == SAME
        assert await up.wait() == 0, "\n".join(up.lines)
    app_hash, records = read_chain(home)

    async with run_program("replay", "--home", home.path) as replay:
        await replay.wait_for_line("generation 3:")
        if not replay.has_ended:
            replay.process.kill()
        await replay.wait()
    async with run_program("replay", "--home", home.path) as replay:
        assert await replay.wait() == 0, "\n".join(replay.lines)
    assert any("going on after height" in line for line in replay.lines)
    assert replay.lines[-1] == SAME
    assert app_hash.hex() in replay.lines[-2]

    async with run_program(*running, "--json") as replay:  # goes on where the running node was left
        assert await replay.wait() == 0, "\n".join(replay.lines)
    result = json.loads(replay.lines[-1])
    assert (result["same"], result["app_hash"]) == (True, app_hash.hex())
    assert result["generation"] == len(records)

    for record in (records[len(records) // 2], records[-1]):
        await _check_export(tmp_path, home.path, record)


async def _check_export(folder: Path, home: Path, record: GenerationRecord) -> None:
    """The same file from the node's history and from an audit; plain torch gets its accuracy."""
    generation = ("--generation", str(record.generation))
    model, again = folder / "model.safetensors", folder / "again.safetensors"
    async with run_program("export", "--home", home, *generation, "--out", model) as export:
        assert await export.wait() == 0, "\n".join(export.lines)
    audit = ("export", "--audit", home / "audit", *generation, "--out", again)
    async with run_program(*audit) as export:
        assert await export.wait() == 0, "\n".join(export.lines)
    assert model.read_bytes() == again.read_bytes()
    provenance = json.loads((folder / "model.safetensors.json").read_text())
    assert provenance["weights_root"] == record.weights_root.hex()
    if record.has_accuracy:  # the node may have been stopped before it counted
        assert provenance["accuracy"]["correct"] == record.correct_all

    run = subprocess.run(  # noqa: ASYNC221  (nothing else runs here)
        [sys.executable, EXAMPLE, model], check=True, capture_output=True, text=True
    )
    here = re.search(r"plain float32: (\d+) of 360", run.stdout)
    assert here is not None, run.stdout
    assert abs(int(here[1]) - provenance["accuracy"]["correct"]) <= 1
