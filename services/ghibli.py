"""The facade over the Ghibli API: the only place that speaks to it, and the only one that imports
requests.

One `fetch` is one GET of films and one of people, at the same time. Whatever goes wrong leaves here
as UpstreamError with a reason.
"""

import random
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from services.catalogue import FILM_FIELDS, PAGE, PERSON_FIELDS
from services.exceptions import Reason, UpstreamError

# A host that is there accepts within a second, across an ocean too.
CONNECT_TIMEOUT = 2.0
# Between two pieces of an answer; free hosts wake up slowly.
READ_TIMEOUT = 5.0
# Everything together, the retry included. requests' own timeouts start anew with every piece, so a
# byte a second would never end.
FLIGHT_DEADLINE = 20.0
# Full jitter before the one retry: long enough for a restarting server, and a closed port still
# fails in under a second.
RETRY_BACKOFF = 0.5
# Some thirty times the real answers' 33 and 27 KB. The second bounds what gzip may unfold to.
WIRE_LIMIT = 2 * 1024 * 1024
DECODED_LIMIT = 5 * 1024 * 1024
CHUNK = 64 * 1024

# NUL is legal JSON, but PostgreSQL's text cannot hold it and no title needs it.
ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Fetched:
    """Both lists as parsed JSON, and the UTC instant just before they were asked for."""

    timestamp: datetime
    films: Any
    people: Any


@dataclass
class Flight:
    """What the two requests of one fetch share: a deadline that can cut them off, and one retry."""

    connections: set[HTTPConnection] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    retries: int = 1

    def watch(self, connection: HTTPConnection) -> None:
        with self.lock:
            self.connections.add(connection)

    def cut(self) -> None:
        """End both requests, wherever they are; a thread that reads wakes up at once."""
        self.over.set()
        with self.lock:
            for connection in self.connections:
                if sock := getattr(connection, "sock", None):
                    _shut_down(sock)

    def may_retry(self) -> bool:
        with self.lock:
            self.retries -= 1
            return self.retries >= 0


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed or never connected: there is nothing left to end
        # Not the SSL socket's own method, which tears down what the reading thread is using.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_current = threading.local()


class _WatchedConnection(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _current.flight.watch(self)
        super().request(*args, **kwargs)


class _WatchedTLSConnection(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _current.flight.watch(self)
        super().request(*args, **kwargs)


class _WatchedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


class _Adapter(HTTPAdapter):
    """Pooled connections that a flight can cut; no retries of its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _WatchedPool, "https": _WatchedTLSPool}


def make_session() -> requests.Session:
    """A session with no proxy, .netrc or certificate bundle from the environment."""
    session = requests.Session()
    session.trust_env = False
    session.headers = {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": "totoro",
    }
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=1, pool_maxsize=2, max_retries=0))
    return session


class GhibliClient:
    """Asks the Ghibli API at `base_url` (with a trailing slash) for its films and people."""

    def __init__(
        self,
        base_url: str,
        *,
        session: requests.Session | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        deadline: float = FLIGHT_DEADLINE,
    ) -> None:
        self._session = session or make_session()
        self._now = now
        self._deadline = deadline
        self._urls = {
            "films": f"{base_url}films?fields={','.join(FILM_FIELDS)}&limit={PAGE}",
            "people": f"{base_url}people?fields={','.join(PERSON_FIELDS)}&limit={PAGE}",
        }
        # name → (ETag, parsed): what a 304 stands for.
        self._kept: dict[str, tuple[str, Any]] = {}

    def fetch(self) -> Fetched:
        """Both lists, or UpstreamError with the reason of whichever request failed first."""
        timestamp = self._now()
        with self._flight() as flight, ThreadPoolExecutor(2, "ghibli") as pool:
            futures = [pool.submit(self._get, name, flight) for name in ("films", "people")]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if error := _first_error(done):
                flight.cut()
                raise error
            films, people = (future.result() for future in futures)
        return Fetched(timestamp, films, people)

    @contextmanager
    def _flight(self) -> Iterator[Flight]:
        flight = Flight()
        timer = threading.Timer(self._deadline, flight.cut)
        timer.daemon = True
        timer.start()
        try:
            yield flight
        finally:
            timer.cancel()

    def _get(self, name: str, flight: Flight) -> Any:
        _current.flight = flight
        while True:
            try:
                return self._ask(name)
            except UpstreamError as error:
                if flight.over.is_set() and error.reason is not Reason.DNS:
                    raise _too_slow() from error
                if not error.retriable or not flight.may_retry():
                    raise
            if flight.over.wait(random.uniform(0, RETRY_BACKOFF)):  # noqa: S311 (spreads load only)
                raise _too_slow()

    def _ask(self, name: str) -> Any:
        kept = self._kept.get(name)
        headers = {"If-None-Match": kept[0]} if kept else {}
        try:
            with self._session.get(
                self._urls[name],
                headers=headers,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                allow_redirects=False,
                stream=True,
            ) as response:
                if kept and response.status_code == 304:
                    return kept[1]
                _check_head(response)
                body = _decoded(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _translated(error) from error
        # A connection cut inside the headers looks like a whole, empty answer to http.client.
        if _current.flight.over.is_set():
            raise _too_slow()
        parsed = _parsed(body)
        self._keep(name, response.headers.get("ETag"), parsed)
        return parsed

    def _keep(self, name: str, etag: str | None, parsed: Any) -> None:
        self._kept.pop(name, None)
        if etag:
            self._kept[name] = (etag, parsed)


def _first_error(done: set[Future[Any]]) -> BaseException | None:
    return next((error for future in done if (error := future.exception())), None)


def _too_slow() -> UpstreamError:
    return UpstreamError(Reason.DEADLINE, "the flight took too long and was cut off")


def _check_head(response: requests.Response) -> None:
    status = response.status_code
    if status != 200:
        raise UpstreamError(
            _status_reason(status),
            f"answered with status {status}",
            retriable=status in (502, 503, 504),
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UpstreamError(Reason.CONTENT_TYPE, "answered with something that is not JSON")


def _status_reason(status: int) -> Reason:
    if status == 429:
        return Reason.RATE_LIMITED
    families = {3: Reason.REDIRECT, 4: Reason.UPSTREAM_4XX, 5: Reason.UPSTREAM_5XX}
    return families.get(status // 100, Reason.STATUS)


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After (RFC 9110, section 10.2.3), a number or a date; None for rubbish."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        # Digits beyond a day's seconds would only overflow.
        return float(text.strip()[:6])
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def _decoded(response: requests.Response) -> bytes:
    """The body, counted on the wire and unfolded, so that neither can grow beyond its limit."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UpstreamError(Reason.CONTENT_TYPE, "answered in an encoding nobody asked for")
    unfold = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body, wire = bytearray(), 0
    while chunk := response.raw.read(CHUNK, decode_content=False):
        wire += len(chunk)
        body += _unfolded(unfold, chunk, DECODED_LIMIT + 1 - len(body)) if unfold else chunk
        if wire > WIRE_LIMIT or len(body) > DECODED_LIMIT:
            raise UpstreamError(Reason.TOO_LARGE, "answered with more than is plausible")
    if unfold and not unfold.eof:
        raise UpstreamError(Reason.TRUNCATED, "the compressed body ends early", retriable=True)
    return bytes(body)


def _unfolded(unfold: Any, chunk: bytes, limit: int) -> bytes:
    try:
        unfolded: bytes = unfold.decompress(chunk, limit)
    except zlib.error as error:
        raise UpstreamError(Reason.BAD_JSON, "the body is not the gzip it claims to be") from error
    return unfolded


def _parsed(body: bytes) -> Any:
    if ESCAPED_NUL.search(body):
        raise UpstreamError(Reason.BAD_JSON, "the JSON holds a NUL")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(Reason.BAD_JSON, "the body is not valid JSON") from error


def _translated(error: Exception) -> UpstreamError:
    """requests wraps urllib3, which wraps http.client, which wraps the socket: the deepest known
    cause names the reason."""
    causes = list(_causes(error))
    for kind, reason, detail, retriable in CAUSES:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(reason, detail, retriable=retriable)
    return UpstreamError(Reason.PROTOCOL, "did not speak HTTP that can be understood")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what it carries as arguments, outermost first."""
    yield error
    inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)


# In this order: a refused connection is also a NewConnectionError, an IncompleteRead also a
# ProtocolError.
CAUSES: tuple[tuple[type[BaseException], Reason, str, bool], ...] = (
    (
        requests.exceptions.SSLError,
        Reason.TLS,
        "its certificate or TLS is not to be trusted",
        False,
    ),
    (NameResolutionError, Reason.DNS, "its name does not resolve", True),
    (requests.exceptions.ConnectTimeout, Reason.CONNECT_TIMEOUT, "no connection in time", True),
    (ConnectionRefusedError, Reason.REFUSED, "refused the connection", True),
    (NewConnectionError, Reason.REFUSED, "cannot be reached", True),
    (ReadTimeoutError, Reason.READ_TIMEOUT, "went silent", False),
    (IncompleteRead, Reason.TRUNCATED, "the body ends early", True),
    (ConnectionError, Reason.RESET, "the connection broke", True),
    (ProtocolError, Reason.RESET, "the connection broke", True),
)
