"""What is counted here, and how the counts of all workers are added up."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass

from services.clock import Clock

responses = Counter("totoro_responses", "Responses by status.", ["status"])
# From zero: Prometheus sees no increase in a series that begins with 1.
for _status in (200, 304, 400, 404, 429, 500, 503):
    responses.labels(_status)


class AllWorkers(Collector):
    """The metrics of every worker if `serve` has set up a folder for them, else of this process."""

    def collect(self) -> Iterator[Metric]:
        registry = REGISTRY
        if ValueClass is not MutexValue:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        for metric in registry.collect():
            yield metric
            if metric.name == "totoro_snapshot_timestamp_seconds" and metric.samples[0].value:
                yield GaugeMetricFamily(
                    "totoro_snapshot_age_seconds",
                    "Seconds since the newest data was requested from the Ghibli API.",
                    Clock().wall().timestamp() - metric.samples[0].value,
                )
