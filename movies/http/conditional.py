"""What a response says of its age, its validators and its encoding.

Cache-Control and Age as in RFC 9111, Cache-Status as in RFC 9211, conditional requests as in
RFC 9110, section 13.
"""

import math

from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import http_date
from rest_framework.exceptions import APIException

from movies.http.negotiation import prefers_gzip
from movies.http.representations import Rendition
from services.freshness.cache import CacheResult, CacheStatus


class PreconditionFailed(APIException):
    status_code = 412
    default_detail = "The answer is not the one that the request asks for."


def freshness_headers(answer: CacheResult) -> dict[str, str]:
    if answer.status is CacheStatus.STALE:
        return {
            "Cache-Control": "no-cache",
            "Age": str(math.ceil(answer.age)),
            "Cache-Status": f"totoro; hit; ttl={math.floor(answer.ttl)}; detail={answer.reason}",
        }
    seconds = max(math.floor(answer.ttl), 0)
    came_by = "hit" if answer.status is CacheStatus.HIT else "fwd=miss; fwd-status=200; stored"
    return {
        # What is left of the minute, so without Age: a cache would subtract that once more.
        "Cache-Control": f"public, max-age={seconds}",
        "Cache-Status": f"totoro; {came_by}; ttl={seconds}",
    }


def respond(
    request: HttpRequest, answer: CacheResult, rendition: Rendition, content_type: str
) -> HttpResponse:
    """The rendition of the movies, with how fresh it is."""
    modified = answer.snapshot.timestamp.timestamp()
    response = conditional_response(request, rendition, content_type, modified)
    for name, value in freshness_headers(answer).items():
        response[name] = value
    if answer.status is not CacheStatus.STALE:
        response.expires_at = answer.expires_at  # type: ignore[attr-defined]  # for RetryExpiredMiddleware
    return response


def conditional_response(
    request: HttpRequest, rendition: Rendition, content_type: str, modified: float | None = None
) -> HttpResponse:
    """The rendition in the encoding that the client prefers, or 304 if it has that already.

    `modified`: Unix time. Raises PreconditionFailed.
    """
    compressed = rendition.is_worth_compressing and prefers_gzip(
        request.headers.get("Accept-Encoding", "")
    )
    full = HttpResponse(
        rendition.compressed if compressed else rendition.body, content_type=content_type
    )
    etag = rendition.etag(compressed=compressed)
    full["ETag"] = etag
    if modified is not None:
        full["Last-Modified"] = http_date(modified)
    if compressed:
        full["Content-Encoding"] = "gzip"
    seconds = int(modified) if modified is not None else None
    response = get_conditional_response(request, etag, seconds, full) or full
    if response.status_code == PreconditionFailed.status_code:
        raise PreconditionFailed
    response["Vary"] = "Accept, Accept-Encoding"
    return response
