"""Every error as problem+json (RFC 9457): one table from exception to problem, for DRF and Django."""

import math
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions as drf

from movies.http.conditional import PreconditionFailed
from services.exceptions import MovieNotFound, MoviesUnavailable, TotoroError
from totoro import problem_types
from totoro.problem_types import Problem

# The most specific class that fits wins.
PROBLEMS: dict[type[BaseException], Problem] = {
    MovieNotFound: problem_types.MOVIE_NOT_FOUND,
    Http404: problem_types.NOT_FOUND,
    PermissionDenied: problem_types.FORBIDDEN,
    SuspiciousOperation: problem_types.BAD_REQUEST,
    PreconditionFailed: problem_types.PRECONDITION_FAILED,
    drf.PermissionDenied: problem_types.FORBIDDEN,
    drf.NotFound: problem_types.NOT_FOUND,
    drf.MethodNotAllowed: problem_types.METHOD_NOT_ALLOWED,
    drf.NotAcceptable: problem_types.NOT_ACCEPTABLE,
    drf.UnsupportedMediaType: problem_types.UNSUPPORTED_MEDIA_TYPE,
    drf.Throttled: problem_types.TOO_MANY_REQUESTS,
    drf.ParseError: problem_types.BAD_REQUEST,
    drf.ValidationError: problem_types.BAD_REQUEST,
    Exception: problem_types.SERVER_ERROR,
}
# What DRF's exceptions say of themselves is meant for clients; what Django's say is not.
TELLS = (TotoroError, drf.APIException)


def problem_response(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler; None for a bug, which Django then reports and hands to handler500."""
    problem = problem_of(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    return render(context["request"]._request, problem, error)


def problem_of(error: BaseException) -> Problem:
    if isinstance(error, MoviesUnavailable):
        return problem_types.upstream_problem(error.reason)
    return next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)


def render(request: HttpRequest, problem: Problem, error: BaseException | None) -> HttpResponse:
    tells = isinstance(error, TELLS) and not isinstance(error, drf.NotFound)
    detail = _text(getattr(error, "detail", error)) if tells else problem.detail
    response = JsonResponse(
        {
            "type": problem.type,
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
    return render(request, problem_types.BAD_REQUEST, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, problem_types.FORBIDDEN, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, problem_types.NOT_FOUND, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    return render(request, problem_types.SERVER_ERROR, None)
