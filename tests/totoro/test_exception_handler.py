"""Every error is a problem (RFC 9457): never HTML, never details of the code."""

import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from django.core import exceptions as django
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.test import Client
from pytest_django.fixtures import Settings
from rest_framework import exceptions as drf

from fake_ghibli import FakeGhibli
from services import exceptions
from services.exceptions import MovieNotFound, MoviesUnavailable, Reason, TotoroError, UpstreamError
from tests.support.servers import Totoro
from tests.support.settings.broken_urls import SECRET
from totoro.exception_handler import PROBLEM_TYPE_BY_EXCEPTION, problem_type_of
from totoro.problem_types import PROBLEM_TYPES

KEYS = ["type", "title", "status", "detail", "instance", "message", "request_id"]
EXPOSED = ["Age", "ETag", "Link", "Retry-After", "RateLimit", "RateLimit-Policy"]
EXPOSED += ["X-Request-ID", "Cache-Status"]
# A failed refresh: the services turn it into MoviesUnavailable or serve stale data.
NEVER_RAISED_TO_VIEWS = {UpstreamError}
# Nobody logs in.
IMPOSSIBLE = {drf.AuthenticationFailed, drf.NotAuthenticated}


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


@pytest.fixture
def broken(settings: Settings) -> Client:
    """A client of the API and of views that raise."""
    settings.ROOT_URLCONF = "tests.support.settings.broken_urls"
    return Client(raise_request_exception=False)


def assert_problem(
    response: Any, status: int, name: str, *, instance: str, detail: str | None = None
) -> None:
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Expose-Headers"].split(", ") == EXPOSED
    assert "Origin" not in response.headers.get("Vary", "")
    problem = response.json()
    assert list(problem) == KEYS
    assert problem["type"] == f"/problems/{name}/"
    assert problem["title"]
    assert problem["status"] == status
    assert problem["detail"] == problem["message"]
    assert problem["detail"] if detail is None else problem["detail"] == detail
    assert problem["instance"] == instance
    assert problem["request_id"] == response.headers["X-Request-ID"]


# The table of problem types


@pytest.mark.parametrize("error", [*tree(TotoroError), TotoroError])
def test_each_service_error_has_its_own_problem_type(error: type[BaseException]) -> None:
    # MoviesUnavailable has one for each reason.
    expected = error not in {*NEVER_RAISED_TO_VIEWS, TotoroError, MoviesUnavailable}

    assert (error in PROBLEM_TYPE_BY_EXCEPTION) is expected


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_its_own_problem_type(reason: Reason) -> None:
    problem = problem_type_of(MoviesUnavailable(reason, retry_after=1))

    assert problem.status == 503
    assert problem.name == "upstream-" + reason.replace("_", "-").removeprefix("upstream-")
    assert problem.name in PROBLEM_TYPES


def test_every_service_error_is_in_one_tree() -> None:
    classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
    errors = {value for value in classes if issubclass(value, BaseException)}

    assert errors == {TotoroError, *tree(TotoroError)}


@pytest.mark.parametrize("error", [e for e in tree(drf.APIException) if e not in IMPOSSIBLE])
def test_each_drf_error_has_a_problem_type_with_its_status(error: type[drf.APIException]) -> None:
    assert problem_type_of(error.__new__(error)).status == error.status_code


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MovieNotFound("x"), 404),
        (MoviesUnavailable(Reason.DNS, retry_after=5), 503),
        (Http404(), 404),
        (django.PermissionDenied(), 403),
        (django.DisallowedHost(), 400),
        (django.RequestDataTooBig(), 400),
        (django.BadRequest(), 400),
        (MultiPartParserError(), 400),
        (UpstreamError(Reason.DNS, "a bug"), 500),
        (KeyError("x"), 500),
    ],
)
def test_an_error_maps_to_a_status(error: BaseException, status: int) -> None:
    assert problem_type_of(error).status == status


# Responses to errors


def test_rejects_a_host_that_is_not_allowed(api: Client) -> None:
    response = api.get("/movies/", headers={"Host": "evil.example"})

    assert_problem(response, 400, "host-not-allowed", instance="/movies/")
    assert "evil" not in response.text


def test_a_suspicious_operation_is_a_bad_request(broken: Client) -> None:
    response = broken.get("/django/suspicious/")

    assert_problem(response, 400, "bad-request", instance="/django/suspicious/")
    assert SECRET not in response.text


@pytest.mark.parametrize("path", ["/django/forbidden/", "/drf/forbidden/", "/drf/drf-forbidden/"])
def test_permission_denied_is_forbidden(broken: Client, path: str) -> None:
    response = broken.get(path)

    assert_problem(response, 403, "forbidden", instance=path)
    assert SECRET not in response.text


@pytest.mark.parametrize("path", ["/films/", "/favicon.ico", "/static/none.js", "/problems/none/"])
def test_an_unknown_url_is_not_found(api: Client, path: str) -> None:
    assert_problem(api.get(path), 404, "not-found", instance=path)


@pytest.mark.django_db(transaction=True)
def test_an_unknown_movie_is_not_found_and_its_id_is_named(
    api: Client, upstream: FakeGhibli
) -> None:
    detail = "Movie ID Kondō not present in external API!"

    response = api.get("/movies/Kondō/")

    assert_problem(response, 404, "movie-not-found", instance="/movies/Kondō/", detail=detail)


@pytest.mark.parametrize("path", ["/movies/", "/movies/1/", "/", "/redoc/", "/livez", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_other_methods_are_not_allowed(api: Client, path: str, method: str) -> None:
    response = api.generic(method, path)

    assert_problem(response, 405, "method-not-allowed", instance=path)
    assert response["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("path", ["/movies/", "/movies/1/", "/livez"])
def test_an_unsupported_media_type_in_accept_is_not_acceptable(api: Client, path: str) -> None:
    response = api.get(path, headers={"Accept": "application/xml"})

    assert_problem(response, 406, "not-acceptable", instance=path)


def test_a_path_of_10_000_characters_is_too_long(api: Client) -> None:
    path = f"/movies/{'x' * 10_000}/"

    assert_problem(api.get(path), 414, "uri-too-long", instance=path)


def test_a_query_of_10_000_characters_is_too_long(api: Client) -> None:
    response = api.get("/movies/", {"search": "x" * 10_000})

    assert_problem(response, 414, "uri-too-long", instance="/movies/")


def test_a_body_in_an_unknown_format_is_an_unsupported_media_type(broken: Client) -> None:
    response = broken.post("/drf/bug/", b"<x/>", content_type="application/xml")

    assert_problem(response, 415, "unsupported-media-type", instance="/drf/bug/")


def test_a_malformed_body_is_a_bad_request(broken: Client) -> None:
    response = broken.post("/drf/bug/", b"{", content_type="application/json")

    assert_problem(response, 400, "bad-request", instance="/drf/bug/")


def test_names_an_invalid_parameter(broken: Client) -> None:
    response = broken.get("/drf/parameter/")

    detail = "limit: Must be at most 250. And more."
    assert_problem(response, 400, "bad-request", instance="/drf/parameter/", detail=detail)


def test_joins_several_messages_into_one_detail(broken: Client) -> None:
    response = broken.get("/drf/several/")

    assert_problem(response, 400, "bad-request", instance="/drf/several/", detail="One. Two.")


def test_too_many_requests_say_how_long_to_wait(broken: Client) -> None:
    response = broken.get("/drf/throttled/")

    assert_problem(response, 429, "too-many-requests", instance="/drf/throttled/")
    assert response["Retry-After"] == "8"


@pytest.mark.parametrize("path", ["/django/bug/", "/drf/bug/"])
def test_a_bug_exposes_no_details(broken: Client, path: str) -> None:
    response = broken.get(path)

    detail = "Something went wrong in Totoro."
    assert_problem(response, 500, "server-error", instance=path, detail=detail)
    assert SECRET not in response.text
    assert "RuntimeError" not in response.text


def test_unavailable_movies_give_the_reason_and_how_long_to_wait(broken: Client) -> None:
    response = broken.get("/drf/unavailable/")

    assert_problem(response, 503, "upstream-read-timeout", instance="/drf/unavailable/")
    assert response["Retry-After"] == "5"


# Requests


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "*/*;q=0.1",
        "application/json; indent=8",
        "application/*",
        "application/json;q=0.5, */*",
    ],
)
def test_json_is_the_same_bytes_for_every_accept_header(
    api: Client, upstream: FakeGhibli, accept: str
) -> None:
    plain = api.get("/movies/")

    response = api.get("/movies/", headers={"Accept": accept})

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.content == plain.content


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", ["format=xml", "format=api", "format=openapi", "callback=x"])
def test_ignores_an_unknown_parameter(api: Client, upstream: FakeGhibli, query: str) -> None:
    plain = api.get("/movies/")

    response = api.get(f"/movies/?{query}")

    assert response.status_code == 200
    assert response.content == plain.content


# At the real server


def send(server: Totoro, request: bytes) -> tuple[HTTPResponse, bytes]:
    """Send the bytes as they are; http.client would correct them."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection, method=request.split(b" ")[0].decode())
        response.begin()
        return response, response.read()


def get(target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", *(headers or [b"Host: localhost"])]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


HOSTILE = [
    b"//movies/",
    b"//movies",
    b"///evil.example/movies",
    b"//evil.example/movies",
    b"//evil.example/%2e%2e/movies",
    b"/%2f/evil.example/movies",
    b"/\\evil.example/movies",
    b"/movies/..%2f..%2fevil.example",
    b"/%2e%2e/",
    b"/../../../etc/passwd",
    b"/static/../manage.py",
    b"/static/%2e%2e/%2e%2e/manage.py",
    b"/static/..%2fmanage.py",
    b"/static//etc/passwd",
    b"/static/%00",
    b"/movies/%00/",
    b"/movies/\x00/",
    b"/movies/%ff/",
    b"/movies/\xff/",
    b"/movies/%ed%a0%80/",
    b"/movies/%0d%0aSet-Cookie:%20a=b/",
    b"/movies/%0d%0aSet-Cookie:%20a=b",
    b"/movies/a\rb/",
    b"/movies/%E2%80%AE%F0%9F%90%B1/",
    b"/movies/%25%73%7b0%7d/",
    b"/movies/{0.__class__}/",
    b"/movies/<script>/",
    b"/movies/?search=%ff%fe",
    b"/movies/?%ff=%00",
    b"/movies/?\xff",
    b"/movies/?" + b"a=1&" * 1_500,
    b"/movies/" + b"a" * 10_000 + b"/",
    b"/movies/" + b"%00" * 2_500 + b"/",
    b"/" + b"a/" * 3_000,
    b"/movies" + b"/" * 3_000,
    b"/movies/?" + b"a" * 70_000,
    b"http://evil.example/movies/",
    b"*",
    b"",
]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("target", HOSTILE, ids=lambda target: repr(target[:40]))
def test_a_hostile_url_gets_a_well_formed_response(
    server: Totoro, target: bytes, method: bytes
) -> None:
    response, body = send(server, get(target, method=method))

    assert response.status < 500
    assert b"<" not in body[:1]
    assert b"Traceback" not in body
    assert response.getheader("Set-Cookie") is None
    location = response.getheader("Location", "")
    assert not location or re.match(r"/(?![/\\])", location)
    if body:
        assert response.getheader("Content-Type") in (
            "application/json",
            "application/problem+json",
        )


@pytest.mark.parametrize(
    "hosts",
    [
        [b"Host: localhost", b"Host: localhost"],
        [b"Host: localhost", b"Host: evil.example"],
        [b"Host: evil.example", b"Host: localhost"],
        [b"Host: localhost, evil.example"],
        [b"Host: localhost@evil.example"],
        [b"Host: evil.example", b"X-Forwarded-Host: localhost"],
        [b"Host:"],
        [b"Accept: */*"],
    ],
)
def test_a_request_without_exactly_one_valid_host_is_a_bad_request(
    server: Totoro, hosts: list[bytes]
) -> None:
    response, body = send(server, get(b"/movies/", *hosts))

    assert response.status == 400
    assert not body or response.getheader("Content-Type") == "application/problem+json"
    assert b"evil" not in body


@pytest.mark.parametrize("path", ["/movies/", "/movies/none/", "/none/", "/livez"])
def test_head_is_get_without_the_body(server: Totoro, path: str) -> None:
    whole, _ = send(server, get(path.encode()))
    head, body = send(server, get(path.encode(), method=b"HEAD"))

    changing = {"x-request-id", "date", "cache-control", "cache-status", "content-length"}
    assert head.status == whole.status
    assert body == b""
    assert headers_without(head, changing) == headers_without(whole, changing)


def headers_without(response: HTTPResponse, changing: set[str]) -> dict[str, str]:
    return {k.lower(): v for k, v in response.getheaders() if k.lower() not in changing}


@pytest.mark.parametrize("path", ["/movies/", "/movies/none/", "/", "/livez"])
def test_options_lists_the_methods_only(server: Totoro, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("OPTIONS", path)
    response = connection.getresponse()

    assert response.status == 200
    assert response.getheader("Allow") == "GET, HEAD, OPTIONS"
    assert json.load(response) == {"methods": ["GET", "HEAD", "OPTIONS"]}
    connection.close()
