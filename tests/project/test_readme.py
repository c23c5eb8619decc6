"""What README.md and .env.template say is true."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import resolve

from fake_ghibli import FakeGhibli
from tests.support.documents import README, first_cells, headings, read
from tests.support.servers import ROOT
from totoro.settings import CONFIGURATIONS, Production, variables

HEADINGS = [
    "Totoro",
    "Quick start",
    "API usage",
    "Filtering and pagination",
    "Caching and conditional requests",
    "Errors",
    "Architecture",
    "Configuration",
    "Deployment",
    "Development",
    "Limitations",
    "Licence",
]
README_LINES = 250
IMAGE_BYTES = 250_000

VARIABLES = {each.variable: each for each in variables(Production)}
# Names the configuration that reads the others.
CONFIGURATION = {"DJANGO_CONFIGURATION"}
# In a file, which another variable names.
SECRET_KEY = "DJANGO_SECRET_KEY"


def test_the_readme_has_the_headings_that_people_look_for() -> None:
    assert headings(README) == HEADINGS
    assert len(README.splitlines()) <= README_LINES


def test_the_readme_shows_two_screenshots() -> None:
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)

    assert images == ["docs/images/movie-page.png", "docs/images/swagger-ui.png"]
    assert all(0 < (ROOT / image).stat().st_size < IMAGE_BYTES for image in images)


def test_the_readme_shows_the_plot_of_the_benchmark_in_both_modes() -> None:
    images = re.findall(r'(?:src|srcset)="([^"]+)"', README)

    assert images == ["docs/images/benchmark-dark.svg", "docs/images/benchmark-light.svg"]


def test_the_readme_names_the_stack() -> None:
    stack = "Python, Django, Django REST framework, drf-yasg, Redis, PostgreSQL and granian"

    assert f"Built with {stack}." in README


def test_the_readme_names_the_targets_that_everybody_needs() -> None:
    needed = {"run", "dev", "test", "test-fast", "check", "fake-ghibli", "docker-totoro-server"}

    assert [target for target in needed if f"make {target}" not in README] == []


def test_the_readmes_addresses_exist() -> None:
    cells = [cell for cell in first_cells(README) if cell.startswith("`/")]
    addresses = [address for cell in cells for address in re.findall(r"`(/[^`]*)`", cell)]

    assert len(addresses) > 10
    for address in addresses:
        resolve(urlsplit(re.sub("<[a-z]+>", "x", address)).path)


@pytest.mark.django_db(transaction=True)
def test_the_readmes_examples_get_the_responses_that_it_shows(
    api: Client, upstream: FakeGhibli
) -> None:
    blocks = r"```console\ncurl '?localhost:8000(\S+?)'?\n```\n\n```json\n(.*?)```"
    examples = re.findall(blocks, README, re.DOTALL)

    assert len(examples) == 2
    for address, shown in examples:
        response = api.get(address).json()
        assert list(response) == list(json.loads(shown))
        assert without_changing(response) == without_changing(json.loads(shown))


def without_changing(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in body if name not in ("timestamp", "request_id")}


@pytest.mark.django_db(transaction=True)
def test_the_readmes_requests_succeed(api: Client, upstream: FakeGhibli) -> None:
    addresses = re.findall(r"^curl .*?localhost:8000(/[^'\s]*)", README, re.MULTILINE)

    assert len(addresses) > 3
    failed = {address for address in addresses if api.get(address).status_code != 200}
    assert failed == {"/movies/nope/"}


# Variables


def template() -> dict[str, str]:
    lines = read(".env.template").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len({name for name, _ in pairs}), "a name stands there twice"
    return {name: value for name, value in pairs}  # noqa: C416 (mypy knows no pairs)


def test_the_template_names_every_variable_and_no_other() -> None:
    assert set(template()) == {*VARIABLES, *CONFIGURATION, f"{SECRET_KEY}_FILE"} - {SECRET_KEY}


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {SECRET_KEY}))
def test_the_template_holds_a_valid_value(name: str) -> None:
    VARIABLES[name].to_python(template()[name])


def test_the_template_holds_no_secret() -> None:
    assert {template().get(name, "") for name, each in VARIABLES.items() if each.secret} == {""}
    assert template()[f"{SECRET_KEY}_FILE"] == "secrets/django_secret_key"


def test_the_template_names_a_configuration() -> None:
    assert template()["DJANGO_CONFIGURATION"] in CONFIGURATIONS


def test_the_readmes_table_names_every_variable_and_no_other() -> None:
    assert readme_defaults().keys() == {*VARIABLES, *CONFIGURATION}


# The secret key has no default, and that of REFRESH_AHEAD depends on another variable.
@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {SECRET_KEY, "REFRESH_AHEAD"}))
def test_the_readmes_table_gives_the_default_of_a_variable(name: str) -> None:
    variable = VARIABLES[name]

    assert variable.parse(readme_defaults()[name]) == variable.parse(variable.default)


def test_the_readme_names_the_variables_for_files_with_secrets() -> None:
    [row] = [line for line in README.splitlines() if "_FILE` |" in line]

    named = set(re.findall("`([A-Z_]+)_FILE`", row))
    assert named == {name for name, each in VARIABLES.items() if each.secret}


def readme_defaults() -> dict[str, str]:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`?(?:,? [^|]*)?\|", README, re.MULTILINE)
    return {name: "" if default == "empty" else default for name, default in rows}
