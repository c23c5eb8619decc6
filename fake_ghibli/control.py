"""The control port: shows and sets the faults as JSON, apart from the clients' port."""

import json
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

from fake_ghibli.listener import Listener
from fake_ghibli.server import FakeGhibli


def control(fake: FakeGhibli, host: str, port: int) -> Listener:
    return Listener(host, port, partial(ControlHandler, fake))


class ControlHandler(BaseHTTPRequestHandler):
    """`GET /` shows faults and request counts; `PUT /` with a JSON object sets faults."""

    def __init__(self, fake: FakeGhibli, *connection: Any) -> None:
        self.fake = fake
        super().__init__(*connection)

    def do_GET(self) -> None:
        if self.path == "/":
            self._send_state()
        else:
            self._send(404, {"message": "The only path is /."})

    def do_PUT(self) -> None:
        try:
            faults = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if not isinstance(faults, dict):
                raise ValueError('Send an object, such as {"delay": 0.5}.')
            self.fake.faults.set(faults)
        except ValueError as error:
            self._send(400, {"message": str(error)})
        else:
            self._send_state()

    def _send_state(self) -> None:
        requests = {name: self.fake.count(name) for name in self.fake.data}
        self._send(200, {"faults": asdict(self.fake.faults), "requests": requests})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: callers read the ports from standard output."""
