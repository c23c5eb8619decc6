"""The ID of a request, and its line in the log."""

import logging
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import structlog
from django.conf import settings

from totoro.observability.metrics import route_of

log = structlog.get_logger(__name__)

# Nothing in it can break out of a header or a log line.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Many are made at a time, which takes a third. Before workers are forked there are none, as no request
# has come.
_new_ids: list[str] = []
ID_BYTES, NEW_IDS = 16, 256


def request_id_of(environ: WSGIEnvironment) -> str:
    """Return the client's X-Request-ID if it is valid, else a new ID."""
    client_id = environ.get("HTTP_X_REQUEST_ID")
    if client_id and REQUEST_ID.fullmatch(client_id):
        return str(client_id)
    try:
        return _new_ids.pop()
    except IndexError:
        first, *others = os.urandom(NEW_IDS * ID_BYTES).hex("-", ID_BYTES).split("-")
        _new_ids.extend(others)
        return first


def log_request(
    environ: WSGIEnvironment,
    path: str,
    status: int,
    headers: Mapping[str, str],
    seconds: float,
) -> None:
    """Log a server error, or with ACCESS_LOG every request. `headers` are those of the response.

    Server errors are always logged, so that a client's `request_id` can be found.
    """
    is_server_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if not is_server_error and not settings.ACCESS_LOG:
        return
    method = environ["REQUEST_METHOD"]
    optional = {"cache": cache_status(headers.get("Cache-Status"))}
    if settings.ACCESS_LOG_ADDRESSES:
        optional["client"] = environ.get("REMOTE_ADDR")
    # A warning: an error would be a second event in Sentry, beside the exception itself.
    log.log(
        logging.WARNING if is_server_error else logging.INFO,
        "request",
        method=method,
        path=path,
        route=route_of(environ["PATH_INFO"]),
        status=status,
        bytes=0 if method == "HEAD" else int(headers.get("Content-Length", 0)),
        seconds=round(seconds, 6),
        **{name: text for name, text in optional.items() if text},
    )


def cache_status(header: str | None) -> str | None:
    """Return what the header says (RFC 9211): hit, miss or stale."""
    if not header:
        return None
    if "detail=" in header:
        return "stale"
    return "miss" if "fwd=miss" in header else "hit"
