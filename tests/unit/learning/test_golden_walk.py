"""The golden walk comes out the same on every device, instruction set and number of threads."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest

from pol_abci.learning import golden
from pol_abci.learning.exact.machine import InexactMachine

GOLDEN = golden.read_golden_walk()


def test_the_golden_walk_in_this_process(device: str) -> None:
    assert golden.compute_golden_walk(device) == GOLDEN["made"]
    golden.check_golden_walk(device)


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
        [sys.executable, "-m", "pol_abci.learning.golden"],
        check=True,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert json.loads(result.stdout) == GOLDEN


@pytest.mark.parametrize(
    ("part", "index", "words"),
    [("probes", 4, "from step 5 on"), ("scores", 7, "in its scores, its roots or its accuracy")],
)
def test_a_machine_that_walks_otherwise_is_refused_with_where(
    monkeypatch: pytest.MonkeyPatch, part: str, index: int, words: str
) -> None:
    other = copy.deepcopy(GOLDEN)
    other["made"][part][index] = None
    monkeypatch.setattr(golden, "read_golden_walk", lambda: other)
    with pytest.raises(InexactMachine, match=words):
        golden.check_golden_walk()


def test_what_a_verifier_of_digits_does_first_loads_no_library_that_takes_seconds() -> None:
    code = (
        "import sys; from pol_abci.learning.golden import check_golden_walk; check_golden_walk(); "
        "print([name for name in ('scipy', 'sklearn', 'torchvision') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
