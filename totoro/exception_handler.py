"""Every error as problem+json (RFC 9457).

One table maps exception classes, of DRF and Django too, to problem types.
"""

import math
from http import HTTPStatus
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf

from movies.http.conditional import PreconditionFailed
from services.exceptions import MovieNotFound, MoviesUnavailable, TotoroError
from totoro import problem_types
from totoro.problem_types import ProblemType

# The most specific class wins.
PROBLEM_TYPE_BY_EXCEPTION: dict[type[BaseException], ProblemType] = {
    MovieNotFound: problem_types.MOVIE_NOT_FOUND,
    Http404: problem_types.NOT_FOUND,
    PermissionDenied: problem_types.FORBIDDEN,
    BadRequest: problem_types.BAD_REQUEST,
    MultiPartParserError: problem_types.BAD_REQUEST,
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
# Their messages are written for clients; those of Django's exceptions are not.
WITH_PUBLIC_MESSAGE = (TotoroError, drf.APIException)


def handle_drf_exception(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """Return None for a bug, which Django then reports and hands to handle_server_error."""
    problem_type = problem_type_of(error)
    if problem_type.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    return problem_response(context["request"]._request, problem_type, error)


def handle_django_exception(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem_response(request, problem_type_of(exception), exception)


def handle_server_error(request: HttpRequest) -> HttpResponse:
    return problem_response(request, problem_types.SERVER_ERROR)


def problem_type_of(error: BaseException) -> ProblemType:
    if isinstance(error, MoviesUnavailable):
        return problem_types.upstream_problem_type(error.reason)
    table = PROBLEM_TYPE_BY_EXCEPTION
    return next(table[cls] for cls in type(error).__mro__ if cls in table)


def problem_response(
    request: HttpRequest, problem_type: ProblemType, error: BaseException | None = None
) -> HttpResponse:
    detail = problem_type.description
    if isinstance(error, WITH_PUBLIC_MESSAGE):
        detail = _joined(getattr(error, "detail", error))
    response = JsonResponse(
        {
            "type": problem_type.uri,
            "title": problem_type.title,
            "status": problem_type.status,
            "detail": detail,
            "instance": request.path,
            "message": detail,
            "request_id": getattr(request, "request_id", ""),
        },
        status=problem_type.status,
        content_type="application/problem+json",
        json_dumps_params={"ensure_ascii": False, "separators": (",", ":")},
    )
    response["Cache-Control"] = "no-store"
    wait = getattr(error, "retry_after", None) or getattr(error, "wait", None)
    if wait is not None:
        response["Retry-After"] = str(max(1, math.ceil(wait)))
    return response


def _joined(detail: object) -> str:
    """Join the messages of a DRF exception, which are nested in lists and in dicts by parameter."""
    if isinstance(detail, dict):
        return " ".join(f"{name}: {_joined(messages)}" for name, messages in detail.items())
    if isinstance(detail, list):
        return " ".join(map(_joined, detail))
    return str(detail)
