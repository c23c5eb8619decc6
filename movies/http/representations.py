"""Rendered bytes with their gzip and ETag, made once per snapshot instead of once per request."""

import gzip
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from hashlib import sha256

from services.catalogue.snapshot import Snapshot

# Below this size (bytes) gzip saves too little.
MIN_SIZE_FOR_GZIP = 1024
MAX_REPRESENTATIONS = 256


class Representation:
    """A body and its gzipped form, each with a strong ETag (RFC 9110, section 8.8.3)."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body, self.content_type = body, content_type
        self._digest = sha256(body).hexdigest()[:32]

    @cached_property
    def gzipped(self) -> bytes:
        # Without the current time, so that every worker makes the same bytes.
        return gzip.compress(self.body, mtime=0)

    @property
    def is_worth_gzipping(self) -> bool:
        return len(self.body) >= MIN_SIZE_FOR_GZIP

    def etag(self, *, is_gzipped: bool) -> str:
        return f'"{self._digest}-gzip"' if is_gzipped else f'"{self._digest}"'


class RepresentationCache:
    """The representations that were used last, for any number of threads."""

    def __init__(self) -> None:
        self._representations: OrderedDict[Hashable, Representation] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, render: Callable[[], Representation]) -> Representation:
        with self._lock:
            if cached := self._representations.get(key):
                self._representations.move_to_end(key)
                return cached
        rendered = render()
        with self._lock:
            self._representations[key] = rendered
            if len(self._representations) > MAX_REPRESENTATIONS:
                self._representations.popitem(last=False)
        return rendered


class SnapshotRepresentations:
    """The representations of one snapshot, replaced when another one is requested."""

    def __init__(self) -> None:
        self._current: tuple[Snapshot | None, RepresentationCache] = None, RepresentationCache()

    def of(self, snapshot: Snapshot) -> RepresentationCache:
        current, representations = self._current
        if current is not snapshot:
            representations = RepresentationCache()
            self._current = snapshot, representations
        return representations
