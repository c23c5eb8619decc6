"""Totoro's URLs, and views that raise each kind of exception."""

import warnings
from collections.abc import Callable
from typing import NoReturn

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest
from django.urls import path
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from services.exceptions import MoviesUnavailable, Reason
from totoro.urls import handler400, handler403, handler404, handler500
from totoro.urls import urlpatterns as totoros

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

# The message of an exception, which must not reach a client or Sentry.
SECRET = "hunter2"
# A local variable of the function that raises.
LOCAL = "correct horse"
# Created for each request: Sentry does not report the same exception twice.
ERRORS: dict[str, Callable[[], BaseException]] = {
    "bug": lambda: RuntimeError(SECRET),
    "forbidden": lambda: PermissionDenied(SECRET),
    "suspicious": lambda: SuspiciousOperation(SECRET),
    "drf-forbidden": drf.PermissionDenied,
    "parameter": lambda: drf.ValidationError({"limit": ["Must be at most 250.", "And more."]}),
    "several": lambda: drf.ValidationError(["One.", "Two."]),
    "unavailable": lambda: MoviesUnavailable(Reason.READ_TIMEOUT, retry_after=4.2),
    "throttled": lambda: drf.Throttled(wait=7.2),
}


class RaisingView(APIView):
    def get(self, request: Request, name: str) -> Response:
        password = LOCAL.replace(" ", "-")
        if name == "warning":
            warnings.warn("Mind\nthe gap", stacklevel=1)
            return Response()
        if password:
            raise ERRORS[name]()
        return Response()

    def post(self, request: Request, name: str) -> Response:
        return Response(request.data)


def raising(request: HttpRequest, name: str) -> NoReturn:
    raise ERRORS[name]()


urlpatterns = [
    *totoros,
    path("drf/<str:name>/", RaisingView.as_view()),
    path("django/<str:name>/", raising),
]
