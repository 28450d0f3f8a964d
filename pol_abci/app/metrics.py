"""What Prometheus reads of the app and its verifier.

Almost everything is read from the replica when it is asked for. Only what leaves no trace there is
measured as it happens: answers of CheckTx, and how long FinalizeBlock and Commit take.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from pol_abci import __version__
from pol_abci.app.standstill import compute_block_age_ms, explain_standstill, find_fault
from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.store.environment import DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from pol_abci.app.replica import Replica

SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Measures:
    """What is counted and timed as the application answers."""

    def __init__(self) -> None:
        self.check_tx_codes: Counter[int] = Counter()
        self.finalize_block_seconds = Histogram(
            "pol_finalize_block_seconds",
            "Executing a decided block.",
            buckets=SECONDS_BUCKETS,
            registry=None,
        )
        self.commit_seconds = Histogram(
            "pol_commit_seconds",
            "Writing a block's state to disk.",
            buckets=SECONDS_BUCKETS,
            registry=None,
        )


def make_registry(replica: Replica, measures: Measures, store_folder: Path) -> CollectorRegistry:
    """Return what /metrics of the app shows."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ReplicaCollector(replica, measures, store_folder))
    registry.register(measures.finalize_block_seconds)
    registry.register(measures.commit_seconds)
    ProcessCollector(registry=registry)
    ProcessCollector(
        namespace="pol_verifier",
        pid=lambda: replica.verifier.pid,  # type: ignore[arg-type,return-value]  # None is no process, and no metrics
        registry=registry,
    )
    return registry


class _ReplicaCollector(Collector):
    def __init__(self, replica: Replica, measures: Measures, store_folder: Path) -> None:
        self._replica = replica
        self._measures = measures
        self._store_folder = store_folder

    def collect(self) -> Iterator[Metric]:
        """Read everything there is at this moment."""
        replica = self._replica
        yield InfoMetricFamily(
            "pol_build",
            "Version of this program, and its chain.",
            {"version": __version__, "chain_id": replica.chain.chain_id},
        )
        yield GaugeMetricFamily(
            "pol_healthy",
            "1 when /health says ok, 0 when it gives a reason.",
            find_fault(replica, self._store_folder) is None,
        )
        yield GaugeMetricFamily(
            "pol_standing_still",
            "1 when `pol-abci status` says why no generation comes.",
            explain_standstill(replica) is not None,
        )
        yield GaugeMetricFamily(
            "pol_height", "Newest height that the app has committed.", replica.store.height
        )
        yield GaugeMetricFamily(
            "pol_block_age_seconds",
            "Since the newest commit, or since the start when there was none.",
            compute_block_age_ms(replica) / 1_000,
        )
        if replica.store.height:
            yield from self._collect_head()
        yield from self._collect_verifier()
        yield GaugeMetricFamily(
            "pol_tickets", "True proofs kept until they are good.", len(replica.tickets)
        )
        check_tx = CounterMetricFamily(
            "pol_check_tx", "Answers of CheckTx by code, 0 for yes.", labels=["code"]
        )
        for code, count in sorted(self._measures.check_tx_codes.items()):
            check_tx.add_metric([str(code)], count)
        yield check_tx
        yield GaugeMetricFamily(
            "pol_store_bytes",
            "Size of the app's data file.",
            (self._store_folder / DATA_FILE).stat().st_size,
        )
        yield GaugeMetricFamily(
            "pol_disk_free_bytes",
            "Free space on the disk of the app's data.",
            shutil.disk_usage(self._store_folder).free,
        )

    def _collect_head(self) -> Iterator[Metric]:
        replica = self._replica
        params, head, now_ms = (
            replica.chain.params.difficulty,
            replica.get_head(),
            replica.get_now_ms(),
        )
        now = compute_difficulty(params, head.difficulty, head.time_ms, now_ms)
        yield GaugeMetricFamily("pol_generation", "The newest generation.", head.generation)
        yield GaugeMetricFamily(
            "pol_head_age_seconds",
            "Since the header time of the newest generation.",
            (now_ms - head.time_ms) / 1_000,
        )
        yield GaugeMetricFamily(
            "pol_target_interval_seconds",
            "What the chain aims at between generations.",
            params.target_interval_ms / 1_000,
        )
        yield GaugeMetricFamily(
            "pol_difficulty_bits", "Score that a proof needs now.", now / SCORE_UNIT
        )
        yield GaugeMetricFamily(
            "pol_head_difficulty_bits",
            "Score that a proof needed when the newest generation was new.",
            head.difficulty / SCORE_UNIT,
        )
        accuracy = replica.find_accuracy()
        if accuracy is not None:
            yield GaugeMetricFamily(
                "pol_accuracy_ratio",
                "Part of the test set that the newest measured model gets right.",
                accuracy.correct_all / accuracy.size_all,
            )
            yield GaugeMetricFamily(
                "pol_accuracy_generation",
                "The generation of that model.",
                accuracy.generation,
            )

    def _collect_verifier(self) -> Iterator[Metric]:
        verifier = self._replica.verifier
        status = verifier.status
        yield GaugeMetricFamily(
            "pol_verifier_up", "1 when the verifier's process is ready.", status.alive
        )
        yield CounterMetricFamily(
            "pol_verifier_starts", "Starts of the verifier's process.", status.starts
        )
        walks = CounterMetricFamily("pol_walks", "Walks redone, by verdict.", labels=["verdict"])
        walks.add_metric(["true"], status.walked - status.false)
        walks.add_metric(["false"], status.false)
        yield walks
        yield CounterMetricFamily("pol_walk_steps", "Steps redone.", status.steps)
        yield CounterMetricFamily("pol_walk_seconds", "Time spent in redoing them.", status.seconds)
        yield GaugeMetricFamily(
            "pol_queue_length", "Walks that wait for the verifier.", verifier.queued
        )
