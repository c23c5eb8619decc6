"""The control port: the faults and counters as JSON, out of its clients' sight."""

import json
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

from fake_ghibli.listener import Listener
from fake_ghibli.server import FakeGhibli


def control(fake: FakeGhibli, host: str, port: int) -> Listener:
    return Listener(host, port, partial(Panel, fake))


class Panel(BaseHTTPRequestHandler):
    """`GET /` shows, `PUT /` with a JSON object sets faults and shows."""

    def __init__(self, fake: FakeGhibli, *connection: Any) -> None:
        self.fake = fake
        super().__init__(*connection)

    def do_GET(self) -> None:
        if self.path != "/":
            self._send(404, {"message": "There is only /."})
        else:
            self._show()

    def do_PUT(self) -> None:
        try:
            sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if not isinstance(sent, dict):
                raise ValueError('Send an object, such as {"delay": 0.5}.')
            self.fake.faults.set(sent)
        except ValueError as error:
            self._send(400, {"message": str(error)})
        else:
            self._show()

    def _show(self) -> None:
        faults = asdict(self.fake.faults)
        requests = {name: self.fake.count(name) for name in self.fake.data}
        self._send(200, {"faults": faults, "requests": requests})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the one line on standard output is for whoever waits for the port."""
