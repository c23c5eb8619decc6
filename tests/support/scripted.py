"""An upstream at a raw socket, which does to each request what a script says: the Ghibli API on its
worst days. For good days there is the `upstream` package.

    with Scripted(people=hang_up) as upstream:
        GhibliClient(upstream.url).fetch()
"""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from services.catalogue import bundled

CHUNK = 64 * 1024
# SO_LINGER on, 0 seconds: closing drops what is unsent and resets the connection.
RESET = struct.pack("ii", 1, 0)
# Whoever waits for a script's end waits for a moment, unless the script is wrong.
PATIENCE = 10.0


@dataclass(frozen=True)
class Request:
    """A request that came in: headers' names in lower case; `connection` counts from 1; `at` is
    when its first byte was read."""

    target: str
    headers: dict[str, str]
    connection: int
    at: datetime

    @property
    def collection(self) -> str:
        return self.target.strip("/").partition("?")[0].partition("/")[0]


class Exchange:
    """A request and the connection that it came on, for a script to play with.

    A script that returns without having ended the connection leaves it open for the next request.
    """

    def __init__(
        self, request: Request, connection: socket.socket, stopping: threading.Event
    ) -> None:
        self.request = request
        self.connection = connection
        self.stopping = stopping

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def pour(self, data: bytes) -> None:
        """The same over and over, until the client has enough."""
        while not self.stopping.is_set():
            self.send(data)

    def drip(self, data: bytes, *, pause: float = 0.1) -> None:
        """A byte at a time, and a pause (seconds) after each."""
        for byte in data:
            self.send(bytes([byte]))
            if self.stopping.wait(pause):
                return

    def stall(self) -> None:
        """Says nothing until the client gives up, or the upstream is closed."""
        while self.connection.recv(CHUNK):
            pass

    def hang_up(self) -> None:
        _shut_down(self.connection)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.connection.close()


# Plain bytes are sent as they are.
Script = bytes | Callable[[Exchange], None]


def play(script: Script, exchange: Exchange) -> None:
    if isinstance(script, bytes):
        exchange.send(script)
    else:
        script(exchange)


def then(*scripts: Script) -> Callable[[Exchange], None]:
    """One script after the other, to the same request: `then(half, Exchange.stall)`."""

    def run(exchange: Exchange) -> None:
        for script in scripts:
            play(script, exchange)

    return run


def in_turn(*scripts: Script) -> Callable[[Exchange], None]:
    """The first script to the first request, and so on; the last one to all that follow."""
    waiting = list(scripts)

    def run(exchange: Exchange) -> None:
        play(waiting.pop(0) if len(waiting) > 1 else waiting[0], exchange)

    return run


def answer(body: bytes = b"", status: str = "200 OK", **headers: str | None) -> bytes:
    """A whole answer, JSON by its own account. Headers are written with underscores; None leaves
    one out."""
    every = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in every.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "\r\n"]).encode("latin-1") + body


def answer_json(payload: object) -> bytes:
    return answer(json.dumps(payload, ensure_ascii=False).encode())


def chunked(*pieces: bytes) -> bytes:
    """Pieces of a chunked body, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


CATALOGUE = bundled.load()


def film(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A real film, with something changed."""
    return CATALOGUE.films[number] | changes


def person(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A real person, with something changed."""
    return CATALOGUE.people[number] | changes


FILMS = answer_json(CATALOGUE.films)
PEOPLE = answer_json(CATALOGUE.people)
NOT_FOUND = answer(b"{}", "404 Not Found")


class Scripted:
    """Listens on a free port of the loopback while its block lasts.

    `films`, `people`: scripts for requests to these; whole, good answers unless told otherwise, and
    changeable at any time. `tls`: what to speak TLS with. `opening`: what to do with a connection
    before anything, TLS included, is read from it.
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
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script does not end"

    def hang_up(self) -> None:
        """Ends every connection, as a server does with those that lie idle."""
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
            self._start(self._converse, connection, self.connections)

    def _converse(self, connection: socket.socket, number: int) -> None:
        spoken = connection
        try:
            with suppress(OSError):  # the client may hang up whenever it likes
                if self._opening:
                    self._opening(connection)
                if self._tls:
                    spoken = self._tls.wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False
                    )
                    self._replace(connection, spoken)
                    spoken.do_handshake()
                spoken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := self._read(spoken, number):
                    play(self._script(request), Exchange(request, spoken, self._stopping))
        finally:
            self._replace(spoken, None)
            spoken.close()

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


class BlackHole:
    """A port that answers no SYN: its queue of connections is full and nobody takes any out."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._port: int = self._listener.getsockname()[1]
        self._queue: list[socket.socket] = []
        while self._queued():
            pass
        return self

    def __exit__(self, *raised: object) -> None:
        for waiting in [*self._queue, self._listener]:
            waiting.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def _queued(self) -> bool:
        try:
            self._queue.append(socket.create_connection(("127.0.0.1", self._port), timeout=0.2))
        except TimeoutError:
            return False
        return True


def at_the_same_time(*calls: Callable[[], Any]) -> list[Any]:
    """What each call gave or raised, all of them made at once."""
    outcomes: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            outcomes[index] = call()
        except Exception as error:  # noqa: BLE001 (handed to the test)
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Gate:
    """Holds every request for films until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.reached.set()
        assert self.opened.wait(10)
