"""Plays a fixed script of blocks into a store in a folder, and prints each app hash.

Run as `python -m tests.unit.rules.play_random_blocks FOLDER BLOCKS`; what it prints must not
depend on the process that it runs in.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.rules.blocks_on_disk import BlocksOnDisk
from tests.unit.rules.random_blocks import NAMES

if TYPE_CHECKING:
    from tests.unit.rules.random_blocks import Draft


def choose_draft(choose: random.Random) -> Draft:
    name = choose.choice(NAMES)
    kinds: list[Draft] = [
        ("transfer", {"recipient": choose.choice(NAMES), "amount": choose.randint(0, 300)}),
        ("register", {"node": name, "possessed": choose.random() < 0.9}),
        ("unjail", {}),
        ("proof", {"verdict": (99 * 65_536, 64, choose.randint(63, 65))}),
        ("bad", {"raw": choose.randbytes(9)}),
    ]
    kind, parts = choose.choice(kinds)
    return (kind, parts if kind == "bad" else {"name": name, "late": 0} | parts)


def main() -> None:
    choose = random.Random(3)
    chain = BlocksOnDisk(Path(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        chain.block(
            [choose_draft(choose) for _ in range(choose.randint(0, 5))],
            choose.choice(NAMES),
            choose.randint(1, 3_000),
            tuple(choose.random() < 0.8 for _ in NAMES),
            ("dave",) if choose.random() < 0.03 else (),
        )
        print(chain.store.app_hash.hex())  # noqa: T201
    chain.store.close()


if __name__ == "__main__":
    main()
