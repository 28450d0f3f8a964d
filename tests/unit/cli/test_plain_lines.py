from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pol_abci.cli.plain import Narrator
from pol_abci.cli.view import ProcessState, Snapshot
from pol_abci.rules.codec import GenerationRecord

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]


def make_snapshot(records: tuple[GenerationRecord, ...]) -> Snapshot:
    return Snapshot(
        chain_id="digits-1",
        home="chain",
        goal=12,
        generation=records[-1].generation if records else 0,
        height=9,
        records=records,
    )


def test_only_generations_of_this_run_are_told_each_once(make_records: RecordMaker) -> None:
    narrator = Narrator()
    records = make_records(6)
    assert narrator.tell(make_snapshot(records[:2])) == [
        "chain digits-1 is at generation 2, height 9, to stop at generation 12"
    ]
    told = narrator.tell(make_snapshot(records[:5]))
    assert [line.split(":")[0] for line in told] == ["generation 3", "generation 4", "generation 5"]
    assert narrator.tell(make_snapshot(records[:5])) == []


def test_the_newest_waits_for_its_accuracy_but_not_for_ever(make_records: RecordMaker) -> None:
    narrator = Narrator()
    narrator.tell(make_snapshot(()))
    records = make_records(3)
    first = replace(records[0], has_accuracy=False)
    assert narrator.tell(make_snapshot((first,))) == []
    told = narrator.tell(make_snapshot((first, records[1])))
    assert told[0].startswith("generation 1: sample ")
    assert told[1].startswith("generation 2: accuracy ")
    assert narrator.tell(make_snapshot(records)) == []
    stopping = narrator.tell(replace(make_snapshot(records), is_stopping=True))
    assert stopping[0].startswith("generation 3: sample ")
    assert stopping[1:] == ["stopping cleanly"]


def test_a_standstill_is_told_at_once_and_then_rarely() -> None:
    narrator = Narrator()
    snapshot = replace(make_snapshot(()), standstill="no miner runs")
    narrator.tell(make_snapshot(()))
    line = "standing still: no miner runs"
    assert narrator.tell(replace(snapshot, uptime_s=1.0)) == [line]
    assert narrator.tell(replace(snapshot, uptime_s=30.0)) == []
    assert narrator.tell(replace(snapshot, uptime_s=31.5)) == [line]
    assert narrator.tell(replace(snapshot, standstill=None, uptime_s=32.0)) == []
    assert narrator.tell(replace(snapshot, uptime_s=33.0)) == [line]


def test_changes_of_processes_are_told_until_the_stop() -> None:
    narrator = Narrator()

    def tell(state: str, *, is_stopping: bool = False) -> list[str]:
        processes = (ProcessState("app", state, "good"),)
        return narrator.tell(
            Snapshot(
                chain_id="digits-1", home="chain", processes=processes, is_stopping=is_stopping
            )
        )

    assert tell("running") == ["app: running"]
    assert tell("running") == []
    assert tell("restarting") == ["app: restarting"]
    assert tell("stopped", is_stopping=True) == ["stopping cleanly"]


def test_lines_carry_no_escape_sequences(make_records: RecordMaker) -> None:
    narrator = Narrator()
    narrator.tell(make_snapshot(()))
    assert all(
        line.isascii() and line.isprintable()
        for line in narrator.tell(make_snapshot(make_records(40)))
    )
