"""Random blocks on disk: restarts, the order of insertion and the hash seed change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from tests.unit.rules.blocks_on_disk import BlocksOnDisk

if TYPE_CHECKING:
    from pathlib import Path

TestBlocksOnDisk = BlocksOnDisk.TestCase
TestBlocksOnDisk.settings = settings(
    max_examples=6,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_the_hash_seed_of_a_process_changes_no_app_hash(tmp_path: Path) -> None:
    module = "tests.unit.rules.play_random_blocks"
    players = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(tmp_path / seed), "60"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("0", "1", "2")
    ]
    told = [player.communicate()[0].split() for player in players]
    assert [player.returncode for player in players] == [0, 0, 0]
    assert len(set(told[0])) > 30
    assert told[0] == told[1] == told[2]
