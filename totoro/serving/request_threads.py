"""Which thread handles a request: one thread all hits, a pool of threads whatever may wait or compute.

Threads that take turns cost more than a hit: with 64 threads, a server handles half as many requests per
CPU-second as with one. So the thread in which granian calls us serves all hits, and passes on every
request that may wait for a refresh, for Redis or for a long computation.
"""

import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from wsgiref.types import WSGIEnvironment

from granian.wsgi import Response, ResponseIterWrap

from totoro.forwarded import apply_forwarded_headers
from totoro.observability.metrics import request_counter
from totoro.response_cache import ResponseCache

bugs = logging.getLogger(f"{__name__}.bugs")

# What PEP 3333 asks for besides what granian says of the request. Granian's own wrapper would add the
# environment variables, the secrets among them.
ENVIRON = {
    "SCRIPT_NAME": "",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multiprocess": True,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}


class RequestThreads:
    """Responds to granian's requests: called with its `WSGIProtocol` and the request's environ.

    Granian waits for the response, not for this call.
    """

    def __init__(self, application: ResponseCache, *, proxies: int, threads: int) -> None:
        self._application, self._proxies = application, proxies
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._pool.submit(lambda: None)  # starts the first thread

    def __call__(self, protocol: Any, request: WSGIEnvironment) -> None:
        apply_forwarded_headers(request, self._proxies)
        if hit := self._application.hit(request):
            protocol.response_bytes(*hit)
            return
        # If no further thread can be started, the request is queued for the existing ones.
        with suppress(RuntimeError):
            self._pool.submit(self._respond, protocol, ENVIRON | request)

    def _respond(self, protocol: Any, environ: WSGIEnvironment) -> None:
        response: Any = Response()  # type: ignore[no-untyped-call]
        started = time.perf_counter()
        try:
            body = self._application(environ, response)
        except Exception:  # noqa: BLE001 (not one of Django's, which it responds to itself)
            bugs.exception("request_error")
            path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
            seconds = time.perf_counter() - started
            request_counter.count_response(path, method, 500, seconds)
            protocol.response_bytes(HTTPStatus.INTERNAL_SERVER_ERROR, [], b"")
            return
        if isinstance(body, list):  # the response cache's
            protocol.response_bytes(response.status, response.headers, b"".join(body))
        else:
            chunks = ResponseIterWrap(body)  # type: ignore[no-untyped-call]
            protocol.response_iter(response.status, response.headers, chunks)
