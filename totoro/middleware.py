import math
import time
from collections.abc import Callable
from http import HTTPStatus

import structlog
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase, ResponseHeaders
from django.middleware.common import CommonMiddleware
from structlog.contextvars import bind_contextvars, reset_contextvars

from services.clock import Clock
from totoro.exception_handler import problem_response
from totoro.observability.metrics import request_counter
from totoro.observability.requests import log_request, request_id_of
from totoro.problem_types import HOST_NOT_ALLOWED, URI_TOO_LONG

log = structlog.get_logger(__name__)

# Of every response that has no other.
SECURITY_HEADERS = {
    # For JSON: nothing in it may load or run, should a browser show it as a page. Pages have their own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

MAX_URL_LENGTH = 8000
# Clients choose the hosts they send, and must not be able to fill the log or the memory.
MAX_HOSTS = 100
# RFC 1035, section 2.3.4.
MAX_HOST_LENGTH = 253
# The load balancer or orchestrator requests these by an IP address that changes.
PATHS_FOR_ANY_HOST = ("/livez", "/readyz", "/metrics")


def add_headers(response: HttpResponseBase, headers: ResponseHeaders) -> None:
    """Add the headers that the response lacks, all at once: Django checks each that is set by itself."""
    response.headers._store = all_headers = headers._store | response.headers._store
    # The server gets them from here. Django would look up each.
    response.items = all_headers.values  # type: ignore[method-assign]


class RequestMiddleware:
    """Give each request an ID, in its response and in every log line; count and log responses.

    Adds the headers that all responses have. `get` becomes an unknown method: methods are
    case-sensitive (RFC 9110, section 9.1), but Django turns all of them into upper case.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._headers = ResponseHeaders(SECURITY_HEADERS)
        self._clock = Clock()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        if request.META["REQUEST_METHOD"] != request.method:
            request.method = f"{request.method} (CASE-SENSITIVE)"
        request_id = request_id_of(request.META)
        request.request_id = request_id  # type: ignore[attr-defined]
        tokens = bind_contextvars(request_id=request_id)
        response = self._get_response(request)
        # On a busy machine a thread may be paused for seconds after it has chosen the cache entry.
        if getattr(response, "expires_at", math.inf) < self._clock.boot():
            response = self._get_response(request)
        seconds = time.perf_counter() - started
        status = response.status_code
        log_request(request.META, request.path, status, response.headers, seconds)
        request_counter.count_response(request.path_info, request.method, status, seconds)
        reset_contextvars(**tokens)
        add_headers(response, self._headers)
        response["X-Request-ID"] = request_id
        return response


class OriginMiddleware(CorsMiddleware):
    """django-cors-headers, with the same headers for all if any origin is allowed.

    By itself it varies responses by Origin, so that a cache would store one for each.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        super().__init__(get_response)
        expose = ", ".join(settings.CORS_EXPOSE_HEADERS)
        self._headers = ResponseHeaders(
            {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": expose}
        )

    def check_preflight(self, request: HttpRequest) -> HttpResponseBase | None:
        return super().check_preflight(request) if request.method == "OPTIONS" else None

    def add_response_headers(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        if not settings.CORS_ALLOW_ALL_ORIGINS:
            return super().add_response_headers(request, response)
        if request.method == "OPTIONS":
            vary = response.headers.get("Vary")
            super().add_response_headers(request, response)
            response.headers.pop("Vary")
            if vary:
                response["Vary"] = vary
        add_headers(response, self._headers)
        return response


class AddressMiddleware(CommonMiddleware):
    """Reject URLs that can only be mistakes or attacks, and hosts outside ALLOWED_HOSTS.

    A well-formed host that is rejected most often means that ALLOWED_HOSTS is wrong, so the response
    and the log say so. Like Django's CommonMiddleware, it appends slashes and adds Content-Length.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        super().__init__(get_response)
        self._allowed_hosts: set[str] = set()
        self._logged_hosts: set[str] = set()

    def process_request(self, request: HttpRequest) -> HttpResponse | None:  # type: ignore[override]  # may reject
        if len(request.get_full_path()) > MAX_URL_LENGTH:  # RFC 9110, section 4.1
            return problem_response(request, URI_TOO_LONG)
        host = request.META.get("HTTP_HOST")
        if host in self._allowed_hosts or request.path_info in PATHS_FOR_ANY_HOST:
            return None
        try:
            host = request.get_host()
        except DisallowedHost:
            domain, _ = split_domain_port(request._get_raw_host())  # type: ignore[attr-defined]
            if not domain:
                raise
            self._log_once(domain[:MAX_HOST_LENGTH])
            return problem_response(request, HOST_NOT_ALLOWED)
        if len(self._allowed_hosts) < MAX_HOSTS and len(host) <= MAX_HOST_LENGTH:
            self._allowed_hosts.add(host)
        return None

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        response = super().process_response(request, response)
        # After a 301 most clients repeat a POST as a GET, which would then succeed.
        moved = response.status_code == HTTPStatus.MOVED_PERMANENTLY
        if moved and request.method not in ("GET", "HEAD"):
            response.status_code = HTTPStatus.PERMANENT_REDIRECT
        # Django sets the length of the 304 itself; only that of the 200 is allowed (RFC 9110, 8.6).
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            del response["Content-Length"]
        return response

    def _log_once(self, host: str) -> None:
        if host not in self._logged_hosts and len(self._logged_hosts) < MAX_HOSTS:
            self._logged_hosts.add(host)
            log.warning("host_not_allowed", host=host, allowed=settings.ALLOWED_HOSTS)
