import math
import re
import time
from collections.abc import Callable
from http import HTTPStatus

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.utils.deprecation import MiddlewareMixin

from services.clock import Clock
from totoro.exception_handler import problem_response
from totoro.observability.metrics import responses
from totoro.observability.requests import log_request, request_id_of
from totoro.problem_types import HOST_NOT_ALLOWED, URI_TOO_LONG

log = structlog.get_logger(__name__)

# For JSON: nothing in it may load or run, should a browser show it as a page.
STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE_POLICY = f"{STRICT_POLICY}; style-src 'self'"

MAX_URL_LENGTH = 8000
# Clients choose the hosts they send, and must not be able to fill the log or the memory.
MAX_LOGGED_HOSTS = 100
# RFC 1035, section 2.3.4.
MAX_HOST_LENGTH = 253
# The load balancer or orchestrator requests these by an IP address that changes.
PATHS_FOR_ANY_HOST = ("/livez", "/readyz", "/metrics")


class ExactMethodMiddleware(MiddlewareMixin):
    """Treat `get` as an unknown method: methods are case-sensitive (RFC 9110, section 9.1).

    Django turns all of them into upper case.
    """

    def process_request(self, request: HttpRequest) -> None:
        if request.META["REQUEST_METHOD"] != request.method:
            request.method = f"{request.method} (CASE-SENSITIVE)"


class RequestIDMiddleware:
    """Give each request an ID, in its response and in every log line; count and log responses."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request_id_of(request.META)
        request.request_id = request_id  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            started = time.perf_counter()
            response = self._get_response(request)
            seconds = time.perf_counter() - started
            log_request(request.META, request.path, response.status_code, seconds)
        response["X-Request-ID"] = request_id
        responses.labels(response.status_code).inc()
        return response


class RetryExpiredMiddleware:
    """Make the response again if its cache entry has expired in the meantime.

    On a busy machine a thread may be paused for seconds between choosing the entry and sending it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._clock = Clock()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if getattr(response, "expires_at", math.inf) < self._clock.boot():
            response = self._get_response(request)
        return response


class ContentSecurityPolicyMiddleware(MiddlewareMixin):
    """Set a policy on every response without one. Pages that run scripts have their own."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        is_page = response.get("Content-Type", "").startswith("text/html")
        policy = PAGE_POLICY if is_page else STRICT_POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
        return response


class AnyOriginMiddleware(MiddlewareMixin):
    """Put the same CORS headers on every response when any origin is allowed.

    django-cors-headers varies its responses by Origin, so that a cache would store one for each.
    """

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if settings.CORS_ALLOW_ALL_ORIGINS:
            response["Access-Control-Allow-Origin"] = "*"
            response["Access-Control-Expose-Headers"] = ", ".join(settings.CORS_EXPOSE_HEADERS)
            names = re.split(r"\s*,\s*", response.get("Vary", ""))
            del response["Vary"]
            if vary := ", ".join(name for name in names if name.lower() != "origin"):
                response["Vary"] = vary
        return response


class URLLengthMiddleware(MiddlewareMixin):
    """Reject a URL that can only be a mistake or an attack (RFC 9110, section 4.1)."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if len(request.get_full_path()) > MAX_URL_LENGTH:
            return problem_response(request, URI_TOO_LONG)
        return None


class HostMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which rejects hosts outside ALLOWED_HOSTS and appends slashes.

    A well-formed host that is rejected most often means that ALLOWED_HOSTS is wrong, so the response
    and the log say so.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        super().__init__(get_response)
        self._logged_hosts: set[str] = set()

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override]  # may reject
        if request.path_info in PATHS_FOR_ANY_HOST:
            return None
        try:
            return super().process_request(request)
        except DisallowedHost:
            domain, _ = split_domain_port(request._get_raw_host())  # type: ignore[attr-defined]
            if not domain:
                raise
        self._log_once(domain[:MAX_HOST_LENGTH])
        return problem_response(request, HOST_NOT_ALLOWED)

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
        if host not in self._logged_hosts and len(self._logged_hosts) < MAX_LOGGED_HOSTS:
            self._logged_hosts.add(host)
            log.warning("host_not_allowed", host=host, allowed=settings.ALLOWED_HOSTS)
