"""The fake Ghibli API: its data, faults and counters, and HTTP like that of node."""

import re
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache, partial
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from fake_ghibli.express import Request, Response, error_response, finalize
from fake_ghibli.faults import Faults
from fake_ghibli.json_server import Collections, path_segments, respond
from fake_ghibli.listener import Listener
from services.catalogue import bundled

# The default of node, announced in Keep-Alive.
IDLE_SECONDS = 5
# Content-Lengths that are accepted: 10 MB, like json-server.
CONTENT_LENGTH = re.compile("[0-9]{1,7}")
CHUNK_BYTES = 16 * 1024
# A soak sends millions of requests: all are counted, the newest are recorded.
MAX_RECORDED_REQUESTS = 10_000
# SO_LINGER of 0 seconds: closing the connection drops unsent bytes and resets it.
LINGER_0 = struct.pack("ii", 1, 0)


def utc_now() -> datetime:
    return datetime.now(UTC)


class FakeGhibli:
    """A context manager that serves `data`, by default the bundled catalogue.

    Changes of `data` and `faults` apply from the next request on.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: Collections | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.data = bundled_data() if data is None else data
        self.faults = faults or Faults()
        self.clock = clock
        self.idle = idle
        self._listener = Listener(host, port, partial(RequestHandler, self))
        self._requests: deque[Request] = deque(maxlen=MAX_RECORDED_REQUESTS)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._listener.__exit__(*raised)

    @property
    def url(self) -> str:
        return self._listener.url

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    def count(self, collection: str) -> int:
        """Return the number of requests for a collection and for its objects."""
        with self._lock:
            return self._counts[collection.lower()]

    def record(self, request: Request) -> None:
        collection = path_segments(request.path)[0].lower()
        with self._lock:
            self._requests.append(request)
            # Only existing collections, so that random paths do not fill the memory.
            if collection in map(str.lower, self.data):
                self._counts[collection] += 1

    def respond(self, request: Request) -> Response:
        status = self.faults.status
        if status is not None:
            return finalize(error_response(status, responses.get(status, "Unknown")), request)
        return respond(self._stamped_data() if self.faults.stamp else self.data, request)

    def _stamped_data(self) -> Collections:
        if "films" not in self.data:
            return self.data
        stamp = {"description": self.clock().isoformat(timespec="microseconds")}
        return {**self.data, "films": [film | stamp for film in self.data["films"]]}


load_bundled = cache(bundled.load)  # tests start many fake Ghibli APIs


def bundled_data() -> Collections:
    """Return the bundled catalogue, in lists that a test may change."""
    catalogue = deepcopy(load_bundled())
    return {"films": catalogue.films, "people": catalogue.people}


class RequestHandler(BaseHTTPRequestHandler):
    """Serves one connection the way node does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def __init__(self, fake: FakeGhibli, *connection: Any) -> None:
        self.fake = fake
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.fake.idle)

    def handle_request(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not CONTENT_LENGTH.fullmatch(length):
            self.send_error(400)
            return
        request = self._request(self.rfile.read(int(length)))
        self.fake.record(request)
        if self.fake.faults.hang:
            self._hang()
        elif self.server.stopping.wait(self.fake.faults.delay):
            self.close_connection = True
        else:
            self._send(self.fake.respond(request))

    do_GET = do_HEAD = do_OPTIONS = do_TRACE = handle_request
    do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def _request(self, body: bytes) -> Request:
        # Not self.path, which begins with one slash even for //films.
        path = self.requestline.split()[1]
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, path, headers, body)

    def _hang(self) -> None:
        self.connection.settimeout(None)
        while self.connection.recv(CHUNK_BYTES):
            pass  # until the client or the server closes the connection
        self.close_connection = True

    def _send(self, response: Response) -> None:
        body = response.body
        if body and "Content-Length" not in response.headers:
            body = self._chunked(response)
        if self.fake.faults.reset:
            self._reset(self._head(response) + body[: len(body) // 2])
        else:
            self.wfile.write(self._head(response) + body)

    def _chunked(self, response: Response) -> bytes:
        if self.request_version == "HTTP/1.0":
            self.close_connection = (
                True  # instead of chunks, the end of the connection ends the body
            )
            return response.body
        response.headers["Transfer-Encoding"] = "chunked"
        starts = range(0, len(response.body), CHUNK_BYTES)
        chunks = [response.body[start : start + CHUNK_BYTES] for start in starts]
        return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])

    def _head(self, response: Response) -> bytes:
        headers = response.headers | {"Date": format_datetime(self.fake.clock(), usegmt=True)}
        if self.close_connection:
            headers["Connection"] = "close"
        else:
            headers |= {"Connection": "keep-alive", "Keep-Alive": f"timeout={self.fake.idle:g}"}
        lines = [f"HTTP/1.1 {response.status} {responses.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def _reset(self, sent: bytes) -> None:
        self.wfile.write(sent)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        # An open rfile would leave the socket open; a shutdown would end it without a reset.
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Respond like node to anything that is not HTTP, without involving express."""
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
