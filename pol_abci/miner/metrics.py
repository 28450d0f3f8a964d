"""What Prometheus reads of a miner: its last status, told twice a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pol_abci.client.keys import COIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from pol_abci.miner.status import MinerStatus


class MinerMetrics(Collector):
    """Keeps the newest status for /metrics and /health."""

    def __init__(self) -> None:
        self.status: MinerStatus | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def find_fault(self) -> str | None:
        """Return why the miner does not mine, or None."""
        status = self.status
        if status is None:
            return "the miner starts"
        if not status.is_connected:
            return status.connection
        if not status.steps_per_second:
            return status.note or "no step was done in the last seconds"
        return None

    def collect(self) -> Iterator[Metric]:
        """Read the newest status; nothing before there is one."""
        status = self.status
        if status is None:
            return
        yield GaugeMetricFamily(
            "pol_miner_connected", "1 when the node's events are followed.", status.is_connected
        )
        yield CounterMetricFamily(
            "pol_miner_disconnects", "Times that the node was lost.", status.disconnects
        )
        yield CounterMetricFamily("pol_miner_steps", "Steps done.", status.steps)
        yield GaugeMetricFamily(
            "pol_miner_steps_per_second",
            "Steps a second over the last ten seconds.",
            status.steps_per_second,
        )
        yield CounterMetricFamily(
            "pol_miner_proofs_sent", "Proofs sent to the node, each time.", status.proofs_sent
        )
        yield CounterMetricFamily(
            "pol_miner_blocks_won", "Generations won since the start.", status.blocks_won
        )
        yield CounterMetricFamily(
            "pol_miner_coins_won",
            "Coins won since the start.",
            status.coins_won / COIN,
        )
        for name, text, value in (
            ("pol_miner_generation", "The head that is walked from.", status.generation),
            ("pol_miner_difficulty_bits", "Score that a proof needs now.", status.difficulty_bits),
            ("pol_miner_best_bits", "Best score from this head.", status.best_score_bits),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
