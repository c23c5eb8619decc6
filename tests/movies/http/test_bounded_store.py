"""The store is bounded, and what is requested often stays."""

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from movies.http.bounded_store import BoundedStore

MAX_NUMBER, MAX_BYTES = 10, 1000


def make_store() -> BoundedStore[str]:
    return BoundedStore(MAX_NUMBER, MAX_BYTES)


def request(store: BoundedStore[str], key: object, size: int = 1) -> bool:
    """Request a key as a client does, and return whether it was stored."""
    if store.get(key) is not None:
        return True
    store.put(key, f"value of {key}", size)
    return False


def test_stores_what_fits() -> None:
    store = make_store()
    store.put("a", "A", MAX_BYTES)

    assert store.get("a") == "A"
    assert store.get("b") is None


def test_the_oldest_of_equally_requested_values_is_evicted() -> None:
    store = make_store()
    for key in range(MAX_NUMBER + 1):
        request(store, key)

    assert len(store) == MAX_NUMBER
    assert store.get(0) is None
    assert store.get(1) is not None


def test_bytes_are_bounded() -> None:
    store = make_store()
    for key in range(4):
        store.put(key, "", 300)

    assert [store.get(key) is not None for key in range(4)] == [False, True, True, True]


def test_a_value_larger_than_the_store_evicts_nothing() -> None:
    store = make_store()
    store.put("small", "S", 1)
    for _ in range(3):
        assert not request(store, "huge", MAX_BYTES + 1)

    assert store.get("small") == "S"


def test_a_flood_of_values_that_are_requested_once_evicts_no_repeated_one() -> None:
    store = make_store()
    for _ in range(2):
        hot = [request(store, key, 50) for key in range(MAX_NUMBER - 1)]
    assert all(hot)
    for number in range(1000):
        request(store, f"junk {number}")

    assert all(store.get(key) for key in range(MAX_NUMBER - 1))
    assert store.get("junk 999")


def test_a_flood_evicts_one_value_of_a_store_that_is_full_of_repeated_ones() -> None:
    store = make_store()
    for key in range(MAX_NUMBER):
        for _ in range(2 + key):
            request(store, key)
    for number in range(1000):
        request(store, f"junk {number}")

    assert [store.get(key) is not None for key in range(MAX_NUMBER)] == [False] + 9 * [True]


def test_a_large_value_evicts_no_more_than_the_least_requested() -> None:
    store = make_store()
    for key in range(MAX_NUMBER):
        for _ in range(2 + key):
            request(store, key, MAX_BYTES // MAX_NUMBER)
    request(store, "large", MAX_BYTES // 2)

    assert [store.get(key) is not None for key in range(MAX_NUMBER)] == 5 * [False] + 5 * [True]


def test_what_was_requested_once_makes_room_for_a_large_value() -> None:
    store = make_store()
    for number in range(MAX_NUMBER):
        request(store, f"junk {number}", MAX_BYTES // MAX_NUMBER)
    request(store, "large", MAX_BYTES)

    assert store.get("large") is not None


def test_a_new_value_for_the_same_key_replaces_the_old_one_with_its_count() -> None:
    store = make_store()
    for _ in range(3):
        request(store, "hot", 600)
    store.put("hot", "new", 700)
    store.put("once", "", 200)
    store.put("then", "", 200)

    assert store.get("hot") == "new"
    assert store.get("once") is None


def test_lists_the_most_requested_first_and_of_equals_the_oldest() -> None:
    store = make_store()
    for key in ("old", "hot", "new", "hot"):
        request(store, key)

    assert [key for key, _ in store.most_requested(MAX_NUMBER)] == ["hot", "old", "new"]
    assert store.most_requested(1) == [("hot", "value of hot")]
    assert "hot" in store
    assert "cold" not in store


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("frequent_switches")
def test_threads_may_use_it_at_once() -> None:
    store = make_store()

    def use(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(10_000):
            key = chosen.randrange(1000)
            value = store.get(key)
            if value is None:
                store.put(key, f"value of {key}", chosen.randrange(1, 300))
            else:
                assert value == f"value of {key}"

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))

    assert len(store) <= MAX_NUMBER
    assert store._bytes == sum(stored.size for stored in store._stored.values()) <= MAX_BYTES
