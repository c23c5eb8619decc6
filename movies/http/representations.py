"""Answers as bytes, made once for each snapshot and question, not for each request."""

import gzip
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from hashlib import sha256
from typing import Generic, TypeVar

from services.catalogue.snapshot import Snapshot

# Below this, gzip saves less than its header and the client's time.
WORTH_COMPRESSING = 1024
# Different questions of one snapshot whose answers are remembered.
REMEMBERED = 256


T = TypeVar("T")


class Rendition:
    """A body, its compressed form and the strong ETag of each (RFC 9110, section 8.8.3)."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.tag = sha256(body).hexdigest()[:32]

    @cached_property
    def compressed(self) -> bytes:
        # No time of making in it: every worker makes the same bytes.
        return gzip.compress(self.body, mtime=0)

    @property
    def is_worth_compressing(self) -> bool:
        return len(self.body) >= WORTH_COMPRESSING

    def etag(self, *, compressed: bool) -> str:
        return f'"{self.tag}-gzip"' if compressed else f'"{self.tag}"'


class BoundedCache(Generic[T]):
    """What was made for the keys that were asked for last, for any number of threads."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if made := self._made.get(key):
                self._made.move_to_end(key)
                return made
        made = make()
        with self._lock:
            self._made[key] = made
            while len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        return made


class Shelf:
    """What was made of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._renditions: BoundedCache[Rendition] = BoundedCache()

    def get(self, question: Hashable, make: Callable[[], bytes]) -> Rendition:
        return self._renditions.get(question, lambda: Rendition(make()))


class Shelves:
    """The shelf of the snapshot that was asked for last; those before are forgotten."""

    def __init__(self) -> None:
        self._shelf: Shelf | None = None

    def of(self, snapshot: Snapshot) -> Shelf:
        shelf = self._shelf
        if not shelf or shelf.snapshot is not snapshot:
            self._shelf = shelf = Shelf(snapshot)
        return shelf
