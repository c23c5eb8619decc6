"""The OpenAPI document: it is valid, and the API does what it says."""

import json
import tomllib
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from bravado.client import SwaggerClient
from bravado.exception import HTTPBadRequest, HTTPNotFound
from django.core.wsgi import get_wsgi_application
from django.test import Client, RequestFactory
from django.urls import clear_script_prefix
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from rest_framework.renderers import JSONRenderer
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance
from swagger_spec_validator.validator20 import validate_spec

from fake_ghibli import FakeGhibli
from movies.query.parameter_types import Parameter
from movies.query.parameters import DETAIL_PARAMETERS, LIST_PARAMETERS
from movies.serializers import MovieListSerializer, MovieSerializer, PersonSerializer
from tests.support.servers import ROOT, Totoro

COMMITTED = ROOT / "docs" / "openapi.json"
PORCO_ROSSO = "ebbb6b7c-945c-41ee-a792-de0e43191bd8"


@pytest.fixture
def document(api: Client) -> dict[str, Any]:
    content: dict[str, Any] = api.get("/swagger.json").json()
    return content


def test_is_valid_against_the_official_schema(document: dict[str, Any]) -> None:
    validate_spec(document)


def test_equals_the_committed_document(document: dict[str, Any]) -> None:
    """`make openapi` updates the committed document, so that a commit shows every change of the API."""
    content = json.dumps(document, ensure_ascii=False, indent=2) + "\n"

    assert COMMITTED.read_text("utf-8") == content


def test_describes_every_parameter_with_an_example(document: dict[str, Any]) -> None:
    described = document["paths"]["/movies/"]["get"]["parameters"]

    assert {parameter["name"] for parameter in described} == set(LIST_PARAMETERS)
    assert all("For example `" in parameter["description"] for parameter in described)


@pytest.mark.parametrize("parameters", [LIST_PARAMETERS, DETAIL_PARAMETERS])
def test_examples_of_parameters_are_valid(parameters: dict[str, Parameter]) -> None:
    for parameter in parameters.values():
        assert parameter.parse(str(parameter.example))


def test_the_example_response_has_all_fields(document: dict[str, Any]) -> None:
    examples = document["paths"]["/movies/"]["get"]["responses"]["200"]["examples"]

    (movie,) = examples["application/json"]["api_data"]
    assert list(movie) == list(MovieSerializer().get_fields())
    assert list(movie["people"][0]) == list(PersonSerializer().get_fields())


@pytest.mark.parametrize("path", ["/movies/", "/movies/{movie_id}/"])
def test_names_every_status(path: str, document: dict[str, Any]) -> None:
    statuses = set(document["paths"][path]["get"]["responses"])

    expected = {"200", "304", "400", "406", "412", "414", "429", "500", "503"}
    assert statuses == expected | ({"404"} if "movie_id" in path else set())


@pytest.mark.django_db(transaction=True)
def test_a_page_has_the_keys_of_its_serializer(api: Client, upstream: FakeGhibli) -> None:
    page = api.get("/movies/?limit=1").json()

    assert list(page) == list(MovieListSerializer().get_fields())
    assert api.get("/movies/").content.startswith(b'{"api_data":[{"id":"')
    assert JSONRenderer().render({"a": 1}) == b'{"a":1}'


@pytest.mark.django_db
def test_has_the_path_prefix_of_the_request() -> None:
    application: Any = get_wsgi_application()
    environ = RequestFactory().get("/swagger.json", SCRIPT_NAME="/ghibli").environ
    try:
        behind = json.loads(b"".join(application(environ, lambda *started: None)))
    finally:
        clear_script_prefix()  # of this thread, which the next test has too

    assert behind["basePath"] == "/ghibli"
    assert "host" not in behind


def operations(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each operation with its path item."""
    return [
        (item, operation)
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]


def test_no_parameter_is_declared_twice(document: dict[str, Any]) -> None:
    """Code generators turn each declaration into an argument, and two of one name do not compile."""
    for item, operation in operations(document):
        declared = [*item.get("parameters", ()), *operation.get("parameters", ())]
        names = [(each["in"], each["name"]) for each in declared]
        assert sorted(names) == sorted(set(names))


@pytest.mark.django_db(transaction=True)
def test_every_media_type_is_available(
    document: dict[str, Any], api: Client, upstream: FakeGhibli
) -> None:
    path = {"movie_id": PORCO_ROSSO, "name": "not-found"}
    for template, item in document["paths"].items():
        for media_type in item["get"].get("produces", document["produces"]):
            response = api.get(template.format(**path), headers={"Accept": media_type})
            assert (response.status_code, response["Content-Type"]) == (200, media_type)


def test_every_error_names_its_media_type(document: dict[str, Any]) -> None:
    for _, operation in operations(document):
        for status, response in operation["responses"].items():
            is_error = status >= "400"
            assert ("`application/problem+json`" in response["description"]) == is_error
    assert "`application/problem+json`" in document["info"]["description"]


def test_every_tag_is_described(document: dict[str, Any]) -> None:
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}

    assert {tag["name"] for tag in document["tags"]} == used
    assert all(tag["description"] for tag in document["tags"])


def test_names_the_licence_and_the_authors(document: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert document["info"]["license"] == {
        "name": "MIT",
        "url": "https://spdx.org/licenses/MIT.html",
    }
    assert document["info"]["contact"] == project["authors"][0]


# Generated clients and tests


# Plain dictionaries without None for absent keys.
AS_SENT = {"use_models": False, "include_missing_properties": False}


def generated_client(server: Totoro, **config: bool) -> Any:
    document = server.get("/swagger.json").json()
    generate: Any = SwaggerClient.from_spec
    return generate(document, origin_url=server.url, config={**AS_SENT, **config})


def test_a_generated_client_lists_filters_and_gets_movies(server: Totoro) -> None:
    client = generated_client(server)

    everything = client.movies.listMovies().response().result
    page = client.movies.listMovies(limit=5, offset=20).response().result
    matches = client.movies.listMovies(search="kondo", fields=["id", "title"]).response().result
    movie = client.movies.getMovie(movie_id=PORCO_ROSSO).response().result

    assert len(everything["api_data"]) == 22
    assert len(page["api_data"]) == 2
    assert page["pagination"]["previous"].endswith("limit=5&offset=15")
    assert [list(movie) for movie in matches["api_data"]] == [["id", "title"]]
    assert movie["api_data"]["people"][0]["name"] == "Porco Rosso"


def test_a_generated_client_raises_errors(server: Totoro) -> None:
    client = generated_client(server, validate_requests=False)

    with pytest.raises(HTTPNotFound):
        client.movies.getMovie(movie_id="nope").response()
    with pytest.raises(HTTPBadRequest):
        client.movies.listMovies(limit=0).response()


FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def check_media_type(ctx: Any, response: Any, case: Any) -> None:
    """Like schemathesis' own check, except for errors: OpenAPI 2 cannot describe their media type."""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        assert response.headers["content-type"] == ["application/problem+json"]
    else:
        content_type_conformance(ctx, response, case)


def check_all_operations(schema: Any, **headers: str) -> None:
    """Send valid and invalid requests to every operation, with all checks of schemathesis."""
    # An invalid request that is too long is refused with 414.
    rejection = schema.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "414"]
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            # Not through schemathesis' pytest plugin, which does not know this version of pytest.
            @FUZZ
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                case.call_and_validate(
                    headers=headers,
                    excluded_checks=[content_type_conformance],
                    additional_checks=[check_media_type],
                )

            # An operation without parameters has no invalid requests.
            with suppress(Unsatisfiable):
                check()


@pytest.mark.slow
def test_the_running_server_does_what_the_document_says(server: Totoro) -> None:
    check_all_operations(schemathesis.openapi.from_url(f"{server.url}/swagger.json"))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_application_does_what_the_document_says(upstream: FakeGhibli) -> None:
    schema = schemathesis.openapi.from_wsgi("/swagger.json", get_wsgi_application())
    # schemathesis' WSGI client does not decode gzip.
    check_all_operations(schema, **{"Accept-Encoding": "identity"})
