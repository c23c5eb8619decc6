"""Totoro's settings, and requests that wait: each to /wait, until one to /continue comes.

A request waits for a refresh when there is no cache entry, and then there are no hits in its process.
These wait like it in a thread of the pool, without CPU time, but beside hits.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from totoro import settings


class WaitingMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._changed = threading.Condition()
        self._waiting, self._may_continue = 0, False

    def __call__(self, request: HttpRequest) -> HttpResponse:
        match request.path:
            case "/wait":
                self._wait()
            case "/continue":
                self._continue()
            case "/waiting":
                return HttpResponse(str(self._waiting))
            case _:
                return self._get_response(request)
        return HttpResponse(status=HTTPStatus.NO_CONTENT)

    def _wait(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._may_continue)
            self._waiting -= 1

    def _continue(self) -> None:
        with self._changed:
            self._may_continue = True
            self._changed.notify_all()


class Production(settings.Production):
    MIDDLEWARE = [f"{__name__}.WaitingMiddleware", *settings.Production.MIDDLEWARE]
