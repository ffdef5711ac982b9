"""What the devices did, as workers report it to the ledger, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.ledger import Ledger

#: Metric, its help, and the figure that it is.
SUMS = (
    ("device_up_seconds", "Time since the worker began", "up_seconds"),
    ("device_idle_seconds", "Time in which its device had nothing to do", "idle_seconds"),
    ("results", "Steps of jobs that its device finished", "results"),
    ("decoding_seconds", "Time spent on decoding finished rows", "finish_seconds"),
    ("model_loads", "Models that it loaded", "loads"),
    ("model_load_seconds", "Time spent on loading them", "load_seconds"),
    ("claims_made", "Claims that it asked the ledger for", "claim_count"),
    ("claim_seconds", "Time that they took", "claim_seconds"),
    ("uploads", "Pictures that it stored", "upload_count"),
    ("upload_seconds", "Time that they took, over all slots", "upload_seconds"),
)
#: The same of the groups of rows that share calls of a model.
STEPS = (
    ("step_calls", "Steps of the device", "calls"),
    ("step_rows", "Rows that they took along", "rows"),
    ("step_seconds", "Time that they took", "seconds"),
)


class WorkerFigures(Collector):
    """Counters of each worker that has reported lately."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def describe(self) -> Iterator[Metric]:
        """Nothing: else registering would ask the ledger."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        workers = self._ledger.workers()
        running = GaugeMetricFamily(
            "latentmill_worker_running", "Jobs in flight.", labels=["worker"]
        )
        for worker in workers:
            running.add_metric([worker.name], worker.figures.get("running", 0))
        yield running
        for name, what, figure in SUMS:
            family = CounterMetricFamily(f"latentmill_{name}", f"{what}.", labels=["worker"])
            for worker in workers:
                family.add_metric([worker.name], worker.figures.get(figure, 0))
            yield family
        for name, what, figure in STEPS:
            labels = ["worker", "group"]
            family = CounterMetricFamily(
                f"latentmill_{name}", f"{what}, by model and size.", labels=labels
            )
            for worker in workers:
                for group, sums in worker.figures.get("steps", {}).items():
                    family.add_metric([worker.name, group], sums[figure])
            yield family
