"""The part of express in every answer of the Ghibli API: headers, conditions and encodings."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass, field
from html import escape
from http.client import responses
from typing import NamedTuple

# express compresses nothing smaller.
GZIP_FROM = 1024

NO_CACHE = re.compile(r"(?:^|,)\s*no-cache\s*(?:,|$)")

ERROR = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Error</title></head>
<body><pre>{reason}<br> &nbsp; &nbsp;at render (/app/src/app.js:40:7)</pre></body>
</html>
"""


class Request(NamedTuple):
    """A request as it came in; the names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass
class Answer:
    """Without a Content-Length, its body is to be sent in chunks."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def outage(status: int, request: Request) -> Answer:
    """Nothing but this status, as from something broken in front of the API or within it."""
    return packed(failure(status, responses.get(status, "Unknown")), request)


def failure(status: int, reason: str) -> Answer:
    return html(status, ERROR.format(reason=escape(reason)))


def html(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def json_answer(status: int, value: object) -> Answer:
    # A lone surrogate, which UTF-8 cannot hold, comes out as \udXXX in JavaScript too.
    text = json.dumps(value, indent=2, ensure_ascii=False)
    body = text.encode("utf-8", "backslashreplace")
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "application/json; charset=utf-8",
        "ETag": etag(body),
    }
    return Answer(status, headers, body)


def packed(made: Answer, request: Request) -> Answer:
    """The answer with all its headers, as conditions, HEAD and encodings want it."""
    made.headers = _headers_of_every_answer(request) | made.headers
    if made.status == 204:
        return made
    if made.status == 200 and _still_fresh(made, request):
        del made.headers["Content-Type"]
        return Answer(304, made.headers)
    if request.method == "HEAD":
        return Answer(made.status, made.headers | {"Content-Length": str(len(made.body))})
    if len(made.body) >= GZIP_FROM and _takes_gzip(request):
        body = gzip.compress(made.body, compresslevel=6, mtime=0)
        return Answer(made.status, made.headers | {"Content-Encoding": "gzip"}, body)
    made.headers["Content-Length"] = str(len(made.body))
    return made


def _still_fresh(made: Answer, request: Request) -> bool:
    if request.method not in ("GET", "HEAD") or NO_CACHE.search(request.header("cache-control")):
        return False
    etag = made.headers.get("ETag")
    known = [tag.strip().removeprefix("W/") for tag in request.header("if-none-match").split(",")]
    return etag is not None and ("*" in known or etag.removeprefix("W/") in known)


def _takes_gzip(request: Request) -> bool:
    for coding in request.header("accept-encoding").split(","):
        name, _, weight = coding.replace(" ", "").lower().partition(";q=")
        if name in ("gzip", "*"):
            return weight.strip("0.") != "" or not weight
    return False


def _headers_of_every_answer(request: Request) -> dict[str, str]:
    headers = {
        "X-Powered-By": "Express",
        "Vary": "Origin, Accept-Encoding",
        "Access-Control-Allow-Credentials": "true",
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
        "Expires": "-1",
    }
    if origin := request.header("origin"):
        headers["Access-Control-Allow-Origin"] = origin
    return headers


def etag(body: bytes) -> str:
    digest = base64.b64encode(hashlib.sha1(body).digest()).decode()
    return f'W/"{len(body):x}-{digest[:27]}"'
