from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from pol_abci.cli.testnet_observer import NodeObserver, find_fork
from pol_abci.cli.testnet_view import NodeRow, TestnetNarrator, TestnetSnapshot, TestnetView
from pol_abci.cli.view import ProcessState
from pol_abci.client.rpc import RpcClient

RUNNING = tuple(ProcessState(name, "running", "good") for name in ("app", "cometbft", "miner"))


def make_row(number: int, **changes: object) -> NodeRow:
    row = NodeRow(
        name=f"node{number}",
        height=1_204,
        app_hash=bytes.fromhex("90ab12cd" + "00" * 28),
        power=25,
        generation=301,
        peers=3,
        has_miner=number < 3,
        steps_per_second=412.0 if number < 3 else None,
        processes=RUNNING if number < 3 else RUNNING[:2],
    )
    return replace(row, **changes)  # type: ignore[arg-type] # fields by name


SNAPSHOT = TestnetSnapshot(
    chain_id="digits-3f2a91",
    home="pol-testnet",
    goal=310,
    uptime_s=151.0,
    rows=tuple(map(make_row, range(4))),
)


def render(snapshot: TestnetSnapshot, width: int = 80) -> list[str]:
    console = Console(width=width, height=24, file=io.StringIO(), record=True, force_terminal=True)
    console.print(TestnetView(snapshot))
    return console.export_text().splitlines()


def test_each_node_has_a_row_with_all_that_is_known_of_it() -> None:
    lines = render(SNAPSHOT)
    assert max(map(len, lines)) <= 80
    assert lines[0] == "digits-3f2a91 · 4 nodes · up 0:02:31 · to generation 310"
    cells = ["node0", "1,204", "90ab12cd", "25", "301", "3", "412", "app", "cometbft", "miner"]
    assert lines[3].split() == cells
    assert lines[6].split()[:7] == ["node3", "1,204", "90ab12cd", "25", "301", "3", "-"]


def test_what_is_not_known_yet_and_what_stands_still_is_said() -> None:
    new = NodeRow(name="node1", trouble="no node answers", has_miner=True)
    lines = render(replace(SNAPSHOT, rows=(make_row(0), new)))
    assert lines[4].split() == ["node1", *["…"] * 6]
    assert "node1: no node answers" in lines
    still = [make_row(number, trouble="no proof has arrived") for number in range(2)]
    assert "all nodes: no proof has arrived" in render(replace(SNAPSHOT, rows=tuple(still)))


def test_a_fork_is_seen_and_told_first() -> None:
    one, two = (
        NodeObserver(name, RpcClient("http://127.0.0.1:1"), {}) for name in ("node0", "node1")
    )
    one.app_hashes |= {7: b"a", 8: b"b"}
    two.app_hashes |= {6: b"x", 7: b"a"}
    assert find_fork((one, two)) is None
    two.app_hashes[8] = b"c"
    words = find_fork((one, two))
    assert words is not None
    assert words.startswith("node0 and node1 have different app hashes at height 8")
    assert TestnetNarrator().tell(replace(SNAPSHOT, rows=(), fork=words)) == [words]
    assert words[:60] in "\n".join(render(replace(SNAPSHOT, fork=words), 120))


def test_plain_lines_say_only_what_is_new() -> None:
    narrator = TestnetNarrator()
    first = narrator.tell(SNAPSHOT)
    assert first[0] == "node0 app: running"
    assert first[-1] == "generation 301: heights " + ", ".join(f"node{n} 1,204" for n in range(4))
    assert narrator.tell(SNAPSHOT) == []
    rows = (make_row(0, power=0, trouble="it waits"), *SNAPSHOT.rows[1:])
    changed = replace(SNAPSHOT, rows=rows)
    assert narrator.tell(changed) == [
        "node0: voting power 25 -> 0",
        "standing still: node0: it waits",
    ]
    assert narrator.tell(changed) == []
    assert len(narrator.tell(replace(changed, uptime_s=190.0))) == 1
    stopping = replace(changed, is_stopping=True)
    assert narrator.tell(stopping) == ["stopping cleanly"]
    assert narrator.tell(stopping) == []
