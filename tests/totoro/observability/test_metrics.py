"""Hits are counted together, and none is lost."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from tests.support.servers import wait_until
from totoro.observability.metrics import HitCounter


@pytest.fixture
def hits() -> Iterator[HitCounter]:
    counter = HitCounter()
    yield counter
    counter.flush()


def counts() -> tuple[float, float, float]:
    def sample(name: str, status: str) -> float:
        return REGISTRY.get_sample_value(f"totoro_{name}_total", {"status": status}) or 0.0

    return sample("responses", "200"), sample("responses", "304"), sample("cache_results", "hit")


def test_no_hit_of_any_thread_is_lost(hits: HitCounter) -> None:
    before = counts()

    def count(status: int) -> None:
        for _ in range(5000):
            hits.count(status)

    with ThreadPoolExecutor(8) as pool:
        for status in (200, 304) * 4:
            pool.submit(count, status)
        for _ in range(20):
            pool.submit(hits.flush)
    hits.flush()

    difference = tuple(after - first for after, first in zip(counts(), before, strict=True))
    assert difference == (20_000, 20_000, 40_000)


def test_a_hit_is_counted_soon_without_another_one(hits: HitCounter) -> None:
    before = counts()

    hits.count(200)

    wait_until(lambda: counts() != before, seconds=5, what="the hit is counted")


def test_a_hit_is_counted_at_once_if_no_thread_can_start(
    hits: HitCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    before = counts()

    hits.count(200)
    hits.count(200)

    assert counts()[0] == before[0] + 2
