"""Chain data to render and to draw."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.params import SCORE_UNIT, Address

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]


@pytest.fixture
def make_records() -> RecordMaker:
    """Records of a chain that learns as the digits preset does, oldest first."""

    def make(count: int) -> tuple[GenerationRecord, ...]:
        stream = random.Random(count)
        records = []
        time_ms, difficulty = 0, 14 * SCORE_UNIT
        for generation in range(1, count + 1):
            interval_ms = stream.randrange(500, 8_000)
            time_ms += interval_ms
            correct = 360 - int(330 / generation)
            records.append(
                GenerationRecord(
                    generation=generation,
                    height=2 * generation + 1,
                    time_ms=time_ms,
                    interval_ms=interval_ms,
                    difficulty=difficulty,
                    score=difficulty + stream.randrange(-SCORE_UNIT, SCORE_UNIT),
                    correct_head=correct // 3,
                    correct_ticket=correct // 3 + 1,
                    miner=Address(stream.randbytes(20)),
                    nonce=stream.getrandbits(64),
                    steps=stream.randrange(2, 33),
                    weights_root=bytes(32),
                    tx_hash=bytes(32),
                    has_accuracy=generation < count or count == 1,
                    correct_all=correct,
                    size_all=360,
                )
            )
            difficulty += SCORE_UNIT * (4_000 - interval_ms) // 16_000
        return tuple(records)

    return make
