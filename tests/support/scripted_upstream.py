"""An upstream that runs a script for each request, down to the bytes on the socket.

It is for faults below HTTP, and for malformed responses. `fake_ghibli` is for everything else.

    with ScriptedUpstream(people=Exchange.hang_up) as upstream:
        GhibliClient(upstream.url).fetch()
"""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from services.catalogue import bundled

CHUNK = 64 * 1024
# SO_LINGER with 0 seconds: close() discards unsent data and sends RST.
RESET = struct.pack("ii", 1, 0)
# How long a script may still run when the block ends.
SCRIPT_TIMEOUT = 10.0


@dataclass(frozen=True)
class Request:
    """`headers` have names in lower case, `connection` counts from 1, `at` is when the first byte arrived."""

    target: str
    headers: dict[str, str]
    connection: int
    at: datetime

    @property
    def collection(self) -> str:
        return self.target.strip("/").partition("?")[0].partition("/")[0]


class Exchange:
    """A request and its connection, which stays open for the next request unless the script ends it."""

    def __init__(
        self, request: Request, connection: socket.socket, stopping: threading.Event
    ) -> None:
        self.request = request
        self.connection = connection
        self.stopping = stopping

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def send_repeatedly(self, data: bytes) -> None:
        """Send the same bytes until the client closes the connection."""
        while not self.stopping.is_set():
            self.send(data)

    def drip(self, data: bytes, *, pause: float = 0.1) -> None:
        """Send one byte at a time, with a pause (seconds) after each."""
        for byte in data:
            self.send(bytes([byte]))
            if self.stopping.wait(pause):
                return

    def stall(self) -> None:
        """Send nothing until the client closes the connection, or the upstream is closed."""
        while self.connection.recv(CHUNK):
            pass

    def hang_up(self) -> None:
        _shut_down(self.connection)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.connection.close()


# Bytes are sent unchanged.
Script = bytes | Callable[[Exchange], None]


def run_script(script: Script, exchange: Exchange) -> None:
    if isinstance(script, bytes):
        exchange.send(script)
    else:
        script(exchange)


def then(*scripts: Script) -> Callable[[Exchange], None]:
    """Run scripts one after the other for the same request: `then(half, Exchange.stall)`."""

    def run(exchange: Exchange) -> None:
        for script in scripts:
            run_script(script, exchange)

    return run


def in_turn(*scripts: Script) -> Callable[[Exchange], None]:
    """Run the first script for the first request, and so on; the last one for all that follow."""
    remaining = list(scripts)

    def run(exchange: Exchange) -> None:
        run_script(remaining.pop(0) if len(remaining) > 1 else remaining[0], exchange)

    return run


def http_response(body: bytes = b"", status: str = "200 OK", **headers: str | None) -> bytes:
    """Return a complete response, with a JSON media type. In names of headers `_` stands for `-`, and
    None omits a header."""
    fields = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "\r\n"]).encode("latin-1") + body


def json_response(payload: object) -> bytes:
    return http_response(json.dumps(payload, ensure_ascii=False).encode())


def chunked(*pieces: bytes) -> bytes:
    """Return the chunks of a body, without the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


CATALOGUE = bundled.load()


def film(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a real film with changed fields."""
    return CATALOGUE.films[number] | changes


def person(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a real person with changed fields."""
    return CATALOGUE.people[number] | changes


FILMS = json_response(CATALOGUE.films)
PEOPLE = json_response(CATALOGUE.people)
NOT_FOUND = http_response(b"{}", "404 Not Found")


class ScriptedUpstream:
    """Listens on a free loopback port while its block runs.

    `films` and `people` are the scripts for these lists, by default valid responses; they can be replaced
    at any time. `tls` makes it an https server. `opening` runs for each new connection before anything,
    a TLS handshake included, is read.
    """

    def __init__(
        self,
        *,
        films: Script = FILMS,
        people: Script = PEOPLE,
        tls: ssl.SSLContext | None = None,
        opening: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.films, self.people = films, people
        self.connections = 0
        self.requests: list[Request] = []
        self._tls, self._opening = tls, opening
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/"

    def count(self, collection: str) -> int:
        with self._lock:
            return sum(request.collection == collection for request in self.requests)

    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        _shut_down(self._listener)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(SCRIPT_TIMEOUT)
            assert not thread.is_alive(), "a script did not end"

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        with self._lock:
            for connection in self._open:
                _shut_down(connection)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        stream = connection
        try:
            with suppress(OSError):  # the client may close the connection at any time
                if self._opening:
                    self._opening(connection)
                if self._tls:
                    stream = self._tls.wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False
                    )
                    self._replace(connection, stream)
                    stream.do_handshake()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := self._read(stream, number):
                    run_script(self._script(request), Exchange(request, stream, self._stopping))
        finally:
            self._replace(stream, None)
            stream.close()

    def _replace(self, old: socket.socket, new: socket.socket | None) -> None:
        with self._lock:
            self._open.discard(old)
            if new:
                self._open.add(new)

    def _read(self, connection: socket.socket, number: int) -> Request | None:
        data = connection.recv(CHUNK)
        at = datetime.now(UTC)
        while not data.endswith(b"\r\n\r\n"):
            if not (more := connection.recv(CHUNK)):
                return None
            data += more
        line, *headers = data.decode("latin-1").strip().split("\r\n")
        parts = (header.partition(":") for header in headers)
        fields = {name.lower(): value.strip() for name, _, value in parts}
        request = Request(line.split()[1], fields, number, at)
        with self._lock:
            self.requests.append(request)
        return request

    def _script(self, request: Request) -> Script:
        scripts = {"films": self.films, "people": self.people}
        return scripts.get(request.collection, NOT_FOUND)


def run_concurrently(*calls: Callable[[], Any]) -> list[Any]:
    """Make all calls concurrently, and return what each returned or raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.exception() or future.result() for future in futures]


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Gate:
    """Blocks requests until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.reached.set()
        assert self.opened.wait(10)
