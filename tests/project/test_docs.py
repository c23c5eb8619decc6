"""What all documents say of the code is true."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from django.core.management import get_commands

from benchmarks.names import NGINX_CACHE, TOTORO
from benchmarks.results import Case, Results
from services.exceptions import Reason
from tests.support.documents import first_cells, headings, prose, read
from tests.support.metrics import METRICS
from tests.support.servers import ROOT
from totoro.settings import VERSION

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *(
        str(file.relative_to(ROOT))
        for folder in ("docs", "deploy")
        for file in sorted((ROOT / folder).rglob("*.md"))
    ),
]

CODE = [
    file
    for package in ("services", "movies", "totoro", "fake_ghibli", "benchmarks", "tests")
    for file in (ROOT / package).rglob("*.py")
    if file != Path(__file__)
]

every_document = pytest.mark.parametrize("name", DOCUMENTS)


def without_examples(name: str) -> str:
    """Return a document's prose without what a recipe has the reader add."""
    return re.sub(r"^Example: .*?$|`GREETING .*?`", "", prose(read(name)), flags=re.MULTILINE)


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


@pytest.mark.parametrize("name", [*DOCUMENTS, ".env.template", "docker-compose.yml", "Dockerfile"])
def test_a_make_target_that_is_named_exists(name: str) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", read("Makefile"), re.MULTILINE)
    # At the start of a line or a quotation; anywhere, if no word of English looks like it.
    quoted = re.findall(r"(?:^\s*(?:\$ )?|[`'])make ([a-z][a-z-]*)", read(name), re.MULTILINE)
    hyphenated = re.findall(r"\bmake ([a-z]+-[a-z-]+)", read(name))

    assert {*quoted, *hyphenated} - set(targets) == set()


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
        r"`((?:services|movies|totoro|fake_ghibli|benchmarks|tests|docs|deploy|scripts)/[\w./-]*)`",
        read(name),
    )

    assert [path for path in paths if not (ROOT / path).exists()] == []


@every_document
def test_a_name_of_the_code_that_is_quoted_exists(name: str) -> None:
    text = without_examples(name)
    all_caps = re.findall(r"`([A-Z]+_?[A-Z_]+)`", text)
    camel_case = re.findall(r"`([A-Z][a-z]+[A-Z]\w*)`", text)

    assert unknown_names(all_caps + camel_case) == []


@every_document
def test_a_class_that_a_diagram_shows_exists(name: str) -> None:
    diagrams = re.findall(r"^```mermaid\n.*?^```", read(name), re.MULTILINE | re.DOTALL)
    classes = re.findall(r"\b[A-Z][a-z]+[A-Z][a-z]+\b", "".join(diagrams))

    assert unknown_names(classes) == []


def unknown_names(names: list[str]) -> list[str]:
    code = "\n".join([read("Makefile"), read(".env.template"), *map(Path.read_text, CODE)])
    return [name for name in names if not re.search(rf"\b{name}\b", code)]


def test_monitoring_describes_every_metric_and_no_other() -> None:
    cells = first_cells(read("docs/monitoring.md"))
    described = {name for cell in cells for name in re.findall(r"`(totoro_\w+)", cell)}

    assert described == METRICS.keys()


@every_document
def test_a_metric_that_is_named_exists(name: str) -> None:
    named = re.findall(r"`(totoro_[a-z_]+)", without_examples(name))

    assert set(named) - METRICS.keys() == set()


def test_monitoring_describes_every_log_event_and_no_other() -> None:
    _, section = read("docs/monitoring.md").split("\n## Logs\n")
    table = section.split("\n## ")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == log_events()


def test_operations_describes_every_alert_and_no_other() -> None:
    alerts = re.findall(r"- alert: (\w+)", read("deploy/monitoring/alerts.yml"))
    _, section = read("docs/operations.md").split("\n## Alerts\n")

    assert headings(section.split("\n## ")[0]) == alerts


def test_operations_has_the_speed_that_was_measured() -> None:
    """In thousands, so that an earlier benchmark's figures are near enough."""
    results = Results.read(ROOT / "benchmarks" / "results.json").measurements
    row = r"^\| .*?`(\w+)` \| ([0-9,]+) \| ([0-9,]+) \|"

    rows = re.findall(row, read("docs/operations.md"), re.MULTILINE)
    assert len(rows) == 3
    for workload, *numbers in rows:
        for server, number in zip((TOTORO, NGINX_CACHE), numbers, strict=True):
            measured = results[Case(server, workload)].capacity
            assert int(number.replace(",", "")) == pytest.approx(measured, rel=0.15)


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
