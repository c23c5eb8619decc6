"""A cache in memory, bounded by number and bytes, that junk cannot empty."""

import threading
from collections.abc import Hashable
from operator import attrgetter
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Stored(Generic[Value]):
    """A value with its size in bytes, and how often it was requested after the first time."""

    __slots__ = ("key", "repeats", "size", "value")

    def __init__(self, key: Hashable, value: Value, size: int, repeats: int) -> None:
        self.key, self.value, self.size, self.repeats = key, value, size, repeats


class BoundedStore(Generic[Value]):
    """Evicts what is requested least. For values that live briefly: their counts do not age.

    A value that does not fit replaces others only if it was repeated (requested after the first time) at
    least as often as they were together. So what is requested once replaces only what was requested
    once. A large value that was repeated 10 times replaces five small ones that were repeated twice.
    """

    def __init__(self, max_number: int, max_bytes: int) -> None:
        self._max_number, self._max_bytes = max_number, max_bytes
        self._lock = threading.Lock()
        self._stored: dict[Hashable, Stored[Value]] = {}
        self._bytes = 0
        # How often a key was refused. By its hash, because keys can be long.
        self._refused: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._stored

    def most_requested(self, number: int) -> list[tuple[Any, Value]]:
        """Return keys and values, the most requested first, of equals the oldest."""
        with self._lock:
            stored = list(self._stored.values())
        stored.sort(key=attrgetter("repeats"), reverse=True)
        return [(each.key, each.value) for each in stored[:number]]

    def get(self, key: Hashable) -> Value | None:
        """Return the value, or None. Takes no lock: it does not matter if a count is lost."""
        stored = self._stored.get(key)
        if stored is None:
            return None
        stored.repeats += 1
        return stored.value

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Store a value that `get` did not return, unless others are worth more.

        A value that is stored under the key already is replaced.
        """
        with self._lock:
            if replaced := self._stored.get(key):
                self._remove(replaced)
            repeats = replaced.repeats if replaced else self._refused.pop(hash(key), 0)
            victims = self._victims(size, repeats)
            if victims is None:
                self._refuse(key, repeats)
                return
            for victim in victims:
                self._remove(victim)
            self._stored[key] = Stored(key, value, size, repeats)
            self._bytes += size

    def _victims(self, size: int, repeats: int) -> list[Stored[Value]] | None:
        """Return what must go for a value of this size, None if the value is not worth it."""
        number = len(self._stored) + 1 - self._max_number
        excess = self._bytes + size - self._max_bytes
        if number <= 0 and excess <= 0:
            return []
        victims = []
        candidates = [each for each in self._stored.values() if each.repeats <= repeats]
        # Of those that were requested equally often, the oldest first: the sort is stable.
        for victim in sorted(candidates, key=attrgetter("repeats")):
            repeats -= victim.repeats
            if repeats < 0:
                return None
            victims.append(victim)
            number, excess = number - 1, excess - victim.size
            if number <= 0 and excess <= 0:
                return victims
        return None

    def _remove(self, stored: Stored[Value]) -> None:
        del self._stored[stored.key]
        self._bytes -= stored.size

    def _refuse(self, key: Hashable, repeats: int) -> None:
        if len(self._refused) >= self._max_number:
            self._refused.clear()
        self._refused[hash(key)] = repeats + 1
