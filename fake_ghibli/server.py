"""The fake Ghibli API: data, faults and counters, and the HTTP that clients see."""

import re
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple, Self

from fake_ghibli.answers import Collections, answer, path_segments
from fake_ghibli.express import Answer, Request, outage
from fake_ghibli.faults import Faults
from fake_ghibli.listener import Listener
from services.catalogue import bundled

# Seconds that a connection may lie idle: node's default, announced in Keep-Alive.
IDLE = 5
# Of a body: nearly as much as json-server reads, 10 MB.
LENGTH = re.compile("[0-9]{1,7}")
CHUNK = 16 * 1024
# A soak sends millions: all are counted, only the newest are kept.
REQUESTS_KEPT = 10_000
# SO_LINGER on, 0 seconds: closing drops what is unsent and resets the connection.
RESET = struct.pack("ii", 1, 0)


class Seen(NamedTuple):
    """A request that came in: its path with the query, its headers' names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


def utc_now() -> datetime:
    return datetime.now(UTC)


class FakeGhibli:
    """Serves the data (the bundled catalogue, unless some is given) while its block lasts.

    What is changed in `data` or `faults` holds from the next request on.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: Collections | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
        idle: float = IDLE,
    ) -> None:
        self.data = bundled_data() if data is None else data
        self.faults = faults or Faults()
        self.clock = clock
        self.idle = idle
        self._listener = Listener(host, port, partial(Conversation, self))
        self._seen: deque[Seen] = deque(maxlen=REQUESTS_KEPT)
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
    def requests(self) -> list[Seen]:
        with self._lock:
            return list(self._seen)

    def count(self, collection: str) -> int:
        """Requests so far for a collection and for single objects of it."""
        with self._lock:
            return self._counts[collection.lower()]

    def note(self, request: Request) -> None:
        collection = path_segments(request.path)[0].lower()
        with self._lock:
            self._seen.append(Seen(request.method, request.path, request.headers))
            # Only what exists, or strange paths would pile up.
            if collection in map(str.lower, self.data):
                self._counts[collection] += 1

    def answer(self, request: Request) -> Answer:
        if self.faults.status is not None:
            return outage(self.faults.status, request)
        return answer(self._stamped() if self.faults.stamp else self.data, request)

    def _stamped(self) -> Collections:
        if "films" not in self.data:
            return self.data
        stamp = {"description": self.clock().isoformat(timespec="microseconds")}
        return {**self.data, "films": [film | stamp for film in self.data["films"]]}


def bundled_data() -> Collections:
    catalogue = bundled.load()
    return {"films": catalogue.films, "people": catalogue.people}


class Conversation(BaseHTTPRequestHandler):
    """One client's connection, as node holds it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def __init__(self, fake: FakeGhibli, *connection: Any) -> None:
        self.fake = fake
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.fake.idle)

    def converse(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not LENGTH.fullmatch(length):
            self.send_error(400)
            return
        request = self._request(self.rfile.read(int(length)))
        self.fake.note(request)
        if self.fake.faults.hang:
            self._hang()
        elif self.server.stopping.wait(self.fake.faults.delay):
            self.close_connection = True
        else:
            self._send(self.fake.answer(request))

    do_GET = do_HEAD = do_OPTIONS = do_TRACE = converse
    do_POST = do_PUT = do_PATCH = do_DELETE = converse

    def _request(self, body: bytes) -> Request:
        # self.path will not do: it has only one slash where //films has two.
        path = self.requestline.split()[1]
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, path, headers, body)

    def _hang(self) -> None:
        self.connection.settimeout(None)
        while self.connection.recv(CHUNK):
            pass  # Until the client gives up, or the server ends.
        self.close_connection = True

    def _send(self, made: Answer) -> None:
        body = made.body
        if body and "Content-Length" not in made.headers:
            body = self._in_chunks(made)
        if self.fake.faults.reset:
            self._reset(self._head(made) + body[: len(body) // 2])
        else:
            self.wfile.write(self._head(made) + body)

    def _in_chunks(self, made: Answer) -> bytes:
        if self.request_version == "HTTP/1.0":
            self.close_connection = True  # It knows no chunks: the body ends with the connection.
            return made.body
        made.headers["Transfer-Encoding"] = "chunked"
        parts = [made.body[i : i + CHUNK] for i in range(0, len(made.body), CHUNK)]
        return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])

    def _head(self, made: Answer) -> bytes:
        headers = made.headers | {"Date": format_datetime(self.fake.clock(), usegmt=True)}
        if self.close_connection:
            headers["Connection"] = "close"
        else:
            headers |= {"Connection": "keep-alive", "Keep-Alive": f"timeout={self.fake.idle:g}"}
        lines = [f"HTTP/1.1 {made.status} {responses.get(made.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def _reset(self, sent: bytes) -> None:
        self.wfile.write(sent)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        # A file on the socket holds it open; and shutting it down first would end it politely.
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What node says, before the program is asked, to anything that is not HTTP to it."""
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """The real one prints a line here; nobody needs it."""
