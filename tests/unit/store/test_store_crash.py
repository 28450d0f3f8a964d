"""A process killed at any moment leaves the last commit that it was told of, or one more."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import compute_weights_root
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = hashlib.sha256(b"genesis").digest()

COMMITTER = """
import sys
from pathlib import Path
from pol_abci.store.store import Store

store = Store.open(Path(sys.argv[1]), chain_id="test", genesis_digest=bytes.fromhex(sys.argv[2]))
print(store.height, flush=True)
while True:
    height = store.height + 1
    changes = {b"account/%d" % (i % 50): b"%d" % height for i in range(height, height + 10)}
    changes[b"last"] = b"%d" % height
    changes[b"gone/%d" % (height % 3)] = None if height % 2 else b"here"
    pending = store.prepare(changes, b"%08d" % height * 20_000)
    store.commit(pending, height, (height, b"record %d" % height))
    print(height, pending.app_hash.hex(), flush=True)
    if height % 5 == 0:
        store.put_record(height - 1, b"record %d" % (height - 1))
"""


def test_killed_processes_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    choose = random.Random(11)
    command = [sys.executable, "-c", COMMITTER, str(tmp_path), DIGEST.hex()]
    acknowledged, app_hash = 0, ""
    for _ in range(20):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) - acknowledged in (0, 1)
            lines = [process.stdout.readline() for _ in range(choose.randrange(1, 4))]
            time.sleep(choose.random() * 0.03)  # somewhere in the next commits
            process.kill()
            for line in [*lines, *process.stdout]:
                if line.endswith("\n"):
                    height, app_hash = line.split()
                    acknowledged = int(height)

        store = Store.open(tmp_path, chain_id="test", genesis_digest=DIGEST)
        try:
            assert store.height - acknowledged in (0, 1)
            if store.height == acknowledged:
                assert store.app_hash.hex() == app_hash
            store.verify()
            expected = b"%08d" % store.height * 20_000
            assert store.state().get(b"last") == b"%d" % store.height
            assert compute_weights_root(store.weights()) == compute_weights_root(expected)
            assert [n for n, _ in store.records(0, 10_000)] == [*range(1, store.height + 1)]
            assert store.query_state(b"last", store.height - 1).payload == (
                b"%d" % (store.height - 1)
            )
            acknowledged, app_hash = store.height, store.app_hash.hex()
        finally:
            store.close()
