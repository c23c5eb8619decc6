"""The facade over the Ghibli API: everything that goes wrong leaves it as an UpstreamError."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, wait
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services import tracing
from services.background import start
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS
from services.catalogue.merge import PAGE_LIMIT
from services.exceptions import Reason, UpstreamError
from services.ghibli.decoding import HTTP_ERRORS, decode, translate
from services.ghibli.transport import Transport

# For a whole refresh, its retry included. Time limits of the transport start again with each read.
DEADLINE_SECONDS = 20.0
# At most, with full jitter: enough for a server that restarts.
RETRY_BACKOFF_SECONDS = 0.5

# RFC 9110, section 8.8.3, limited to ASCII and to a length that may be sent back.
ENTITY_TAG = re.compile(r'(?:W/)?"[!#-~]{0,256}"')


@dataclass(frozen=True)
class Fetched:
    """Both lists as parsed JSON, and the UTC time just before they were requested."""

    timestamp: datetime
    films: Any
    people: Any


class GhibliClient:
    """Fetches all films and people from the Ghibli API at `base_url`, which ends with a slash."""

    def __init__(
        self,
        base_url: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        deadline: float = DEADLINE_SECONDS,
        film_fields: Iterable[str] = FILM_FIELDS,
    ) -> None:
        self._now = now
        self._deadline = deadline
        self._transport = Transport()
        self._urls = {
            "films": f"{base_url}films?fields={','.join(film_fields)}&limit={PAGE_LIMIT}",
            "people": f"{base_url}people?fields={','.join(PERSON_FIELDS)}&limit={PAGE_LIMIT}",
        }
        # By list name, the last ETag and JSON: what a 304 refers to.
        self._unchanged: dict[str, tuple[str | None, Any]] = dict.fromkeys(self._urls, (None, None))

    def fetch(self) -> Fetched:
        """Request both lists at the same time; raise the UpstreamError of the first that fails.

        Never takes longer than the deadline. After a failure all connections are closed, which ends
        the other request too.
        """
        timestamp, transport, retry = self._now(), self._transport, threading.Semaphore(1)
        futures = [
            # With the span of the refresh.
            start(copy_context().run, self._get, name, transport, retry, name="ghibli")
            for name in self._urls
        ]
        done, pending = wait(futures, self._deadline, return_when=FIRST_EXCEPTION)
        errors = [error for one in futures if one in done and (error := one.exception())]
        if errors or pending:
            transport.cancel()
            self._transport = Transport()
            raise errors[0] if errors else UpstreamError(Reason.DEADLINE, "the refresh timed out")
        films, people = (future.result() for future in futures)
        return Fetched(timestamp, films, people)

    def close(self) -> None:
        """Cancel the fetch in progress."""
        self._transport.cancel()

    def _get(self, name: str, transport: Transport, retry: threading.Semaphore) -> Any:
        """Return the list; repeat a failed request if the fetch has not used its retry yet."""
        try:
            with tracing.span(f"GET {name}"):
                return self._request(name, transport)
        except UpstreamError as error:
            if not error.retriable or not retry.acquire(blocking=False):
                raise
        time.sleep(random.uniform(0, RETRY_BACKOFF_SECONDS))  # noqa: S311 (spreads load only)
        with tracing.span(f"GET {name}"):
            return self._request(name, transport)

    def _request(self, name: str, transport: Transport) -> Any:
        etag, unchanged = self._unchanged[name]
        try:
            with transport.get(self._urls[name], etag=etag) as response:
                if etag and response.status_code == 304:
                    response.raw.drain_conn()  # for the next request; a 304 has no body
                    return unchanged
                content = decode(response)
        except HTTP_ERRORS as error:
            raise translate(error) from error
        new_etag = response.headers.get("ETag", "")
        # http.client refuses to send back a malformed one, so every later request would fail.
        is_valid = ENTITY_TAG.fullmatch(new_etag)
        self._unchanged[name] = (new_etag, content) if is_valid else (None, None)
        return content
