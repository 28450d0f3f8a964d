"""A chain is recomputed from a real CometBFT's blocks, and any generation's model leaves it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.quick_home import make_quick_home, read_chain, run_program, stop_program

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "load_model.py"
GENERATIONS = 6


async def test_replay_survives_kill_9_and_export_gives_the_chains_accuracy(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    replay_command = ("replay", "--home", home.path, "--until-height")
    async with run_program("up", "--home", home.path) as up:
        await up.wait_for_line(f"generation {GENERATIONS}:")
        # A node that runs is asked itself; while it makes blocks, so that the last one is proven.
        async with run_program(*replay_command, "6", "--json") as replay:
            assert await replay.wait() == 0, "\n".join(replay.lines)
        await stop_program(up)
    result = json.loads(replay.lines[-1])
    assert (result["same"], result["height"], result["last_result_is_proven"]) == (True, 6, True)
    app_hash, records = read_chain(home)

    async with run_program("replay", "--home", home.path) as replay:
        await replay.wait_for_line(f"generation {GENERATIONS // 2}:")
        if not replay.has_ended:
            replay.process.kill()
        await replay.wait()
    assert any("going on after height 6," in line for line in replay.lines)
    async with run_program("replay", "--home", home.path) as replay:
        assert await replay.wait() == 0, "\n".join(replay.lines)
    assert replay.lines[-1] == "the same, bit for bit"
    assert f"{len(records)} generations" in replay.lines[-2]
    assert app_hash.hex() in replay.lines[-2]

    record = records[len(records) // 2]
    model, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    provenance = await _export(record, model, "--home", home.path)
    assert provenance == await _export(record, again, "--audit", home.path / "audit")
    assert model.read_bytes() == again.read_bytes()

    run = subprocess.run(  # noqa: ASYNC221  (nothing else runs here)
        [sys.executable, EXAMPLE, model], check=True, capture_output=True, text=True
    )
    here = re.search(r"plain float32: (\d+) of 360", run.stdout)
    assert here is not None, run.stdout
    assert abs(int(here[1]) - provenance["accuracy"]["correct"]) <= 1


async def _export(record: GenerationRecord, path: Path, *source: str | Path) -> dict[str, Any]:
    """Export a generation's model; its provenance, held against the chain's record."""
    generation = ("--generation", str(record.generation))
    async with run_program("export", *source, *generation, "--out", path) as export:
        assert await export.wait() == 0, "\n".join(export.lines)
    provenance: dict[str, Any] = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert provenance["weights_root"] == record.weights_root.hex()
    if record.has_accuracy:  # the node may have been stopped before it counted
        assert provenance["accuracy"]["correct"] == record.correct_all
    return provenance
