import pytest

from fake_ghibli import FakeGhibli
from tests.fake_ghibli.client import ETAG_OF_EMPTY_OBJECT, HAKU, TOTORO, send

JSON = {"Content-Type": "application/json"}


def test_returns_whole_collections(upstream: FakeGhibli) -> None:
    films, people = send(upstream, "/films"), send(upstream, "/people")
    assert (films.status, people.status) == (200, 200)
    assert (len(films.json), len(people.json)) == (22, 57)


def test_bodies_are_indented_and_unescaped_without_a_final_newline(
    upstream: FakeGhibli,
) -> None:
    body = send(upstream, "/films").body.decode()
    assert body.startswith('[\n  {\n    "id": "')
    assert '"original_title": "天空の城ラピュタ"' in body
    assert body.endswith("\n  }\n]")


@pytest.mark.parametrize(
    "path", ["/films/", "/FILMS", "/Films/", "/films?foo=bar", "/films?fields="]
)
def test_paths_of_films(upstream: FakeGhibli, path: str) -> None:
    plain, other = send(upstream, "/films"), send(upstream, path)
    assert (other.status, other.body) == (200, plain.body)
    assert other.headers["ETag"] == plain.headers["ETag"]


@pytest.mark.parametrize("path", [f"/films/{TOTORO}", f"/films/{TOTORO}/", f"/FILMS/{TOTORO}"])
def test_returns_one_object(upstream: FakeGhibli, path: str) -> None:
    response = send(upstream, path)
    assert response.status == 200
    assert response.json["title"] == "My Neighbor Totoro"


@pytest.mark.parametrize(
    "path",
    [
        "//films",
        "/nope",
        "/films/nope",
        "/films/00000000-0000-4000-8000-000000000000",
        "/films/%00",
        f"/films/{TOTORO.upper()}",
        f"/people/{TOTORO}",
        f"/films/{TOTORO}/nope",
    ],
)
def test_returns_an_empty_object_for_what_does_not_exist(upstream: FakeGhibli, path: str) -> None:
    response = send(upstream, path)
    assert (response.status, response.body) == (404, b"{}")
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["ETag"] == ETAG_OF_EMPTY_OBJECT


def test_a_nested_path_is_not_filtered(upstream: FakeGhibli) -> None:
    assert len(send(upstream, f"/films/{TOTORO}/people").json) == 57


def test_the_home_page_is_html(upstream: FakeGhibli) -> None:
    response = send(upstream, "/")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.headers["Cache-Control"] == "public, max-age=0"


@pytest.mark.parametrize("path", ["/films?fields=title,id", f"/films/{TOTORO}?fields=title,id"])
def test_selected_fields_stay_in_the_order_of_the_data(upstream: FakeGhibli, path: str) -> None:
    content = send(upstream, path).json
    for record in content if isinstance(content, list) else [content]:
        assert list(record) == ["id", "title"]


def test_unknown_fields_leave_empty_objects(upstream: FakeGhibli) -> None:
    assert send(upstream, "/films?fields=nope").json == [{}] * 22


def test_names_of_fields_are_not_trimmed(upstream: FakeGhibli) -> None:
    films = send(upstream, "/films?fields=id,%20title").json
    assert [list(film) for film in films] == [["id"]] * 22


@pytest.mark.parametrize(
    ("limit", "count"),
    [("0", 0), ("1", 1), ("10", 10), ("57", 57), ("250", 57), ("999", 57), ("99.5", 57), ("", 57)],
)
def test_a_limit_shortens_a_list(upstream: FakeGhibli, limit: str, count: int) -> None:
    response = send(upstream, f"/people?limit={limit}")
    assert (response.status, len(response.json)) == (200, count)


def test_limits_are_at_most_250() -> None:
    with FakeGhibli(data={"things": [{"id": number} for number in range(300)]}) as upstream:
        assert len(send(upstream, "/things").json) == 300
        assert len(send(upstream, "/things?limit=299").json) == 250


def test_a_limit_does_not_apply_to_one_object(upstream: FakeGhibli) -> None:
    assert send(upstream, f"/films/{TOTORO}?limit=abc").json["id"] == TOTORO


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/films?limit=-1", "RangeError"),
        ("/films?limit=abc", "RangeError"),
        ("/films?limit=1.5", "RangeError"),
        ("/films?limit=nan", "RangeError"),
        ("/films?limit=1&limit=2", "RangeError"),
        ("/films?fields=id&fields=title", "TypeError"),
        ("/films/%", "URIError"),
        ("/films/%zz", "URIError"),
        ("/films/%ff", "URIError"),
    ],
)
def test_errors_are_stack_traces_in_html(upstream: FakeGhibli, path: str, reason: str) -> None:
    response = send(upstream, path)
    assert response.status == 500
    assert response.headers["Content-Type"].startswith("text/html")
    assert "X-Content-Type-Options" not in response.headers
    assert reason in response.body.decode()
    assert " at " in response.body.decode().replace("&nbsp;", " ")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/people?name=Haku", ["Haku"]),
        (f"/people?id={HAKU}", ["Haku"]),
        ("/people?name=Haku&name=Pazu", ["Haku", "Pazu"]),
        ("/people?name=Haku&gender=Female", []),
        ("/people?name=haku", []),
        ("/people?q=totoro", ["Totoro", "Chu Totoro", "Chibi Totoro"]),
        ("/people?q=nobody-like-this", []),
    ],
)
def test_values_filter_a_list(upstream: FakeGhibli, path: str, names: list[str]) -> None:
    assert [person["name"] for person in send(upstream, path).json] == names


def test_an_empty_search_returns_everything(upstream: FakeGhibli) -> None:
    assert len(send(upstream, "/films?q=").json) == 22


def test_options_lists_methods(upstream: FakeGhibli) -> None:
    preflight = {"Access-Control-Request-Headers": "X-Any", "Access-Control-Request-Method": "GET"}
    for headers in ({}, preflight):
        response = send(upstream, "/films", "OPTIONS", headers)
        assert (response.status, response.body) == (204, b"")
        methods = response.headers["Access-Control-Allow-Methods"]
        assert methods == "GET,HEAD,PUT,PATCH,POST,DELETE"
        assert response.headers["Vary"] == "Origin, Access-Control-Request-Headers"
        assert response.headers["Content-Length"] == "0"


def test_trace_is_not_found(upstream: FakeGhibli) -> None:
    assert send(upstream, "/films", "TRACE").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/films", 201, {"id": "x", "title": "New"}),
        ("POST", "/nope", 404, {}),
        ("PUT", f"/people/{HAKU}", 200, {"id": HAKU, "title": "New"}),
        ("PUT", "/people/nope", 404, {}),
        ("PATCH", "/people/nope", 404, {}),
        ("DELETE", f"/people/{HAKU}", 200, {}),
        ("DELETE", "/people/nope", 404, {}),
    ],
)
def test_responds_to_writes(
    upstream: FakeGhibli, method: str, path: str, status: int, expected: dict[str, str]
) -> None:
    response = send(upstream, path, method, JSON, b'{"id": "x", "title": "New"}')
    assert (response.status, response.json) == (status, expected)


def test_a_patch_leaves_other_fields_unchanged(upstream: FakeGhibli) -> None:
    response = send(upstream, f"/people/{HAKU}", "PATCH", JSON, b'{"age": "13"}')
    assert (response.json["name"], response.json["age"]) == ("Haku", "13")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_writes_change_nothing(upstream: FakeGhibli, method: str) -> None:
    before = send(upstream, "/people").body
    send(
        upstream,
        "/people" if method == "POST" else f"/people/{HAKU}",
        method,
        JSON,
        b'{"age": "1"}',
    )
    assert send(upstream, "/people").body == before


@pytest.mark.parametrize("body", [b"{", b"\xff", b"1"])
def test_a_malformed_body_is_an_error_in_html(upstream: FakeGhibli, body: bytes) -> None:
    response = send(upstream, "/films", "POST", JSON, body)
    assert response.status == 400
    assert response.headers["Content-Type"].startswith("text/html")


def test_serves_any_collections() -> None:
    with FakeGhibli(data={"vehicles": [{"id": "1", "name": "Broom"}]}) as upstream:
        assert send(upstream, "/vehicles/1").json == {"id": "1", "name": "Broom"}
        assert send(upstream, "/films").status == 404


def test_serves_malformed_data_unchanged() -> None:
    with FakeGhibli(data={"films": [{}, {"id": None}]}) as upstream:
        assert send(upstream, "/films").json == [{}, {"id": None}]
