"""The least that a WSGI server can do: constant bytes and constant headers, those of Totoro."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

FOLDER = Path(os.environ["RESPONSES"])


def read(name: str) -> tuple[list[tuple[str, str]], list[bytes]]:
    headers = json.loads((FOLDER / f"{name}.headers.json").read_text())
    return [(key, value) for key, value in headers], [(FOLDER / f"{name}.json").read_bytes()]


LIST, DETAIL = read("list"), read("detail")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers, body = LIST if environ["PATH_INFO"] == "/movies/" else DETAIL
    start_response("200 OK", headers)
    return body
