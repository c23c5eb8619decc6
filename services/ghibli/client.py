"""The facade over the Ghibli API: the only place that speaks to it, and the only one that imports
requests.

One `fetch` is one GET of films and one of people, at the same time. Whatever goes wrong leaves here
as UpstreamError with a reason.
"""

import http.client
import logging
import random
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ReadTimeoutError, SSLError
from urllib3.util.connection import create_connection

from services.background import Resolver, start
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS
from services.catalogue.merge import PAGE
from services.exceptions import Reason, UpstreamError

# A resolver asks its servers again after 5 s; one that has not answered by then is not well.
RESOLVE_TIMEOUT = 5.0
# For each address of a host: one that is there accepts within a second, across an ocean too.
CONNECT_TIMEOUT = 2.0
# Between two pieces of an answer; free hosts wake up slowly.
READ_TIMEOUT = 5.0
# Everything together, the retry included. The timeouts above start anew with every piece, so a byte
# a second would never end.
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

# RFC 9110, section 8.8.3, in ASCII and of a bounded length.
ENTITY_TAG = re.compile(r'(?:W/)?"[!#-~]{0,256}"')

# What requests, urllib3 and http.client raise when a response breaks HTTP. ValueError is among
# them: a negative chunk size, for one, reaches the socket's file object.
UNUSABLE_RESPONSE = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)

# It would log all that an upstream sends in place of headers.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

T = TypeVar("T")


@dataclass(frozen=True)
class Fetched:
    """Both lists as parsed JSON, and the UTC instant just before they were asked for."""

    timestamp: datetime
    films: Any
    people: Any


class GhibliClient:
    """Asks the Ghibli API at `base_url` (with a trailing slash) for its films and people."""

    def __init__(
        self,
        base_url: str,
        *,
        session: requests.Session | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        deadline: float = FLIGHT_DEADLINE,
        film_fields: Iterable[str] = FILM_FIELDS,
    ) -> None:
        self._session = session or make_session()
        self._now = now
        self._deadline = deadline
        self._resolver = Resolver("ghibli")
        self._flight: Flight | None = None
        self._urls = {
            "films": f"{base_url}films?fields={','.join(film_fields)}&limit={PAGE}",
            "people": f"{base_url}people?fields={','.join(PERSON_FIELDS)}&limit={PAGE}",
        }
        # name → (ETag, parsed): what a 304 stands for.
        self._kept: dict[str, tuple[str, Any]] = {}

    def fetch(self) -> Fetched:
        """Both lists, or UpstreamError with the reason of whichever request failed first.

        Never takes longer than the deadline. A request that cannot be cut off at once (it is being
        connected) is left to end by itself, without consequences.
        """
        timestamp = self._now()
        self._flight = flight = Flight(self._resolver)
        futures = [start(self._get, name, flight, name="ghibli") for name in ("films", "people")]
        done, late = wait(futures, self._deadline, return_when=FIRST_EXCEPTION)
        flight.cut()
        for future in futures:
            if future in done and (error := future.exception()):
                raise error
        if late:
            raise _too_slow()
        films, people = (future.result() for future in futures)
        return Fetched(timestamp, films, people)

    def close(self) -> None:
        """Cut off the flight that is under way."""
        if self._flight:
            self._flight.cut()

    def _get(self, name: str, flight: "Flight") -> Any:
        _current.flight = flight
        try:
            return self._ask(name)
        except UpstreamError as error:
            if not error.retriable or not flight.may_retry():
                raise
        if flight.over.wait(random.uniform(0, RETRY_BACKOFF)):  # noqa: S311 (spreads load only)
            raise _too_slow()
        return self._ask(name)

    def _ask(self, name: str) -> Any:
        kept = self._kept.get(name)
        try:
            with self._session.get(
                self._urls[name],
                headers={"If-None-Match": kept[0]} if kept else {},
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                allow_redirects=False,
                stream=True,
            ) as response:
                if kept and response.status_code == 304:
                    response.raw.drain_conn()  # there is no body, but else the connection is lost
                    return kept[1]
                _check_head(response)
                parsed = _parsed(_body(response))
        except UNUSABLE_RESPONSE as error:
            raise _translated(error) from error
        finally:
            _current.flight.release()
        self._keep(name, response.headers.get("ETag"), parsed)
        return parsed

    def _keep(self, name: str, etag: str | None, parsed: Any) -> None:
        self._kept.pop(name, None)
        # Any other could not be sent back: http.client refuses it, for as long as it is remembered.
        if etag and ENTITY_TAG.fullmatch(etag):
            self._kept[name] = (etag, parsed)


def _too_slow() -> UpstreamError:
    return UpstreamError(Reason.DEADLINE, "the flight took too long and was cut off")


@dataclass
class Flight:
    """What the two requests of one fetch share: one retry, and an end that comes to both."""

    resolver: Resolver
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    retries: int = 1

    def may_retry(self) -> bool:
        with self.lock:
            self.retries -= 1
            return self.retries >= 0

    def watch(self, sock: socket.socket) -> None:
        """From now on this thread reads from `sock`."""
        with self.lock:
            if self.over.is_set():
                raise _too_slow()
            self.sockets[threading.get_ident()] = sock

    def release(self) -> None:
        """This thread has nothing to be cut any more: its connection may serve another flight."""
        with self.lock:
            self.sockets.pop(threading.get_ident(), None)

    def cut(self) -> None:
        """End both requests, wherever they are; a thread that reads wakes up at once."""
        with self.lock:
            self.over.set()
            for sock in self.sockets.values():
                _shut_down(sock)


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        # Not the SSL socket's own method, which tears down what the reading thread is using.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_current = threading.local()  # .flight: the one that this thread belongs to


class _Connection(HTTPConnection):
    """A connection that its flight can cut, and that no resolver holds up."""

    def _new_conn(self) -> socket.socket:
        failed: OSError | None = None
        for address in self._addresses():
            try:
                return create_connection(
                    (address, self.port), self.timeout, socket_options=self.socket_options
                )
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            reason, detail = Reason.CONNECT_TIMEOUT, "no connection in time"
        else:
            reason, detail = Reason.REFUSED, "cannot be reached"
        raise UpstreamError(reason, detail, retriable=True) from failed

    def _addresses(self) -> list[str]:
        try:
            resolver: Resolver = _current.flight.resolver
            return resolver.addresses(self.host, self.port, RESOLVE_TIMEOUT)
        except TimeoutError as error:
            raise UpstreamError(Reason.DNS, "the resolver does not answer") from error
        except (OSError, UnicodeError) as error:
            raise UpstreamError(Reason.DNS, "its name does not resolve", retriable=True) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        # The socket and not self: http.client lets go of it before a body that ends with it.
        _current.flight.watch(self.sock)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere. To fill in Response.next, requests would read a redirect's body, however long,
        even when told not to follow."""


def make_session() -> requests.Session:
    """A session with no proxy, .netrc or certificate bundle from the environment, no cookies, no
    redirects and no retries."""
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers = {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": "totoro",
    }
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=1, pool_maxsize=2, max_retries=0))
    return session


def _check_head(response: requests.Response) -> None:
    status = response.status_code
    if status != 200:
        retry_after = _retry_after(response.headers.get("Retry-After"))
        raise UpstreamError(
            _status_reason(status),
            f"answered with status {status}",
            # Who names a time does not want to be asked again at once.
            retriable=status in (502, 503, 504) and retry_after is None,
            retry_after=retry_after,
        )
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UpstreamError(Reason.CONTENT_TYPE, "answered with something that is not JSON")


def _status_reason(status: int) -> Reason:
    if status == 429:
        return Reason.RATE_LIMITED
    if status == 304:
        return Reason.STATUS  # nobody asked for a change
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
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())


def _body(response: requests.Response) -> bytes:
    """The body, counted on the wire and unfolded, so that neither can grow beyond its limit."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UpstreamError(Reason.CONTENT_TYPE, "answered in an encoding nobody asked for")
    pieces = _limited(_wire(response), WIRE_LIMIT)
    if encoding == "gzip":
        pieces = _limited(_unfolded(pieces), DECODED_LIMIT)
    return b"".join(pieces)


def _wire(response: requests.Response) -> Iterator[bytes]:
    while piece := response.raw.read(CHUNK, decode_content=False):
        yield piece


def _limited(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise UpstreamError(Reason.TOO_LARGE, "answered with more than is plausible")
        yield piece


def _unfolded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Unfolded gzip, in pieces of at most CHUNK bytes, however much there is behind each."""
    unfold = zlib.decompressobj(wbits=31)
    try:
        for folded in pieces:
            while piece := unfold.decompress(folded, CHUNK):
                yield piece
                folded = unfold.unconsumed_tail
    except zlib.error as error:
        raise _not_gzip() from error
    if not unfold.eof:
        raise UpstreamError(Reason.TRUNCATED, "the compressed body ends early", retriable=True)
    if unfold.unused_data:
        raise _not_gzip()


def _not_gzip() -> UpstreamError:
    return UpstreamError(Reason.BAD_JSON, "the body is not the gzip it claims to be")


def _parsed(body: bytes) -> Any:
    if ESCAPED_NUL.search(body):
        raise UpstreamError(Reason.BAD_JSON, "the JSON holds a NUL")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(Reason.BAD_JSON, "the body is not valid JSON") from error


# What is none of these did not speak HTTP.
CAUSES: tuple[tuple[type[BaseException], Reason, str, bool], ...] = (
    (SSLError, Reason.TLS, "its certificate or TLS is not to be trusted", False),
    (ReadTimeoutError, Reason.READ_TIMEOUT, "went silent", False),
    (http.client.IncompleteRead, Reason.TRUNCATED, "the body ends early", True),
    (ConnectionError, Reason.RESET, "the connection broke", True),
)


def _translated(error: Exception) -> UpstreamError:
    """requests wraps urllib3, which wraps http.client, which wraps the socket: the deepest known
    cause names the reason."""
    causes = list(_causes(error))
    for kind, reason, detail, retriable in CAUSES:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(reason, detail, retriable=retriable)
    return UpstreamError(Reason.PROTOCOL, "did not speak HTTP")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: as its cause, its context, its reason or an argument."""
    yield error
    for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
