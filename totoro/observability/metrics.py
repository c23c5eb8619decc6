"""What is counted of requests, and how the metrics of all workers are added up."""

import fcntl
import math
import platform
import threading
import time
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product, starmap
from pathlib import Path

from django.conf import settings
from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass

from services.clock import Clock
from services.metrics import cache_results
from services.movies import movie_service
from totoro.observability.process_metrics import memory_limit, process_metrics
from totoro.settings import VERSION

OTHER = "other"
PREFIXES = {
    "/movies/": "/movies/{id}/",
    "/problems/": "/problems/",
    "/static/": "/static/",
    "/swagger": "/swagger",
}
ROUTES = {"/", "/movies/", "/redoc/", "/livez", "/readyz", "/metrics", OTHER, *PREFIXES.values()}
METHODS = {"GET", "HEAD", "OPTIONS", OTHER}
# Those that Totoro sends.
STATUSES = (200, 301, 304, 308, 400, 403, 404, 405, 406, 412, 414, 429, 500, 503)

requests = Counter(
    "totoro_requests", "Requests by route, method and status.", ["route", "method", "status"]
)
request_duration = Histogram(
    "totoro_request_duration_seconds",
    "How long responses took, without the time in which requests and responses were transferred.",
    ["route"],
    buckets=(
        *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    ),
)
worker_restarts = Counter("totoro_worker_restarts", "Workers that were replaced.")
# From zero: Prometheus sees no increase in a series that begins with 1.
for _labels in product(ROUTES, METHODS, STATUSES):
    requests.labels(*_labels)
for _route in ROUTES:
    request_duration.labels(_route)

# How late requests are counted.
FLUSH_SECONDS = 0.1

# Route, method, status, and whether it was a hit of the response cache.
Kind = tuple[str, str, int, bool]


def route_of(path: str) -> str:
    """Return the route of a path: one of ROUTES, whatever clients request."""
    if path in ROUTES:
        return path
    return next((PREFIXES[prefix] for prefix in PREFIXES if path.startswith(prefix)), OTHER)


class RequestCounter:
    """Counts requests, all those of a tenth of a second at once.

    An increment of a counter that workers share takes 1.5 µs, and a hit needs four: as long as the hit.
    """

    def __init__(self) -> None:
        # How long they took. Appending is atomic, so no request is lost between threads.
        self._seconds: defaultdict[Kind, deque[float]] = defaultdict(deque)
        self._timer: threading.Timer | None = None
        self._flushing = threading.Lock()

    def count(self, kind: Kind, seconds: float) -> None:
        self._seconds[kind].append(seconds)
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
            self._timer.daemon = False  # so that a process that ends waits for it
            try:
                self._timer.start()
            except RuntimeError:  # the limit of threads is reached
                self.flush()

    def count_response(self, path: str, method: str | None, status: int, seconds: float) -> None:
        """Count a response of Django."""
        known_method = method if method in METHODS else OTHER
        self.count((route_of(path), known_method, status, False), seconds)

    def flush(self) -> None:
        self._timer = None  # first, so that a request during the flush starts a new one
        with self._flushing:
            for (route, method, status, is_hit), waiting in list(self._seconds.items()):
                seconds = [waiting.popleft() for _ in range(len(waiting))]
                if seconds:
                    requests.labels(route, method, status).inc(len(seconds))
                    observe_all(request_duration.labels(route), seconds)
                if is_hit:
                    cache_results.labels("hit").inc(len(seconds))


def observe_all(histogram: Histogram, values: list[float]) -> None:
    """Do what `observe` does for each value, in a fraction of the time."""
    values.sort()
    histogram._sum.inc(sum(values))
    smaller = 0
    for bound, bucket in zip(histogram._upper_bounds, histogram._buckets, strict=True):
        up_to_bound = bisect_right(values, bound)
        if up_to_bound > smaller:
            bucket.inc(up_to_bound - smaller)
        smaller = up_to_bound


request_counter = RequestCounter()


class AllWorkers(Collector):
    """The metrics of every worker if `serve` has set up a folder for them, else of this process."""

    def collect(self) -> Iterator[Metric]:
        request_counter.flush()
        metrics: Iterable[Metric] = REGISTRY.collect()
        if ValueClass is not MutexValue:
            time.sleep(2 * FLUSH_SECONDS)  # until the other workers have counted their requests
            with locked_files(fcntl.LOCK_SH):
                metrics = files_of_workers().collect()  # type: ignore[no-untyped-call]
            yield from process_metrics()
        for metric in metrics:
            yield metric
            if metric.name == "totoro_snapshot_timestamp_seconds":
                yield snapshot_age(metric.samples[0].value)
        yield build_info()
        yield from starmap(GaugeMetricFamily, gauges())


def files_of_workers() -> MultiProcessCollector:
    return MultiProcessCollector(None)  # type: ignore[no-untyped-call]


@contextmanager
def locked_files(operation: int) -> Iterator[Path]:
    """Lock the files of all workers, and return their folder.

    Readers share the lock; who moves values from one file to another is alone.
    """
    folder = Path(files_of_workers()._path)
    with (folder / "values.lock").open("a") as lock:
        fcntl.flock(lock, operation)
        yield folder


def snapshot_age(timestamp: float) -> Metric:
    return GaugeMetricFamily(
        "totoro_snapshot_age_seconds",
        "Age of the data in the latest responses; NaN if there is none.",
        Clock().wall().timestamp() - timestamp if timestamp else math.nan,
    )


def build_info() -> Metric:
    build = GaugeMetricFamily("totoro_build_info", "The version.", None, ["version", "python"])
    build.add_metric([VERSION, platform.python_version()], 1)
    return build


def gauges() -> Iterator[tuple[str, str, float]]:
    """Yield names, texts and values: what is up, and the settings and limits that alerts compare with."""
    # Importing granian changes the limit of open files, which only `serve` shall do.
    from totoro.serving.server import connection_limit

    health = movie_service().health()
    if settings.REDIS_URL:
        yield "totoro_redis_up", "1 if Redis responds, else 0.", health.cache
    yield "totoro_database_up", "1 if the database responds, else 0.", health.database
    yield "totoro_cache_ttl_seconds", "CACHE_TTL.", settings.CACHE_TTL
    yield "totoro_stale_if_error_seconds", "STALE_IF_ERROR.", settings.STALE_IF_ERROR
    yield "totoro_workers", "WEB_CONCURRENCY.", settings.WEB_CONCURRENCY
    yield "totoro_connection_limit", "Connections that a worker accepts.", connection_limit()
    yield "totoro_memory_limit_bytes", "The container's memory limit, if any.", memory_limit()
