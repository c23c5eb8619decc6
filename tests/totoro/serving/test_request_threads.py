"""Which thread handles a request, and what granian gets from it."""

import io
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from django.core.wsgi import get_wsgi_application
from prometheus_client import REGISTRY
from pytest_django.fixtures import Settings

from services.rate_limit import Batch, Rate, RateLimiter
from totoro.observability.metrics import request_counter
from totoro.response_cache import Headers, ResponseCache
from totoro.serving.request_threads import RequestThreads

SECONDS = 10
REQUEST: WSGIEnvironment = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/movies/",
    "QUERY_STRING": "",
    "HTTP_HOST": "testserver",
    "SERVER_NAME": "testserver",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "http",
}


class Protocol:
    """Granian's side of a request: the response, and the thread that it came from."""

    def __init__(self) -> None:
        self._response: Future[tuple[int, dict[str, str], bytes]] = Future()
        self.thread = ""

    @property
    def response(self) -> tuple[int, dict[str, str], bytes]:
        return self._response.result(SECONDS)

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        self.thread = threading.current_thread().name
        self._response.set_result((status, dict(headers), body))

    def response_iter(self, status: int, headers: Headers, body: Any) -> None:
        chunks = []
        try:
            while True:
                chunks.append(body.__next__())
        except StopIteration:
            body.close()
        self.response_bytes(status, headers, b"".join(chunks))


def request(**environ: str) -> WSGIEnvironment:
    return {**REQUEST, "wsgi.input": io.BytesIO(), **environ}


def send(threads: RequestThreads, **environ: str) -> Protocol:
    protocol = Protocol()
    threads(protocol, request(**environ))
    assert protocol.response
    return protocol


def threads_for(application: Callable[..., Iterable[bytes]], number: int = 4) -> RequestThreads:
    return RequestThreads(ResponseCache(application), proxies=0, threads=number)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
def test_a_hit_is_served_by_the_thread_that_receives_it() -> None:
    threads = threads_for(get_wsgi_application())

    miss, hit = send(threads), send(threads)

    assert miss.thread.startswith("request")
    assert hit.thread == threading.current_thread().name
    assert hit.response[0] == 200
    assert hit.response[2] == miss.response[2]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
def test_hits_are_served_while_all_other_threads_are_occupied() -> None:
    django, release = get_wsgi_application(), threading.Event()

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            release.wait(SECONDS)
        return django(environ, start)

    threads = threads_for(application, number=2)
    send(threads)
    slow = [Protocol() for _ in range(4)]
    for protocol in slow:
        threads(protocol, request(PATH_INFO="/slow"))

    assert send(threads).response[0] == 200
    assert not any(protocol.thread for protocol in slow)

    release.set()
    assert {protocol.response[0] for protocol in slow} == {404}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
def test_a_hit_that_has_to_ask_redis_is_served_by_another_thread(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.THROTTLE_RATE = (1000, 60)
    limiter = RateLimiter(Rate(1000, 60), lambda client: Batch(2, 500, 60.0))
    monkeypatch.setattr("movies.http.throttling.rate_limiter", lambda: limiter)
    threads = threads_for(get_wsgi_application())

    places = [send(threads).thread.startswith("request") for _ in range(6)]

    # The first is a miss; then each third request needs a batch.
    assert places == [True, False, True, False, True, False]


def test_the_environment_variables_are_not_part_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "secret")
    environs: list[WSGIEnvironment] = []

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        start("204 No Content", [])
        return []

    assert send(threads_for(application)).response == (204, {}, b"")
    assert "DJANGO_SECRET_KEY" not in environs[0]
    assert not {*os.environ} & environs[0].keys()


def test_the_headers_of_proxies_are_applied(settings: Settings) -> None:
    addresses: list[str] = []

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        addresses.append(environ["REMOTE_ADDR"])
        start("204 No Content", [])
        return []

    threads = RequestThreads(ResponseCache(application), proxies=1, threads=1)
    send(threads, HTTP_X_FORWARDED_FOR="6.6.6.6, 198.51.100.7")

    assert addresses == ["198.51.100.7"]


def server_errors() -> float:
    request_counter.flush()
    labels = {"route": "/movies/", "method": "GET", "status": "500"}
    return REGISTRY.get_sample_value("totoro_requests_total", labels) or 0.0


def test_a_bug_outside_of_django_is_counted_logged_and_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        raise LookupError("a bug")

    before = server_errors()
    with caplog.at_level(logging.ERROR):
        assert send(threads_for(application)).response == (500, {}, b"")

    assert caplog.records[0].getMessage() == "request_error"
    assert server_errors() == before + 1
    assert caplog.records[0].exc_info


def test_requests_are_served_when_no_further_thread_can_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start("204 No Content", [])
        return []

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = threads_for(application)
    send(threads)
    monkeypatch.setattr(threading.Thread, "start", fail)

    protocols = [Protocol() for _ in range(20)]
    for protocol in protocols:
        threads(protocol, request())

    assert {protocol.response[0] for protocol in protocols} == {204}
