"""A proxy in front of Redis that replaces replies, with valid ones of another type or with garbage."""

import socket
import threading
from contextlib import suppress
from typing import BinaryIO, Self

# Replies of RESP 2, the Redis protocol; some command may return each of them.
REPLIES = {
    "ok": b"+OK\r\n",
    "status": b"+acorn\r\n",
    "nil": b"$-1\r\n",
    "nil list": b"*-1\r\n",
    "zero": b":0\r\n",
    "one": b":1\r\n",
    "minus one": b":-1\r\n",
    "huge": b":9223372036854775807\r\n",
    "empty text": b"$0\r\n\r\n",
    "text": b"$5\r\nacorn\r\n",
    "not UTF-8": b"$2\r\n\xff\xfe\r\n",
    "digits": b"$2\r\n42\r\n",
    "infinity": b"$3\r\ninf\r\n",
    "empty list": b"*0\r\n",
    "list": b"*2\r\n:1\r\n$5\r\nacorn\r\n",
    "three texts": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "three huge": b"*3\r\n" + b":9223372036854775807\r\n" * 3,
    "three negative": b"*3\r\n:-5\r\n:-5\r\n:-5\r\n",
    "list of lists": b"*3\r\n*1\r\n:1\r\n*0\r\n*1\r\n$-1\r\n",
    "error": b"-ERR no acorns\r\n",
    "error in a list": b"*2\r\n-WRONGTYPE acorn\r\n:1\r\n",
    "not the protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class ReplyProxy:
    """Forwards a free loopback port to `target` while its block runs.

    `replacement` replaces the replies to all commands, or to those in `commands` (upper case). The reply
    to EXEC stays a list, with every element replaced.
    """

    def __init__(self, target: int) -> None:
        self.replacement: bytes | None = None
        self.commands: set[str] | None = None
        # Totoro's keys that occurred in commands.
        self.keys: set[str] = set()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client, server:
            commands, replies = client.makefile("rb"), server.makefile("rb")
            queued = 0
            while command := read_value(commands):
                name = command.split(b"\r\n", 3)[2].upper().decode()
                words = command.split(b"\r\n")[4::2]
                self.keys |= {word.decode() for word in words if word.startswith(b"totoro:")}
                server.sendall(command)
                reply = read_value(replies)
                queued = queued + 1 if reply == b"+QUEUED\r\n" else queued
                client.sendall(self._replaced(name, reply, queued))
                queued = 0 if name == "EXEC" else queued

    def _replaced(self, name: str, reply: bytes, queued: int) -> bytes:
        replacement = self.replacement
        if replacement is None or (self.commands is not None and name not in self.commands):
            return reply
        if name in ("MULTI", "SELECT", "AUTH") or reply == b"+QUEUED\r\n":
            return reply
        if name == "EXEC":
            return b"*%d\r\n" % queued + replacement * queued
        return replacement


def read_value(stream: BinaryIO) -> bytes:
    """Return one value of the protocol as its bytes; empty at the end of the stream."""
    line = stream.readline()
    kind, number = line[:1], line[1:-2]
    if kind == b"$" and number != b"-1":
        return line + stream.read(int(number) + 2)
    if kind == b"*" and number != b"-1":
        return line + b"".join(read_value(stream) for _ in range(int(number)))
    return line
