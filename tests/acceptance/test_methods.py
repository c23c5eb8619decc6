"""Every method at every URL with any Accept header, at the real server."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.support.servers import Totoro

ALLOWED = ["GET", "HEAD", "OPTIONS"]
NOT_ALLOWED = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "TRACE", "BREW"]

URLS = [
    "/",
    "/?format=openapi",
    "/redoc/",
    "/swagger.json",
    "/swagger.yaml",
    "/movies/",
    "/movies/?limit=2",
    "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/",
    "/movies/none/",
    "/problems/",
    "/problems/not-found/",
    "/problems/none/",
    "/livez",
    "/readyz",
    "/metrics",
    "/static/drf-yasg/style.css",
    "/static/movies/list.js",
]
UNKNOWN = ["/films/", "/static/none.js", "/swagger.xml", "/favicon.ico", "/problems/a/b/"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
ACCEPTS = [
    None,
    "",
    "*/*",
    "text/html",
    BROWSER,
    "application/json",
    "application/xml",
    "application/problem+json",
    "application/json;q=0",
    "rubbish",
    ",,,",
    ";;;q=x,/,*,\xff",
    "text/html," * 1000,
]

accepts = pytest.mark.parametrize("accept", ACCEPTS, ids=lambda accept: repr(accept)[:30])


class Reply:
    def __init__(self, connection: HTTPConnection, method: str, path: str, accept: str | None):
        connection.request(method, path, headers={} if accept is None else {"Accept": accept})
        response = connection.getresponse()
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def media_type(self) -> str:
        return self.headers.get_content_type() if "Content-Type" in self.headers else ""


@pytest.fixture
def connection(server: Totoro) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield connection
    connection.close()


def assert_problem(reply: Reply, status: int) -> None:
    assert reply.status == status
    assert reply.media_type == "application/problem+json"
    assert reply.headers["Cache-Control"] == "no-store"


@accepts
@pytest.mark.parametrize("path", URLS)
def test_options_lists_the_methods_as_json(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    reply = Reply(connection, "OPTIONS", path, accept)

    assert reply.status == 200
    assert reply.media_type == "application/json"
    assert reply.headers["Allow"] == ", ".join(ALLOWED)
    assert json.loads(reply.body) == {"methods": ALLOWED}


@accepts
@pytest.mark.parametrize("path", URLS)
def test_another_method_is_a_problem_with_the_allowed_methods(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    for method in NOT_ALLOWED:
        reply = Reply(connection, method, path, accept)

        assert_problem(reply, 405)
        assert reply.headers["Allow"] == ", ".join(ALLOWED)
        assert json.loads(reply.body)["type"] == "/problems/method-not-allowed/"


@accepts
@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_url_is_a_problem_for_every_method(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    for method in [*ALLOWED, *NOT_ALLOWED]:
        assert_problem(Reply(connection, method, path, accept), 404)


@accepts
@pytest.mark.parametrize("path", URLS)
def test_head_equals_get_and_errors_are_problems(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    whole = Reply(connection, "GET", path, accept)
    head = Reply(connection, "HEAD", path, accept)

    assert whole.status in (200, 404, 406)
    assert (head.status, head.media_type, head.body) == (whole.status, whole.media_type, b"")
    if whole.status != 200:
        assert_problem(whole, whole.status)


@pytest.mark.parametrize("accept", ["", ",,,", " , ,", ";q=0.5"])
@pytest.mark.parametrize("path", URLS)
def test_an_empty_accept_header_equals_a_missing_one(
    connection: HTTPConnection, path: str, accept: str
) -> None:
    without = Reply(connection, "GET", path, None)

    reply = Reply(connection, "GET", path, accept)

    assert (reply.status, reply.media_type) == (without.status, without.media_type)
