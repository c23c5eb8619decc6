"""The response cache: complete responses to /movies/ in front of Django, a small shared cache (RFC 9111).

A response is served as long as the snapshot that it was made from is in use; docs/architecture.md has the
steps of a hit. Whatever is not a plain hit is left to Django, so RESPONSE_CACHE=false changes speed and
nothing else.
"""

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from structlog.contextvars import bound_contextvars

from movies.http.bounded_store import BoundedStore
from movies.http.conditional import STORABLE, fresh_headers
from movies.http.content_encoding import prefers_gzip
from movies.http.throttling import count_request, rate_limit_headers
from movies.query.parameters import canonical_query
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.movies import movie_service
from totoro.observability.metrics import request_counter, route_of
from totoro.observability.requests import log_request, request_id_of

OK, NOT_MODIFIED = 200, 304
# Headers that are made anew for each request.
OF_REQUEST = {
    *("X-Request-ID", "RateLimit", "RateLimit-Policy"),
    *("Cache-Control", "Cache-Status", "X-Accel-Expires"),
}
# Headers that a 304 lacks.
OF_BODY = {"Content-Type", "Content-Length", "Content-Encoding"}
# One entity tag. The comparison is weak: it ignores the W/ (RFC 9110, section 13.1.2).
ENTITY_TAG = re.compile(r'(?:W/)?("[^",]*")')

# Of path, query and headers that make a key, together. Longer requests are rare, and left to Django.
MAX_LENGTH = 1024
# Remembered by what they were made of.
MAX_KEYS = 4096
MAX_RESPONSES = 1024
# At 2,200 movies the list has 4.5 MB.
MAX_BYTES = 16 * 1024 * 1024

Headers = list[tuple[str, str]]
Key = tuple[object, ...]


class Hit(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class StoredResponse(NamedTuple):
    body: bytes
    headers: Headers
    headers_of_304: Headers
    etag: str
    last_modified: str
    route: str

    def status_for(self, environ: WSGIEnvironment) -> int | None:
        """Return the status by the request's conditions; None if Django is to evaluate them."""
        if tag := environ.get("HTTP_IF_NONE_MATCH"):
            if tag == self.etag:
                return NOT_MODIFIED
            match = ENTITY_TAG.fullmatch(tag)
            if not match:
                return None
            return NOT_MODIFIED if match[1] == self.etag else OK
        if date := environ.get("HTTP_IF_MODIFIED_SINCE"):
            return NOT_MODIFIED if date == self.last_modified else None
        return OK


class ResponseCache:
    """WSGI middleware."""

    def __init__(self, application: WSGIApplication, *, is_on: bool = True) -> None:
        self._application, self._is_on = application, is_on
        self._boot = Clock().boot
        # Read once: Django's settings take 0.4 µs.
        self._access_log = settings.ACCESS_LOG
        # Replaced together, when another snapshot is in use.
        self._current: tuple[Snapshot | None, BoundedStore[StoredResponse]]
        self._current = None, BoundedStore(MAX_RESPONSES, MAX_BYTES)
        self._canonical_key = lru_cache(MAX_KEYS)(canonical_key)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if hit := self.hit(environ, may_wait=True):
            start_response(f"{hit.status} {HTTPStatus(hit.status).phrase}", hit.headers)
            return [hit.body]
        key = self._key(environ)
        if not key:
            return self._application(environ, start_response)
        return self._ask_django(key, environ, start_response)

    def hit(self, environ: WSGIEnvironment, *, may_wait: bool = False) -> Hit | None:
        """Return a stored response, or None if Django is to respond.

        Unless it `may_wait`, return None also if Redis has to be asked for the client's quota.
        """
        started = time.perf_counter()
        key = self._key(environ)
        result = movie_service().hit() if key else None
        stored = self._responses_of(result.snapshot).get(key) if result else None
        status = stored.status_for(environ) if stored else None
        if not result or not stored or not status:
            return None
        quota = count_request(environ, may_wait=may_wait)
        # The thread may have been paused for seconds, so that the response has expired meanwhile.
        if not quota or not quota.is_allowed or result.expires_at < self._boot():
            return None
        request_id = request_id_of(environ)
        headers = [
            *(stored.headers if status == OK else stored.headers_of_304),
            *fresh_headers("hit", int(result.ttl)),
            *rate_limit_headers(quota),
            ("X-Request-ID", request_id),
        ]
        seconds = time.perf_counter() - started
        request_counter.count((stored.route, environ["REQUEST_METHOD"], status, True), seconds)
        if self._access_log:
            with bound_contextvars(request_id=request_id):
                path = environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]
                log_request(environ, path, status, dict(headers), seconds)
        return Hit(status, headers, stored.body if status == OK else b"")

    def _ask_django(
        self, key: Key, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let Django respond, and store its response if that is allowed."""
        status, headers = "", Headers()

        def start(*response: Any) -> Any:
            nonlocal status, headers
            status, headers = response[:2]
            return start_response(*response)

        response = self._application(environ, start)
        result = movie_service().hit() if status == "200 OK" else None
        snapshot, body = environ.get(STORABLE) or (None, b"")
        # The debug toolbar changes the body.
        is_complete = ("Content-Length", str(len(body))) in headers
        if result and result.snapshot is snapshot and is_complete:
            stored = stored_response(body, headers, route_of(environ["PATH_INFO"]))
            self._responses_of(snapshot).put(key, stored, len(body))
        return response

    def _responses_of(self, snapshot: Snapshot) -> BoundedStore[StoredResponse]:
        current = self._current
        if current[0] is not snapshot:
            self._current = current = snapshot, BoundedStore(MAX_RESPONSES, MAX_BYTES)
        return current[1]

    def _key(self, environ: WSGIEnvironment) -> Key | None:
        """Return what the response depends on, or None if the request is left to Django."""
        get = environ.get
        host, query, accept = get("HTTP_HOST", ""), environ["QUERY_STRING"], get("HTTP_ACCEPT", "")
        path, encoding = environ["PATH_INFO"], get("HTTP_ACCEPT_ENCODING", "")
        if (
            not self._is_on
            or environ["REQUEST_METHOD"] not in ("GET", "HEAD")
            or len(host) + len(path) + len(query) + len(accept) + len(encoding) > MAX_LENGTH
            or "HTTP_IF_MATCH" in environ
            or "HTTP_IF_UNMODIFIED_SINCE" in environ
            or ("HTTP_ORIGIN" in environ and not settings.CORS_ALLOW_ALL_ORIGINS)
        ):
            return None
        site = get("SCRIPT_NAME", ""), environ["wsgi.url_scheme"], host
        return self._canonical_key(site, path, query, accept, encoding)


def canonical_key(
    site: tuple[str, str, str], path: str, query: str, accept: str, encoding: str
) -> Key | None:
    """Return equal keys for requests with the same response; None if Django is to decide."""
    prefix, _, host = site
    parameters, (domain, _) = canonical_query(query), split_domain_port(host)
    is_allowed_host = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
    if parameters is None or not path.isascii() or not is_allowed_host:
        return None
    # Only with parameters (limit, offset) does a response have links with scheme and host.
    return path, parameters, site if parameters else prefix, accept, prefers_gzip(encoding)


def stored_response(body: bytes, headers: Headers, route: str) -> StoredResponse:
    constant = [(name, value) for name, value in headers if name not in OF_REQUEST]
    of_304 = [(name, value) for name, value in constant if name not in OF_BODY]
    by_name = dict(constant)
    etag, last_modified = by_name["ETag"], by_name["Last-Modified"]
    return StoredResponse(body, constant, of_304, etag, last_modified, route)
