"""The figures of one server, for Prometheus."""

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from producer.api.worker_figures import WorkerFigures
from storage.ledger import Ledger
from storage.statistics import LATELY, Statistics, read_statistics

#: Seconds for which figures serve: counting a million jobs is work.
_FRESH = 5.0


class Meter:
    """The figures of one server."""

    def __init__(self, ledger: Ledger) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LedgerFigures(ledger))
        self.registry.register(WorkerFigures(ledger))
        self.requests = Histogram(
            "latentmill_http_request_seconds",
            "Time until an answer was sent; streams not counted.",
            ["method", "route", "status"],
            registry=self.registry,
        )


class _LedgerFigures(Collector):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._read: tuple[float, Statistics] | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing: else registering would ask the ledger."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        found = self._statistics()
        jobs = GaugeMetricFamily("latentmill_jobs", "Jobs by state.", labels=["state"])
        for state, count in found.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        ended = GaugeMetricFamily(
            "latentmill_jobs_ended", "Ended jobs by code.", labels=["state", "code"]
        )
        for what, count in found.ended.items():
            ended.add_metric(what, count)
        yield ended
        oldest = GaugeMetricFamily(
            "latentmill_queue_age_seconds",
            "How long the job has been due that has been due for longest.",
            labels=["pool"],
        )
        for pool, age in found.oldest.items():
            oldest.add_metric([pool], age)
        yield oldest
        lately = f"of the last {LATELY:g} s"
        for name, help_text, value in (
            ("claims", f"Jobs first claimed {lately}", found.claimed),
            ("claim_wait_seconds_sum", f"Time that they had been due, {lately}", found.waited),
            ("claim_wait_seconds_max", f"The longest such time, {lately}", found.waited_most),
            ("webhooks_open", "Webhooks that are not delivered yet", found.webhooks_open),
        ):
            yield GaugeMetricFamily(f"latentmill_{name}", help_text + ".", value=value)
        slots = GaugeMetricFamily(
            "latentmill_worker_slots", "Slots by worker.", labels=["worker", "pool", "device"]
        )
        for worker in self._ledger.workers():
            slots.add_metric([worker.name, worker.pool, worker.device], worker.slots)
        yield slots

    def _statistics(self) -> Statistics:
        with self._lock:
            now = time.monotonic()
            if self._read is None or now >= self._read[0] + _FRESH:
                with self._ledger.database.reading() as connection:
                    self._read = now, read_statistics(connection)
            return self._read[1]
