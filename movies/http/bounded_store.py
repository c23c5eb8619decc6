"""A cache in memory, bounded by number and bytes, that junk cannot empty."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import nlargest
from operator import attrgetter
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class Stored(Generic[Value]):
    """A value with its size in bytes, and how often it was requested after the first time."""

    key: Hashable
    value: Value
    size: int
    repeats: int


class BoundedStore(Generic[Value]):
    """Evicts what is requested least. For values that live briefly: their counts do not age.

    So values that are requested once evict each other, not those that are requested again and again.
    """

    def __init__(self, max_number: int, max_bytes: int) -> None:
        self._max_number, self._max_bytes = max_number, max_bytes
        self._lock = threading.Lock()
        # The oldest first.
        self._stored: dict[Hashable, Stored[Value]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._stored

    def most_requested(self, number: int) -> list[tuple[Any, Value]]:
        """Return keys and values, the most requested first, of equals the oldest."""
        with self._lock:
            stored = nlargest(number, self._stored.values(), key=attrgetter("repeats"))
        return [(each.key, each.value) for each in stored]

    def get(self, key: Hashable) -> Value | None:
        """Return the value, or None. Takes no lock: it does not matter if a count is lost."""
        stored = self._stored.get(key)
        if stored is None:
            return None
        stored.repeats += 1
        return stored.value

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Store a value that `get` did not return, unless it is larger than the whole store.

        A value that is stored under the key already is replaced.
        """
        if size > self._max_bytes:
            return
        with self._lock:
            replaced = self._stored.get(key)
            stored = Stored(key, value, size, replaced.repeats if replaced else 0)
            if replaced:
                self._remove(replaced)
            while len(self._stored) >= self._max_number or self._bytes + size > self._max_bytes:
                self._remove(min(self._stored.values(), key=attrgetter("repeats")))
            self._stored[key] = stored
            self._bytes += size

    def _remove(self, stored: Stored[Value]) -> None:
        del self._stored[stored.key]
        self._bytes -= stored.size
