"""A TCP proxy that makes trouble on the way to a server, which itself is well."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

CHUNK = 64 * 1024
# SO_LINGER on, 0 seconds: closing drops what is unsent and resets the connection.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """On a free port of the loopback, its own until its block ends.

    `latency`: seconds that each piece from the client takes. `holds`: connections are accepted and
    what comes is swallowed. `resets`: connections are reset when something comes. All of them may
    change at any time, for open connections too.
    """

    def __init__(self, target: int) -> None:
        self.latency, self.holds, self.resets = 0.0, False, False
        # Instants (monotonic) at which something was asked.
        self.asked: list[float] = []
        self._target = target
        # Bound, but not listening: while the proxy is down the port refuses, and nobody takes it.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._listener: socket.socket | None = None
        self._queue: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self.down()
        self._holder.close()

    def up(self) -> None:
        """Well again."""
        self.down()
        self.latency, self.holds, self.resets = 0.0, False, False
        self._listener = _bound(self.port)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._listener:
            _shut_down(self._listener)
            self._listener.close()
            self._listener = None
        for waiting in self._queue:
            waiting.close()
        self._queue.clear()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                _shut_down(connection)

    def fill(self) -> None:
        """Answer no SYN any more: the queue of connections is full and nobody takes any out."""
        self.down()
        self._listener = _bound(self.port)
        self._listener.listen(0)
        with suppress(TimeoutError):
            while True:
                waiting = socket.create_connection(("127.0.0.1", self.port), timeout=0.2)
                self._queue.append(waiting)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:  # it is down itself
                    client.close()
                    continue
                server.settimeout(None)
                for one, other in ((client, server), (server, client)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    with self._lock:
                        self._open.add(one)
                    threading.Thread(
                        target=self._pump, args=(one, other, one is client), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        try:
            with suppress(OSError):
                while data := source.recv(CHUNK):
                    if asks:
                        self.asked.append(time.monotonic())
                        self._over.wait(self.latency)
                        if self.resets:
                            source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                            source.close()
                    if not self.holds:
                        sink.sendall(data)
        finally:
            _shut_down(sink)
            with self._lock:
                self._open.discard(source)
            source.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)
