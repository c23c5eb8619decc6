"""A TCP proxy that injects faults between a client and a server that works."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

CHUNK = 64 * 1024
# SO_LINGER with 0 seconds: close() discards unsent data and sends RST.
RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards a loopback port, which stays reserved until the block ends, to `target`.

    Faults, which also apply to open connections: `latency` delays each piece that a client sends (seconds),
    `is_silent` accepts connections and drops what they carry, `resets` resets them when a client sends.
    """

    def __init__(self, target: int) -> None:
        self.latency, self.is_silent, self.resets = 0.0, False, False
        # When clients sent something (monotonic seconds).
        self.request_times: list[float] = []
        self._target = target
        # Bound without listening: connections are refused, and no other process takes the port.
        self._reservation = _bind(0)
        self.port: int = self._reservation.getsockname()[1]
        self._listener: socket.socket | None = None
        self._backlog: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self.down()
        self._reservation.close()

    def up(self) -> None:
        """Forward without faults."""
        self.down()
        self.latency, self.is_silent, self.resets = 0.0, False, False
        self._listener = _bind(self.port)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and close those that are open."""
        if self._listener:
            _shut_down(self._listener)
            self._listener.close()
            self._listener = None
        for connection in self._backlog:
            connection.close()
        self._backlog.clear()
        self.close_connections()

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                _shut_down(connection)

    def ignore_syn(self) -> None:
        """Fill the backlog and accept nothing, so that the kernel drops every further SYN."""
        self.down()
        self._listener = _bind(self.port)
        self._listener.listen(0)
        with suppress(TimeoutError):
            while True:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=0.2)
                self._backlog.append(connection)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:  # the server is down
                    client.close()
                    continue
                server.settimeout(None)
                for source, sink in ((client, server), (server, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    with self._lock:
                        self._connections.add(source)
                    arguments = (source, sink, source is client)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        try:
            with suppress(OSError):
                while piece := source.recv(CHUNK):
                    if from_client:
                        self._delay_or_reset(source)
                    if not self.is_silent:
                        sink.sendall(piece)
        finally:
            _shut_down(sink)
            with self._lock:
                self._connections.discard(source)
            source.close()

    def _delay_or_reset(self, client: socket.socket) -> None:
        self.request_times.append(time.monotonic())
        self._stopping.wait(self.latency)
        if self.resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)
