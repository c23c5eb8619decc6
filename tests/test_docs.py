"""What the documents say of the code is true."""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from configurations.utils import uppercase_attributes
from django.core.management import get_commands
from django.test import Client
from django.urls import resolve
from prometheus_client import REGISTRY

from fake_ghibli import FakeGhibli
from services.exceptions import Reason
from tests.support.servers import ROOT
from totoro.settings import CONFIGURATIONS, VERSION, Production, Variable

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").rglob("*.md"))),
]
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

CODE = [
    file
    for package in ("services", "movies", "totoro", "fake_ghibli", "tests")
    for file in (ROOT / package).rglob("*.py")
    if file != Path(__file__)
]
VARIABLES = {
    value.variable: value
    for value in uppercase_attributes(Production).values()
    if isinstance(value, Variable)
}
# Names the configuration that reads the others.
CONFIGURATION = {"DJANGO_CONFIGURATION"}
# For docker-compose.yml, which makes a DATABASE_URL of it.
FOR_COMPOSE = {"POSTGRES_PASSWORD"}

every_document = pytest.mark.parametrize("name", DOCUMENTS)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def without_examples(name: str) -> str:
    """Return a document's prose without what a recipe has the reader add."""
    return re.sub(r"^Example: .*?$|`GREETING .*?`", "", prose(read(name)), flags=re.MULTILINE)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)", prose(text), re.MULTILINE)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (.*?) \|", prose(text), re.MULTILINE)


def template() -> dict[str, str]:
    lines = read(".env.template").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len({name for name, _ in pairs}), "a name stands there twice"
    return {name: value for name, value in pairs}  # noqa: C416 (mypy knows no pairs)


def log_events() -> set[str]:
    """Return the events that the code logs, from calls like `log.info("event")`."""
    calls = [
        node
        for file in CODE
        if file.relative_to(ROOT).parts[0] in ("services", "movies", "totoro")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    return {
        argument.value
        for call in calls
        if ast.unparse(call.func).split(".")[0] in ("log", "bugs")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def metric_names() -> set[str]:
    """Return the metrics as Prometheus shows them."""
    metrics = [metric for metric in REGISTRY.collect() if metric.name.startswith("totoro_")]
    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in metrics}
    return names | {"totoro_snapshot_age_seconds"}  # computed when it is asked for


# README


def test_the_readme_has_the_headings_that_people_look_for() -> None:
    assert headings(README) == HEADINGS
    assert len(README.splitlines()) <= README_LINES


def test_the_readme_shows_two_screenshots() -> None:
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)

    assert images == ["docs/images/movie-page.png", "docs/images/swagger-ui.png"]
    assert all(0 < (ROOT / image).stat().st_size < IMAGE_BYTES for image in images)


def test_the_readme_names_the_stack() -> None:
    stack = "Python, Django, Django REST framework, drf-yasg, Redis, PostgreSQL and granian"

    assert f"Built with {stack}." in README


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


def test_the_template_names_every_variable_and_no_other() -> None:
    assert set(template()) == {*VARIABLES, *CONFIGURATION, *FOR_COMPOSE}


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"DJANGO_SECRET_KEY"}))
def test_the_template_holds_a_valid_value(name: str) -> None:
    VARIABLES[name].to_python(template()[name])


def test_the_template_holds_no_secret() -> None:
    assert template()["DJANGO_SECRET_KEY"] == template()["POSTGRES_PASSWORD"] == "filled-in-by-make"
    with pytest.raises(SystemExit):
        VARIABLES["DJANGO_SECRET_KEY"].to_python(template()["DJANGO_SECRET_KEY"])


def test_the_template_names_a_configuration() -> None:
    assert template()["DJANGO_CONFIGURATION"] in CONFIGURATIONS


def test_the_readmes_table_names_every_variable_and_no_other() -> None:
    assert readme_defaults().keys() == {*VARIABLES, *CONFIGURATION}


# The secret key has no default, and that of REFRESH_AHEAD depends on another variable.
@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"DJANGO_SECRET_KEY", "REFRESH_AHEAD"}))
def test_the_readmes_table_gives_the_default_of_a_variable(name: str) -> None:
    variable = VARIABLES[name]

    assert variable.parse(readme_defaults()[name]) == variable.parse(variable.default)


def readme_defaults() -> dict[str, str]:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`?(?:,? [^|]*)?\|", README, re.MULTILINE)
    return {name: "" if default == "empty" else default for name, default in rows}


# All documents


@pytest.mark.parametrize("name", [*DOCUMENTS, ".env.template", "docker-compose.yml", "Dockerfile"])
def test_a_make_target_that_is_named_exists(name: str) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", read("Makefile"), re.MULTILINE)
    # At the start of a line or a quotation; anywhere, if no word of English looks like it.
    quoted = re.findall(r"(?:^\s*(?:\$ )?|[`'])make ([a-z][a-z-]*)", read(name), re.MULTILINE)
    hyphenated = re.findall(r"\bmake ([a-z]+-[a-z-]+)", read(name))

    assert {*quoted, *hyphenated} - set(targets) == set()


def test_the_readme_names_the_targets_that_everybody_needs() -> None:
    needed = {"run", "dev", "test", "test-fast", "check", "fake-ghibli", "docker-totoro-server"}

    assert [target for target in needed if f"make {target}" not in README] == []


@every_document
def test_a_management_command_that_is_named_exists(name: str) -> None:
    commands = re.findall(r"manage\.py ([a-z_]+)", read(name))

    assert set(commands) - set(get_commands()) == set()


@every_document
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(name: str) -> None:
    for link in re.findall(r"\]\((?![a-z]+:)([^)]+)\)", read(name)):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            slugs = [heading.lower().replace(" ", "-") for heading in headings(target.read_text())]
            assert anchor in slugs, link


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        links = {
            (file.parent / link).resolve()
            for file in new
            for link in re.findall(r"\]\((?![a-z]+:)([^)#]+\.md)", file.read_text())
        }
        new = links - reached

    assert {ROOT / name for name in DOCUMENTS} - reached == set()


@every_document
def test_a_path_that_is_named_exists(name: str) -> None:
    paths = re.findall(
        r"`((?:services|movies|totoro|fake_ghibli|tests|docs|scripts)/[\w./-]*)`", read(name)
    )

    assert [path for path in paths if not (ROOT / path).exists()] == []


@every_document
def test_a_name_of_the_code_that_is_quoted_exists(name: str) -> None:
    code = "\n".join([read("Makefile"), read(".env.template"), *map(Path.read_text, CODE)])
    # ALL_CAPS and CamelCase.
    names = re.findall(r"`([A-Z]\w*[A-Z_]\w*|[A-Z][a-z]+[A-Z]\w*)`", without_examples(name))

    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_operations_describes_every_metric_and_no_other() -> None:
    cells = first_cells(read("docs/operations.md"))
    described = {name for cell in cells for name in re.findall(r"`(totoro_\w+)", cell)}

    assert described == metric_names()


@every_document
def test_a_metric_that_is_named_exists(name: str) -> None:
    named = re.findall(r"`(totoro_[a-z_]+)", without_examples(name))

    assert set(named) - metric_names() == set()


def test_operations_describes_every_log_event_and_no_other() -> None:
    _, section = read("docs/operations.md").split("\n## Logs\n")
    table = section.split("\n## ")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == log_events()


def test_freshness_describes_every_reason_and_no_other() -> None:
    _, section = read("docs/freshness.md").split("\n## When the Ghibli API fails\n")
    table = section.split("\n## ")[0]

    named = {name for cell in first_cells(table) for name in re.findall(r"`(\w+)`", cell)}
    assert named == {reason.value for reason in Reason}


def test_code_cites_only_documents_that_are_here() -> None:
    cited = {
        (file.name, name)
        for file in [ROOT / "pyproject.toml", *CODE]
        for name in re.findall(r"\b[A-Z]+\.md\b|\b(?:DESIGN|FAULTS|BRIEF)\b", file.read_text())
    }

    assert [(file, name) for file, name in cited if not (ROOT / name).exists()] == []


def test_there_is_one_version() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]

    assert project["version"] == VERSION
