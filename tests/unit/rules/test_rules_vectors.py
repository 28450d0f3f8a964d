"""The JSON vectors say what the package computes, and what a naive second reading computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.rules import reference
from tests.vectors import rules_vectors

FOLDER = Path(rules_vectors.__file__).parent
NAMES = sorted(rules_vectors.CASES)


def read_cases(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text("ascii"))
    return cases


@pytest.mark.parametrize("name", NAMES)
def test_vectors_equal_naive_reading(name: str) -> None:
    for case in read_cases(name):
        assert case["result"] == reference.ANSWERS[case["function"]](case["arguments"]), case


@pytest.mark.parametrize("name", NAMES)
def test_vectors_equal_package(name: str) -> None:
    for case in read_cases(name):
        assert case["result"] == rules_vectors.ANSWERS[case["function"]](case["arguments"]), case


def test_every_function_has_a_vector() -> None:
    covered = {case["function"] for name in NAMES for case in read_cases(name)}
    assert covered == set(rules_vectors.ANSWERS) == set(reference.ANSWERS)


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_vectors_do_not_depend_on_hash_seed(hash_seed: str) -> None:
    script = "import json, rules_vectors; print(json.dumps(rules_vectors.make_documents()))"
    output = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": hash_seed},
        cwd=FOLDER,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(output) == {name: read_cases(name) for name in NAMES}
