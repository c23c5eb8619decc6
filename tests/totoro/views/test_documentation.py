"""The OpenAPI document and the two pages that show it, with everything that they load."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from django.test import Client
from swagger_spec_validator.validator20 import validate_spec

from tests.support.servers import Totoro

PAGES = ["/", "/redoc/"]
DOCUMENTS = ["/swagger.json", "/swagger.yaml", "/?format=openapi", "/redoc/?format=openapi"]
TYPES = {
    "css": "text/css",
    "js": "text/javascript",
    "png": "image/png",
    "svg": "image/svg+xml",
    "yaml": "application/yaml",
    "html": "text/html",
}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Links(HTMLParser):
    """Every URL in a page: in attributes and in the settings for its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_settings = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]
        self._in_settings = ("type", "application/json") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_settings and data.strip():
            self.found += [
                v for k, v in json.loads(data).items() if k.lower().endswith("url") and v
            ]


@pytest.fixture(scope="module")
def document(server: Totoro) -> dict[str, Any]:
    parsed: dict[str, Any] = server.get("/swagger.json").json()
    return parsed


@pytest.mark.parametrize(("path", "place"), [("/", "swagger-ui"), ("/redoc/", "redoc-placeholder")])
def test_a_page_is_html_with_an_element_to_render_into(api: Client, path: str, place: str) -> None:
    response = api.get(path, headers=BROWSER)

    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>Totoro API</title>" in response.text
    assert f'<div id="{place}"></div>' in response.text


@pytest.mark.parametrize("path", PAGES)
def test_every_link_of_a_page_works_and_has_the_right_media_type(server: Totoro, path: str) -> None:
    links = Links(server.get(path, headers=BROWSER).text).found

    assert len(links) >= 5
    assert "/swagger.json" in links
    for link in links:
        response = server.get(link)
        assert response.status_code == 200, link
        assert response.content
        kind = link.rpartition(".")[2]
        expected = TYPES.get(kind, "application/json")
        assert response.headers["Content-Type"].split(";")[0] == expected
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_refers_to_no_other_host(api: Client, path: str) -> None:
    html = api.get(path, headers=BROWSER).text

    assert not re.search(r"""https?:|["'(]//""", html)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_from_this_host_only(api: Client, path: str) -> None:
    policy = api.get(path, headers=BROWSER)["Content-Security-Policy"]

    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    sources = {source for sources in directives.values() for source in sources.split()}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


@pytest.mark.parametrize("path", [*DOCUMENTS, "/static/drf-yasg/style.css", "/movies/none/"])
def test_other_responses_may_load_nothing(server: Totoro, path: str) -> None:
    policy = server.get(path).headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_swagger_ui_uses_no_validator(api: Client) -> None:
    assert '"validatorUrl": null' in api.get("/", headers=BROWSER).text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/swagger.json", "application/json"),
        ("/swagger.yaml", "application/yaml"),
        ("/?format=openapi", "application/openapi+json"),
    ],
)
def test_the_document_has_a_media_type_for_each_format(api: Client, path: str, kind: str) -> None:
    assert api.get(path)["Content-Type"].split(";")[0] == kind


@pytest.mark.parametrize("path", DOCUMENTS)
def test_the_document_is_the_same_at_every_url(
    api: Client, document: dict[str, Any], path: str
) -> None:
    assert yaml.safe_load(api.get(path).content) == document


def test_the_root_url_is_the_document_for_json_clients(
    api: Client, document: dict[str, Any]
) -> None:
    response = api.get("/", headers={"Accept": "application/json"})

    assert response.json() == document


def test_the_document_is_valid_openapi_2(document: dict[str, Any]) -> None:
    assert document["swagger"] == "2.0"
    validate_spec(document)


def test_the_document_is_right_behind_any_proxy(document: dict[str, Any]) -> None:
    assert not {"host", "schemes"} & document.keys()
    assert document["basePath"] == "/"


def test_the_document_contains_the_api_without_operators_urls(document: dict[str, Any]) -> None:
    operations = {
        f"{method.upper()} {path}": operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }

    assert operations == {
        "GET /movies/": "listMovies",
        "GET /movies/{movie_id}/": "getMovie",
        "GET /problems/": "listProblems",
        "GET /problems/{name}/": "getProblem",
    }


@pytest.mark.parametrize("path", ["/movies/", "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"])
def test_a_response_has_the_documented_fields(
    server: Totoro, document: dict[str, Any], path: str
) -> None:
    body = server.get(path).json()
    template = "/movies/" if path == "/movies/" else "/movies/{movie_id}/"
    schema = document["paths"][template]["get"]["responses"]["200"]["schema"]

    assert_described(body, schema, document["definitions"])


def test_a_problem_has_the_documented_fields(server: Totoro, document: dict[str, Any]) -> None:
    responses = document["paths"]["/movies/{movie_id}/"]["get"]["responses"]

    assert_described(
        server.get("/movies/none/").json(), responses["404"]["schema"], document["definitions"]
    )
    assert responses["503"]["schema"] == responses["404"]["schema"]


def assert_described(
    value: Any, schema: dict[str, Any], definitions: dict[str, dict[str, Any]]
) -> None:
    """Assert that fields and types match the schema, in its order, at every level."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/definitions/")]
    python_type = {"object": dict, "array": list, "string": str, "integer": int}[schema["type"]]
    assert isinstance(value, python_type)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value)
        assert list(value) == [name for name in schema["properties"] if name in value]
        for name in value:
            assert_described(value[name], schema["properties"][name], definitions)
    if isinstance(value, list):
        for item in value:
            assert_described(item, schema["items"], definitions)


def test_the_movie_id_is_declared_once(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/movies/{movie_id}/"]["get"]["parameters"]
    (parameter,) = [parameter for parameter in parameters if parameter["in"] == "path"]

    assert parameter["name"] == "movie_id"
    assert parameter["required"] is True
    assert parameter["type"] == "string"
    assert parameter["description"]
