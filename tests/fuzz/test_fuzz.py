"""A short run of what `make fuzz` does at length, and that it would tell a fault."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.fuzz.__main__ import main
from tests.fuzz.bytes_targets import SIGNED
from tests.fuzz.loop import Found, Target, run_target

INPUTS = 20_000


def test_mutated_inputs_are_taken_whole_or_refused_in_words() -> None:
    result = CliRunner().invoke(main, ["--inputs", str(INPUTS)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line.rsplit(maxsplit=4) for line in result.output.splitlines()]
    counts = {line[0]: (int(line[2]), int(line[3])) for line in lines if line[1].isdigit()}
    assert len(counts) == 19
    for name, (accepted, outcomes) in counts.items():
        assert accepted > 0, f"{name} takes nothing: the fuzzing stays outside"
        assert outcomes > 1, f"{name} refuses nothing"


def test_a_fault_is_found_and_can_be_repeated() -> None:
    def run(data: bytes) -> str:
        return "ok" if data.startswith(b"\x0a") else str(data[100])

    target = Target(name="weak", share=1.0, seeds=SIGNED, run=run)
    with pytest.raises(Found, match="weak: IndexError") as found:
        run_target(target, 10_000, 1)
    with pytest.raises(IndexError):
        run(found.value.data)
    with pytest.raises(Found) as again:
        run_target(target, 10_000, 1)
    assert again.value.data == found.value.data
