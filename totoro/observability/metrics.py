"""What is counted here, and how the counts of all workers are added up."""

import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass

from services.clock import Clock
from services.metrics import cache_results

responses = Counter("totoro_responses", "Responses by status.", ["status"])
# From zero: Prometheus sees no increase in a series that begins with 1.
for _status in (200, 304, 400, 404, 429, 500, 503):
    responses.labels(_status)


# How late the hits of the response cache are counted.
FLUSH_SECONDS = 0.1


class HitCounter:
    """Counts the hits of the response cache, all those of a tenth of a second at once.

    An increment of a counter that workers share takes 1.5 µs, and a hit needs two: a third of its time.
    """

    def __init__(self) -> None:
        # Appending is atomic, so no hit is lost between threads.
        self._statuses: deque[int] = deque()
        self._timer: threading.Timer | None = None
        self._flushing = threading.Lock()

    def count(self, status: int) -> None:
        self._statuses.append(status)
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
            self._timer.daemon = False  # so that a process that ends waits for it
            try:
                self._timer.start()
            except RuntimeError:  # the limit of threads is reached
                self.flush()

    def flush(self) -> None:
        self._timer = None  # first, so that a hit during the flush starts a new one
        with self._flushing:
            tally = Tally(self._statuses.popleft() for _ in range(len(self._statuses)))
        for status, number in tally.items():
            responses.labels(status).inc(number)
        cache_results.labels("hit").inc(tally.total())


hits = HitCounter()


class AllWorkers(Collector):
    """The metrics of every worker if `serve` has set up a folder for them, else of this process."""

    def collect(self) -> Iterator[Metric]:
        hits.flush()
        registry = REGISTRY
        if ValueClass is not MutexValue:
            time.sleep(2 * FLUSH_SECONDS)  # until the other workers have counted their hits
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
