"""A real nginx with deploy/nginx/nginx.conf.template, and what it looks up and forwards requests to."""

import os
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from tests.support.servers import ROOT, Process, clean_environment, free_port, wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
FOLDER = ROOT / "deploy" / "nginx"


def derived_settings(**settings: str) -> dict[str, str]:
    """Return what the image's entry point puts into the template."""
    done = subprocess.run(
        ["/bin/sh", "-ec", ". ./15-settings.envsh; env"],
        cwd=FOLDER,
        env={**clean_environment(), **settings},
        check=True,
        capture_output=True,
        text=True,
    )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("NGINX_")}


class Nginx(Process):
    def __init__(
        self,
        folder: Path,
        upstream: str,
        *,
        resolver: str = "127.0.0.1",
        include: str = "",
        **settings: str,
    ) -> None:
        assert NGINX
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder / f"nginx-{self.port}"
        self.folder.mkdir()
        self.log, self.access_log = self.folder / "error.log", self.folder / "access.log"
        (self.folder / "include.conf").write_text(include)
        variables = {
            **derived_settings(**settings),
            "NGINX_FOLDER": str(self.folder),
            "NGINX_PORT": f"127.0.0.1:{self.port}",
            "NGINX_HEALTH_PORT": str(free_port()),
            "NGINX_RESOLVER": resolver,
            "NGINX_UPSTREAM": upstream,
            "NGINX_INCLUDE": f"{self.folder}/include.conf",
        }
        self.health_url = f"http://127.0.0.1:{variables['NGINX_HEALTH_PORT']}/"
        template = (FOLDER / "nginx.conf.template").read_text()
        text = re.sub(r"\$\{(NGINX_\w+)\}", lambda match: variables[match[1]], template)
        self.configuration = self.folder / "nginx.conf"
        self.configuration.write_text(text)
        # As root, nginx would start its workers as another user, who cannot use the test's folder.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        super().__init__([NGINX, "-e", "stderr", "-c", str(self.configuration), *user])

    def start(self) -> None:
        with self.log.open("a") as log, self.access_log.open("a") as access_log:
            self._options |= {"stdout": access_log, "stderr": log}
            super().start()
        wait_until(self._responds, what="nginx responds")

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def hit(self, path: str = "/movies/", **options: Any) -> requests.Response:
        """Request a path until its response comes from the cache, and return that."""
        responses: list[requests.Response] = []

        def is_hit() -> bool:
            responses.append(self.get(path, **options))
            return responses[-1].headers.get("Cache-Status", "").startswith("nginx; hit")

        wait_until(is_hit, what=f"nginx has {path}")
        return responses[-1]

    def send(self, request: bytes) -> bytes:
        """Send bytes, close the sending side, and return the whole response."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def _responds(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"nginx ended while it started:\n{self.log.read_text()}")
        try:
            return requests.get(self.health_url, timeout=5).status_code == 204
        except requests.ConnectionError:
            return False


class Recorder(ThreadingHTTPServer):
    """Responds to all requests, whose headers it records; or closes the connection, if `is_broken`."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.is_broken = False
        super().__init__((address, port), RecordingHandler)
        self.port = self.server_port


class RecordingHandler(BaseHTTPRequestHandler):
    server: Recorder

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self.close_connection = True

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.server.requests.append((self.command, headers))
        if not self.server.is_broken:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_POST = do_HEAD = do_GET  # noqa: N815 (names of http.server)

    def log_message(self, *_: object) -> None:
        pass


class NameServer(socketserver.ThreadingUDPServer):
    """DNS that knows one thing: the IPv4 addresses of every name. With none, the name does not exist."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        super().__init__(("127.0.0.1", 0), NameHandler)
        self.address = f"127.0.0.1:{self.server_address[1]}"


class NameHandler(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        query, connection = self.request
        addresses = self.server.addresses
        status = 0x8180 if addresses else 0x8183
        header = struct.pack(">2sHHHHH", query[:2], status, 1, len(addresses), 0, 0)
        # The name is that of the question, at byte 12; type A, class IN, valid for 0 seconds.
        answers = (
            struct.pack(">HHHIH4s", 0xC00C, 1, 1, 0, 4, socket.inet_aton(address))
            for address in addresses
        )
        connection.sendto(header + query[12:] + b"".join(answers), self.client_address)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
