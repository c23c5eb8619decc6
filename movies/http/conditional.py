"""Responses with validators, encoding and freshness.

Conditional requests follow RFC 9110, section 13, Cache-Control and Age RFC 9111, Cache-Status RFC 9211.
"""

import math
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import http_date
from rest_framework.exceptions import APIException

from movies.http.content_encoding import should_gzip
from movies.http.representations import Representation
from services.freshness.cache import CacheResult, CacheStatus

# Where a request's environ has the snapshot and the body of its response, for the response cache. None:
# it must not be stored.
STORABLE = "totoro.storable"
CONDITIONS = (
    *("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"),
    *("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
)
date_of = lru_cache(16)(http_date)


class PreconditionFailed(APIException):
    status_code = 412
    default_detail = "The current representation does not match the request's precondition."


def freshness_headers(result: CacheResult) -> dict[str, str]:
    if result.status is CacheStatus.STALE:
        return {
            "Cache-Control": "no-cache",
            "Age": str(math.ceil(result.age)),
            "Cache-Status": f"totoro; hit; ttl={math.floor(result.ttl)}; detail={result.reason}",
        }
    status = "hit" if result.status is CacheStatus.HIT else "fwd=miss; fwd-status=200; stored"
    return dict(fresh_headers(status, max(math.floor(result.ttl), 0)))


@lru_cache(256)
def fresh_headers(status: str, ttl: int) -> tuple[tuple[str, str], ...]:
    headers = (
        # max-age is what is left, so there is no Age: caches would subtract it again.
        ("Cache-Control", f"public, max-age={ttl}"),
        ("Cache-Status", f"totoro; {status}; ttl={ttl}"),
    )
    if not settings.TRUSTED_PROXIES:
        return headers
    # nginx counts whole seconds, and serves a response for up to one more. 0: it does not store it.
    return (*headers, ("X-Accel-Expires", str(max(ttl - 1, 0))))


def movies_response(
    request: HttpRequest, result: CacheResult, representation: Representation
) -> HttpResponse:
    modified = int(result.snapshot.timestamp.timestamp())
    response = conditional_response(request, representation, freshness_headers(result), modified)
    is_stale = result.status is CacheStatus.STALE
    request.META[STORABLE] = None if is_stale else (result.snapshot, response.content)
    if not is_stale:
        response.expires_at = result.expires_at  # type: ignore[attr-defined]  # for RequestMiddleware
    return response


def conditional_response(
    request: HttpRequest,
    representation: Representation,
    headers: dict[str, str],
    modified: int | None = None,
) -> HttpResponse:
    """Return the representation in the preferred encoding, or 304 if the client has it.

    `headers` are for both, `modified` is Unix time. Raises PreconditionFailed.
    """
    accept_encoding = request.META.get("HTTP_ACCEPT_ENCODING", "")
    is_gzipped = should_gzip(representation.body, accept_encoding)
    body = representation.gzipped() if is_gzipped else representation.body
    etag = representation.etag(is_gzipped=is_gzipped)
    full = HttpResponse(body, representation.content_type, headers={"ETag": etag})
    if is_gzipped:
        full["Content-Encoding"] = "gzip"
    if modified is not None:
        full["Last-Modified"] = date_of(modified)
    response = full
    if not request.META.keys().isdisjoint(CONDITIONS):
        response = get_conditional_response(request, etag, modified, full) or full
    if response.status_code == PreconditionFailed.status_code:
        raise PreconditionFailed
    response["Vary"] = "Accept, Accept-Encoding"
    for name, value in (representation.headers | headers).items():
        response[name] = value
    return response
