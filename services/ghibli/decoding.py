"""From a response of the Ghibli API to JSON, or to an UpstreamError that names the reason."""

import re
import time
import zlib
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead
from typing import Any

import msgspec
from requests import Response
from urllib3.exceptions import HTTPError, ReadTimeoutError, SSLError

from services.exceptions import Reason, UpstreamError

# About 30 times the size of the real responses, 33 and 27 KB.
MAX_WIRE_BYTES = 2 * 1024 * 1024
MAX_DECODED_BYTES = 5 * 1024 * 1024
CHUNK_BYTES = 64 * 1024

MAX_RETRY_AFTER_SECONDS = 999_999.0

# NUL is legal in JSON, but PostgreSQL cannot store it as text.
ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

# What requests (OSError), urllib3 and http.client raise for connections that break and responses
# that violate HTTP. http.client raises ValueError for a negative chunk size.
HTTP_ERRORS = (HTTPError, HTTPException, OSError, ValueError)

REASONS_BY_ERROR: tuple[tuple[type[Exception], Reason, str, bool], ...] = (
    (SSLError, Reason.TLS, "TLS failed or the certificate is invalid", False),
    (ReadTimeoutError, Reason.READ_TIMEOUT, "reading timed out", False),
    (IncompleteRead, Reason.TRUNCATED, "the body is incomplete", True),
    (ConnectionError, Reason.RESET, "the connection was closed", True),
)

# By status, or by its first digit. A 304 counts as unexpected: decode() sees it only in response to
# a request without If-None-Match.
REASONS_BY_STATUS = {
    304: Reason.STATUS,
    429: Reason.RATE_LIMITED,
    3: Reason.REDIRECT,
    4: Reason.UPSTREAM_4XX,
    5: Reason.UPSTREAM_5XX,
}


def decode(response: Response) -> Any:
    """Return the JSON of a 200 response; raise UpstreamError for any other response."""
    if response.status_code != 200:
        raise status_error(response)
    media_type = response.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise UpstreamError(Reason.CONTENT_TYPE, "the response is not JSON")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UpstreamError(Reason.CONTENT_TYPE, "the content encoding is not gzip")
    body = read(response)
    return parse(gunzip(body) if encoding == "gzip" else body)


def translate(error: Exception) -> UpstreamError:
    """Return the UpstreamError for one of HTTP_ERRORS, judged by what it was raised from.

    requests wraps errors of urllib3, which wraps those of http.client and of the socket.
    """
    causes = list(causes_of(error))
    for kind, reason, detail, retriable in REASONS_BY_ERROR:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(reason, detail, retriable=retriable)
    return UpstreamError(Reason.PROTOCOL, "the response is not HTTP")


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def status_error(response: Response) -> UpstreamError:
    status, seconds = response.status_code, retry_after(response.headers.get("Retry-After"))
    return UpstreamError(
        REASONS_BY_STATUS.get(status) or REASONS_BY_STATUS.get(status // 100, Reason.STATUS),
        f"the status is {status}",
        # With Retry-After the upstream asks for a longer pause than that before a retry.
        retriable=status in (502, 503, 504) and seconds is None,
        retry_after=seconds,
    )


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, section 10.2.3); None if invalid."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())


def read(response: Response) -> bytes:
    """Return the body as it was sent."""
    body = bytearray()
    while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
        body += chunk
        check_size(body, MAX_WIRE_BYTES)
    return bytes(body)


def gunzip(compressed: bytes) -> bytes:
    """Decompress exactly one gzip stream, in chunks, so that a gzip bomb takes no memory."""
    stream, body = zlib.decompressobj(wbits=31), bytearray()
    try:
        while chunk := stream.decompress(compressed, CHUNK_BYTES):
            body += chunk
            check_size(body, MAX_DECODED_BYTES)
            compressed = stream.unconsumed_tail
    except zlib.error as error:
        raise UpstreamError(Reason.BAD_JSON, "the body is not gzip") from error
    if not stream.eof:
        raise UpstreamError(Reason.TRUNCATED, "the gzip stream is incomplete", retriable=True)
    if stream.unused_data:
        raise UpstreamError(Reason.BAD_JSON, "more data follows the gzip stream")
    return bytes(body)


def check_size(body: bytearray, limit: int) -> None:
    if len(body) > limit:
        raise UpstreamError(Reason.TOO_LARGE, "the body is too large")


def parse(body: bytes) -> Any:
    # The expression alone takes ten times as long as decoding.
    if rb"\u0000" in body and ESCAPED_NUL.search(body):
        raise UpstreamError(Reason.BAD_JSON, "the JSON contains a NUL character")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(Reason.BAD_JSON, "the body is not valid JSON") from error
