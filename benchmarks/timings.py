"""Times that are no capacity: until a new server responds, and around the expiry of a cache entry."""

import gc
import time
from statistics import median

from benchmarks.load import LOAD_CORE, BenchmarkError
from benchmarks.process_tree import pinned
from benchmarks.run import Run
from tests.support.load_client import LoadClient, LoadResult, ObservedResponse
from tests.support.servers import migrated_database

TTL_SECONDS = 10
EXPIRY_CONNECTIONS = 8
# Few enough that responses do not wait for each other, so that only the server can make them slow.
REQUESTS_PER_SECOND = 1000
# Around an expiry, half of it before and half after.
WINDOW_SECONDS = 1.0


def measure_cold_start(run: Run) -> None:
    """Measure from the start of a process until /movies/ has responded with 200."""
    seconds = []
    for turn in range(run.options.rounds):
        run.progress(f"cold start, round {turn + 1} of {run.options.rounds}")
        with run.launcher() as launcher:
            migrated_database()  # the first time, it takes a while
            started = time.monotonic()
            launcher.totoro()
            seconds.append(time.monotonic() - started)
    run.results.figures["cold_start_seconds"] = median(seconds)


def measure_expiry(run: Run) -> None:
    """Compare the slowest response around an expiry with the slowest of 1,000 at other times."""
    seconds = run.options.expiry_seconds
    run.progress(f"expiries within {seconds} s")
    with run.launcher() as launcher:
        totoro = launcher.totoro(CACHE_TTL=str(TTL_SECONDS))
        client = LoadClient([totoro.url], connections=EXPIRY_CONNECTIONS, rate=REQUESTS_PER_SECOND)
        with pinned(LOAD_CORE):
            gc.disable()  # or the client's own pauses are among the slowest
            client.run(seconds)
            gc.enable()
    slowest, steady = around_expiries(client.result)
    run.results.figures["expiry_slowest_ms"] = slowest * 1000
    run.results.figures["steady_p999_ms"] = steady * 1000
    run.results.figures["expiry_slowest_to_p999"] = slowest / steady


def around_expiries(result: LoadResult) -> tuple[float, float]:
    """Return the median of the slowest latencies around each expiry, and p99.9 of the others (seconds).

    An entry has expired for all clients when the first gets a response with a newer timestamp.
    """
    if result.failures or result.unsuccessful:
        raise BenchmarkError(f"requests failed: {result.summary()}")
    first: dict[float, float] = {}
    for response in result.responses:
        first.setdefault(response.timestamp, response.sent)
    expiries = sorted(first.values())[1:]
    windows = [[r for r in result.responses if is_near(r, expiry)] for expiry in expiries]
    if not expiries:
        raise BenchmarkError("no entry has expired")
    others = LoadResult([r for r in result.responses if not any(is_near(r, e) for e in expiries)])
    return median(LoadResult(window).latency(1) for window in windows), others.latency(0.999)


def is_near(response: ObservedResponse, expiry: float) -> bool:
    return abs(response.sent - expiry) <= WINDOW_SECONDS / 2
