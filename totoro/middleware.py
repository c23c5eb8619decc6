import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware

from services.clock import Clock
from totoro.exception_handler import render
from totoro.problem_types import HOST_NOT_ALLOWED, URI_TOO_LONG
from totoro.views.metrics import responses

log = structlog.get_logger(__name__)

Handler = Callable[[HttpRequest], HttpResponse]

# What a client may call its request: nothing that could break out of a header or a log line.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# For JSON: a browser that is talked into showing it as a page may load and run nothing.
STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

# Hosts that are not allowed and are logged, each once in the life of a process: clients choose these
# names, and may fill neither the log nor the memory.
LOGGED_HOSTS = 100
# Of a name in DNS, in characters (RFC 1035, section 2.3.4).
LONGEST_HOST = 253


class RequestIDMiddleware:
    """Gives each request an id, on the response and in every log line; counts and logs responses.

    What failed on our side is logged always, so that a client's `request_id` finds it; all requests
    with ACCESS_LOG.
    """

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            started = time.perf_counter()
            response = self._get_response(request)
            response["X-Request-ID"] = request_id
            responses.labels(response.status_code).inc()
            failed = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
            if failed or settings.ACCESS_LOG:
                # Not an error: that would be one more event in Sentry, which has had a bug's own.
                log.log(
                    logging.WARNING if failed else logging.INFO,
                    "request",
                    method=request.method,
                    path=request.path,
                    status=response.status_code,
                    seconds=round(time.perf_counter() - started, 6),
                )
        return response


class TimelyMiddleware:
    """Asks once more if the answer has ended while it was being made.

    Where more threads want to run than can, one may be stopped for seconds between the choice of an
    answer and its last byte.
    """

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response
        self._clock = Clock()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if getattr(response, "ends", math.inf) < self._clock.boot():
            response = self._get_response(request)
        return response


class ContentSecurityPolicyMiddleware:
    """The strict policy for every response that does not bring its own (the pages do)."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers.setdefault("Content-Security-Policy", STRICT_POLICY)
        return response


class AnyOriginMiddleware:
    """Around django-cors-headers: when any origin is allowed, every response says so.

    Its own answers differ with the Origin, so that caches in front would have to keep one for each.
    """

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if settings.CORS_ALLOW_ALL_ORIGINS:
            response["Access-Control-Allow-Origin"] = "*"
            response["Access-Control-Expose-Headers"] = ", ".join(settings.CORS_EXPOSE_HEADERS)
            names = [name.strip() for name in response.get("Vary", "").split(",")]
            response["Vary"] = ", ".join(name for name in names if name.lower() != "origin")
            if not response["Vary"]:
                del response["Vary"]
        return response


class HostMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which refuses a foreign Host, but not from those who watch over
    Totoro: they come by an address that changes, and get nothing but a word on its health.

    A host that is well-formed and not allowed most often means that ALLOWED_HOSTS is wrong: the
    response and the log say so.
    """

    UNNAMED = ("/livez", "/readyz", "/metrics")

    def __init__(self, get_response: Handler) -> None:
        super().__init__(get_response)
        self._logged_hosts: set[str] = set()

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override]  # may refuse
        if request.path_info in self.UNNAMED:
            return None
        try:
            return super().process_request(request)
        except DisallowedHost:
            domain, _ = split_domain_port(request._get_raw_host())  # type: ignore[attr-defined]
            if not domain:
                raise
        self._log_once(domain[:LONGEST_HOST])
        return render(request, HOST_NOT_ALLOWED, None)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        response = super().process_response(request, response)
        # After a 301 most clients repeat a POST as a GET, which would then succeed.
        moved = response.status_code == HTTPStatus.MOVED_PERMANENTLY
        if moved and request.method not in ("GET", "HEAD"):
            response.status_code = HTTPStatus.PERMANENT_REDIRECT
        # Django gives the length of this response, which would have to be that of the 200 (RFC 9110,
        # section 8.6).
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            del response["Content-Length"]
        return response

    def _log_once(self, host: str) -> None:
        if host not in self._logged_hosts and len(self._logged_hosts) < LOGGED_HOSTS:
            self._logged_hosts.add(host)
            log.warning("host_not_allowed", host=host, allowed=settings.ALLOWED_HOSTS)


class AddressLengthMiddleware:
    """414 for an address that can only be a mistake or an attack (RFC 9110, section 4.1)."""

    LONGEST = 8000

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if len(request.get_full_path()) > self.LONGEST:
            return render(request, URI_TOO_LONG, None)
        return self._get_response(request)
