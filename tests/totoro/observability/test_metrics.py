"""Requests are counted together, and none is lost."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from tests.support.servers import wait_until
from totoro.observability.metrics import Kind, RequestCounter, observe_all

OK: Kind = ("/movies/", "GET", 200, True)
NOT_MODIFIED: Kind = ("/movies/", "GET", 304, True)
BY_DJANGO: Kind = ("/movies/", "GET", 200, False)


@pytest.fixture
def counter() -> Iterator[RequestCounter]:
    counter = RequestCounter()
    yield counter
    counter.flush()


def counts() -> tuple[float, ...]:
    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"totoro_{name}", labels) or 0.0

    return (
        sample("requests_total", route="/movies/", method="GET", status="200"),
        sample("requests_total", route="/movies/", method="GET", status="304"),
        sample("request_duration_seconds_count", route="/movies/"),
        sample("request_duration_seconds_sum", route="/movies/"),
        sample("cache_results_total", status="hit"),
    )


def test_no_request_of_any_thread_is_lost(counter: RequestCounter) -> None:
    before = counts()

    def count(kind: Kind) -> None:
        for _ in range(5000):
            counter.count(kind, 0.25)

    with ThreadPoolExecutor(8) as pool:
        for kind in (OK, NOT_MODIFIED, BY_DJANGO) * 2:
            pool.submit(count, kind)
        for _ in range(20):
            pool.submit(counter.flush)
    counter.flush()

    difference = tuple(after - first for after, first in zip(counts(), before, strict=True))
    assert difference == (20_000, 10_000, 30_000, 7_500, 20_000)


def test_a_request_is_counted_soon_without_another_one(counter: RequestCounter) -> None:
    before = counts()

    counter.count(OK, 0.0)

    wait_until(lambda: counts() != before, seconds=5, what="the request is counted")


def test_a_request_is_counted_at_once_if_no_thread_can_start(
    counter: RequestCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    before = counts()

    counter.count(OK, 0.0)
    counter.count(OK, 0.0)

    assert counts()[0] == before[0] + 2


def test_values_observed_together_are_those_observed_one_by_one() -> None:
    values = [0.3, 0.1, 0.100001, 0.0, 7.0, 0.1, 1.0]
    one_by_one, together = (
        Histogram("seconds", "", buckets=(0.1, 0.2, 1), registry=CollectorRegistry())
        for _ in range(2)
    )

    for value in values:
        one_by_one.observe(value)
    observe_all(together, values)

    [expected], [found] = one_by_one.collect(), together.collect()
    assert [s.value for s in found.samples[:-1]] == pytest.approx(
        [s.value for s in expected.samples[:-1]]
    )
