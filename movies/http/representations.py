"""Rendered bytes with their gzip and ETag, made once per snapshot instead of once per request."""

from collections.abc import Callable, Hashable
from functools import cached_property, lru_cache
from hashlib import sha256

from django.urls import get_script_prefix

from movies.http.content_encoding import compress
from services.catalogue.snapshot import Snapshot

MAX_REPRESENTATIONS = 256


class Representation:
    """A body and its gzipped form, each with a strong ETag (RFC 9110, section 8.8.3)."""

    def __init__(
        self, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        self.body, self.content_type, self.headers = body, content_type, headers or {}
        self._digest = sha256(body).hexdigest()[:32]

    @cached_property
    def gzipped(self) -> bytes:
        return compress(self.body)

    def etag(self, *, is_gzipped: bool) -> str:
        return f'"{self._digest}-gzip"' if is_gzipped else f'"{self._digest}"'


Render = Callable[..., Representation]


class SnapshotRepresentations:
    """The representations of one snapshot, replaced when another one is requested."""

    def __init__(self) -> None:
        self._current: tuple[Snapshot, Render] | None = None

    def get(self, snapshot: Snapshot, render: Render, *arguments: Hashable) -> Representation:
        """Return `render(snapshot, *arguments)`, which is called once for the same arguments."""
        current = self._current
        if current is None or current[0] is not snapshot:
            self._current = current = snapshot, cached_rendering(snapshot)
        # Links contain the prefix under which this client sees Totoro.
        return current[1](get_script_prefix(), render, *arguments)


def cached_rendering(snapshot: Snapshot) -> Render:
    @lru_cache(MAX_REPRESENTATIONS)
    def cached(prefix: str, render: Render, *arguments: Hashable) -> Representation:
        return render(snapshot, *arguments)

    return cached
