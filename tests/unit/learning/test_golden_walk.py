"""The golden walk comes out the same on every instruction set and number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.make_digits_walk import compute_golden_walk

ROOT = Path(__file__).parents[3]
GOLDEN = json.loads((ROOT / "tests/golden/digits_walk.json").read_text())


def test_the_golden_walk_in_this_process() -> None:
    assert compute_golden_walk() == GOLDEN


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
        {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONHASHSEED": "1"},
    ],
    ids=["one thread, no vector extensions", "two threads, AVX2"],
)
def test_the_golden_walk_elsewhere(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.golden.make_digits_walk"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert json.loads(result.stdout) == GOLDEN
