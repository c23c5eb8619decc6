"""Every method at every address, whatever the client accepts, at the real server."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.support.servers import Totoro

ALLOWED = ["GET", "HEAD", "OPTIONS"]
REFUSED = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "TRACE", "BREW"]

ADDRESSES = [
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


class Answer:
    def __init__(self, connection: HTTPConnection, method: str, path: str, accept: str | None):
        connection.request(method, path, headers={} if accept is None else {"Accept": accept})
        response = connection.getresponse()
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def kind(self) -> str:
        return self.headers.get_content_type() if "Content-Type" in self.headers else ""


@pytest.fixture
def connection(server: Totoro) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield connection
    connection.close()


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.kind == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"


@accepts
@pytest.mark.parametrize("path", ADDRESSES)
def test_options_lists_the_methods_as_json(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    answer = Answer(connection, "OPTIONS", path, accept)

    assert answer.status == 200
    assert answer.kind == "application/json"
    assert answer.headers["Allow"] == ", ".join(ALLOWED)
    assert json.loads(answer.body) == {"methods": ALLOWED}


@accepts
@pytest.mark.parametrize("path", ADDRESSES)
def test_another_method_is_a_problem_that_names_the_allowed(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    for method in REFUSED:
        answer = Answer(connection, method, path, accept)

        assert_problem(answer, 405)
        assert answer.headers["Allow"] == ", ".join(ALLOWED)
        assert json.loads(answer.body)["type"] == "/problems/method-not-allowed/"


@accepts
@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_address_is_a_problem_for_every_method(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    for method in [*ALLOWED, *REFUSED]:
        assert_problem(Answer(connection, method, path, accept), 404)


@accepts
@pytest.mark.parametrize("path", ADDRESSES)
def test_get_and_head_answer_alike_and_errors_are_problems(
    connection: HTTPConnection, path: str, accept: str | None
) -> None:
    whole = Answer(connection, "GET", path, accept)
    head = Answer(connection, "HEAD", path, accept)

    assert whole.status in (200, 404, 406)
    assert (head.status, head.kind, head.body) == (whole.status, whole.kind, b"")
    if whole.status != 200:
        assert_problem(whole, whole.status)


@pytest.mark.parametrize("accept", ["", ",,,", " , ,", ";q=0.5"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_an_empty_list_of_what_is_accepted_is_none_at_all(
    connection: HTTPConnection, path: str, accept: str
) -> None:
    without = Answer(connection, "GET", path, None)

    answer = Answer(connection, "GET", path, accept)

    assert (answer.status, answer.kind) == (without.status, without.kind)
