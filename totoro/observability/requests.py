"""The ID of a request, and its line in the log."""

import logging
import random
import re
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

# Nothing in it can break out of a header or a log line.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(environ: WSGIEnvironment) -> str:
    """Return the client's X-Request-ID if it is valid, else a new ID."""
    client_id = environ.get("HTTP_X_REQUEST_ID")
    if client_id and REQUEST_ID.fullmatch(client_id):
        return str(client_id)
    return f"{random.getrandbits(128):032x}"


def log_request(environ: WSGIEnvironment, path: str, status: int, seconds: float) -> None:
    """Log a server error, or with ACCESS_LOG every request.

    Server errors are always logged, so that a client's `request_id` can be found.
    """
    is_server_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if is_server_error or settings.ACCESS_LOG:
        # A warning: an error would be a second event in Sentry, beside the exception itself.
        log.log(
            logging.WARNING if is_server_error else logging.INFO,
            "request",
            method=environ["REQUEST_METHOD"],
            path=path,
            status=status,
            seconds=round(seconds, 6),
        )
