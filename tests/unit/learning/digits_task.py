"""The digits task with the preset's figures, for tests that need something real to train."""

from __future__ import annotations

from pol_abci.learning.datasets import compute_digest, load_dataset
from pol_abci.rules.params import (
    SCORE_UNIT,
    Address,
    Amount,
    ArithmeticParams,
    Augmentation,
    DifficultyParams,
    LedgerParams,
    Params,
    ShareParams,
    TaskParams,
    WalkParams,
)

CHAIN_ID = "pol-test"
ADDRESS = Address(bytes(range(20)))


def make_digits_params() -> Params:
    train, test = load_dataset("digits")
    return Params(
        scheme="walk",
        task=TaskParams(
            architecture="cnn",
            channels=(8, 16, 32),
            dataset="digits",
            train_digest=compute_digest(train),
            test_digest=compute_digest(test),
            augmentation=Augmentation(shift=1, flip=False, cutout=0),
            batch_size=16,
            learning_rate="0.0625",
        ),
        arithmetic=ArithmeticParams(version=1, forward_bits=16, backward_bits=8),
        walk=WalkParams(
            min_steps=2, max_steps=32, progress="guard", evaluation_samples=128, stamp_bits=12
        ),
        difficulty=DifficultyParams(
            first=12 * SCORE_UNIT,
            target_interval_ms=4_000,
            tau_intervals=4,
            slope=5 * SCORE_UNIT // 2,
            max_fall=SCORE_UNIT,
        ),
        ledger=LedgerParams(
            reward=Amount(50_000_000),
            halving_generations=210_000,
            min_fee=Amount(1_000),
            account_burn=Amount(1_000_000),
            maturity_generations=10,
        ),
        shares=ShareParams(slots=100, max_validators=50, liveness_window=20),
    )
