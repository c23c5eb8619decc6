"""What express adds to every response of the Ghibli API: headers, conditions and encodings."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

# Bytes: express does not compress smaller bodies.
GZIP_MIN_SIZE = 1024

NO_CACHE = re.compile(r"(?:^|,)\s*no-cache\s*(?:,|$)")

ERROR = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Error</title></head>
<body><pre>{message}<br> &nbsp; &nbsp;at render (/app/src/app.js:40:7)</pre></body>
</html>
"""


class Request(NamedTuple):
    """A received request: its path with the query, its headers' names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass
class Response:
    """The body is sent in chunks if there is no Content-Length."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def error_response(status: int, message: str) -> Response:
    return html_response(status, ERROR.format(message=escape(message)))


def html_response(status: int, text: str) -> Response:
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def json_response(status: int, content: object) -> Response:
    # JavaScript, too, escapes a lone surrogate, which UTF-8 cannot encode, as \udXXX.
    text = json.dumps(content, indent=2, ensure_ascii=False)
    body = text.encode("utf-8", "backslashreplace")
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "application/json; charset=utf-8",
        "ETag": etag(body),
    }
    return Response(status, headers, body)


def finalize(response: Response, request: Request) -> Response:
    """Add the common headers; apply If-None-Match, HEAD and Accept-Encoding."""
    response.headers = _common_headers(request) | response.headers
    if response.status == 204:
        return response
    if response.status == 200 and _is_not_modified(response, request):
        del response.headers["Content-Type"]
        return Response(304, response.headers)
    if request.method == "HEAD":
        response.headers["Content-Length"] = str(len(response.body))
        response.body = b""
    elif len(response.body) >= GZIP_MIN_SIZE and _accepts_gzip(request):
        response.headers["Content-Encoding"] = "gzip"
        response.body = gzip.compress(response.body, compresslevel=6, mtime=0)
    else:
        response.headers["Content-Length"] = str(len(response.body))
    return response


def _is_not_modified(response: Response, request: Request) -> bool:
    if request.method not in ("GET", "HEAD") or NO_CACHE.search(request.header("cache-control")):
        return False
    etag = response.headers.get("ETag")
    known = [tag.strip().removeprefix("W/") for tag in request.header("if-none-match").split(",")]
    return etag is not None and ("*" in known or etag.removeprefix("W/") in known)


def _accepts_gzip(request: Request) -> bool:
    for coding in request.header("accept-encoding").split(","):
        name, _, weight = coding.replace(" ", "").lower().partition(";q=")
        if name in ("gzip", "*"):
            return weight.strip("0.") != "" or not weight
    return False


def _common_headers(request: Request) -> dict[str, str]:
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
