"""Every error as problem+json (RFC 9457): one table from exception to problem, for DRF and Django."""

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions as drf

from movies.caching import PreconditionFailed
from services.exceptions import MovieNotFound, MoviesUnavailable


@dataclass(frozen=True)
class Problem:
    """A kind of problem: `name` makes the `type`; `detail` is for when the exception has none."""

    name: str
    status: int
    title: str
    detail: str = ""


# The most specific class that fits wins.
PROBLEMS: dict[type[BaseException], Problem] = {
    MovieNotFound: Problem("movie-not-found", 404, "Movie not found"),
    MoviesUnavailable: Problem("upstream-{reason}", 503, "The Ghibli API is unavailable"),
    Http404: Problem("not-found", 404, "Not found", "There is nothing at this address."),
    PermissionDenied: Problem("forbidden", 403, "Forbidden", "This is not allowed."),
    SuspiciousOperation: Problem("bad-request", 400, "Bad request", "This request is malformed."),
    drf.PermissionDenied: Problem("forbidden", 403, "Forbidden"),
    drf.NotFound: Problem("not-found", 404, "Not found", "There is nothing at this address."),
    drf.MethodNotAllowed: Problem("method-not-allowed", 405, "Method not allowed"),
    drf.NotAcceptable: Problem("not-acceptable", 406, "Not acceptable"),
    PreconditionFailed: Problem("precondition-failed", 412, "Precondition failed"),
    drf.UnsupportedMediaType: Problem("unsupported-media-type", 415, "Unsupported media type"),
    drf.Throttled: Problem("too-many-requests", 429, "Too many requests"),
    drf.ParseError: Problem("bad-request", 400, "Bad request"),
    drf.ValidationError: Problem("bad-request", 400, "Bad request"),
    Exception: Problem("server-error", 500, "Server error", "Something went wrong in Totoro."),
}

URI_TOO_LONG = Problem("uri-too-long", 414, "URI too long", "This address is longer than any here.")


def problem_response(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler; None for a bug, which Django then reports and hands to handler500."""
    problem = problem_of(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    return render(context["request"]._request, problem, error)


def problem_of(error: BaseException) -> Problem:
    return next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)


def render(request: HttpRequest, problem: Problem, error: BaseException | None) -> HttpResponse:
    reason = str(getattr(error, "reason", "")).replace("_", "-").removeprefix("upstream-")
    detail = problem.detail or _text(getattr(error, "detail", error))
    response = JsonResponse(
        {
            "type": f"/problems/{problem.name.format(reason=reason)}/",
            "title": problem.title,
            "status": problem.status,
            "detail": detail,
            "instance": request.path,
            "message": detail,
            "request_id": getattr(request, "request_id", ""),
        },
        status=problem.status,
        content_type="application/problem+json",
        json_dumps_params={"ensure_ascii": False, "separators": (",", ":")},
    )
    response["Cache-Control"] = "no-store"
    wait = getattr(error, "retry_after", None) or getattr(error, "wait", None)
    if wait is not None:
        response["Retry-After"] = str(max(1, math.ceil(wait)))
    return response


def _text(detail: object) -> str:
    """DRF keeps messages in lists, and those of parameters in a dict."""
    if isinstance(detail, dict):
        return " ".join(f"{name}: {_text(told)}" for name, told in detail.items())
    if isinstance(detail, list):
        return " ".join(map(_text, detail))
    return str(detail)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, PROBLEMS[SuspiciousOperation], exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, PROBLEMS[PermissionDenied], exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, PROBLEMS[Http404], exception)


def server_error(request: HttpRequest) -> HttpResponse:
    return render(request, PROBLEMS[Exception], None)
