"""What the documents say of the variables and of make is what there is."""

import re
import tomllib
from pathlib import Path

import pytest
from configurations.utils import uppercase_attributes

from tests.support.servers import ROOT
from totoro.settings import CONFIGURATIONS, VERSION, Production, Variable

README = ROOT / "README.md"
VARIABLES = {
    value.variable: value
    for value in uppercase_attributes(Production).values()
    if isinstance(value, Variable)
}
# Names the configuration that reads the others.
CHOICE = {"DJANGO_CONFIGURATION"}
# For docker-compose.yml, which makes a DATABASE_URL of it.
FOR_COMPOSE = {"POSTGRES_PASSWORD"}


def template() -> dict[str, str]:
    lines = (ROOT / ".env.template").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len({name for name, _ in pairs}), "a name stands there twice"
    return {name: value for name, value in pairs}  # noqa: C416 (mypy knows no pairs)


def readme_variables() -> set[str]:
    """The names in the first cell of a row: `A` or `A`, `B`."""
    cells = re.findall(r"^\| *(`[A-Z_]+`(?:, *`[A-Z_]+`)*) *\|", README.read_text(), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"[A-Z_]+", cell)}


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def test_the_template_names_every_variable_and_no_other() -> None:
    assert set(template()) == {*VARIABLES, *CHOICE, *FOR_COMPOSE}


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"DJANGO_SECRET_KEY"}))
def test_the_template_holds_a_good_value(name: str) -> None:
    VARIABLES[name].to_python(template()[name])


def test_the_template_holds_no_secret() -> None:
    assert template()["DJANGO_SECRET_KEY"] == template()["POSTGRES_PASSWORD"] == "filled-in-by-make"
    with pytest.raises(SystemExit):
        VARIABLES["DJANGO_SECRET_KEY"].to_python(template()["DJANGO_SECRET_KEY"])


def test_the_template_names_a_configuration() -> None:
    assert template()["DJANGO_CONFIGURATION"] in CONFIGURATIONS


def test_the_readmes_table_names_every_variable_and_no_other() -> None:
    assert readme_variables() == {*VARIABLES, *CHOICE}


@pytest.mark.parametrize(
    "file", ["README.md", "CHANGELOG.md", ".env.template", "docker-compose.yml", "Dockerfile"]
)
def test_a_make_target_that_is_named_exists(file: str) -> None:
    text = (ROOT / file).read_text()
    # At the start of a line or a quotation; anywhere, if no word of English looks like it.
    quoted = re.findall(r"(?:^\s*(?:\$ )?|[`'])make ([a-z][a-z-]*)", text, re.MULTILINE)
    hyphenated = re.findall(r"\bmake ([a-z]+-[a-z-]+)", text)

    assert {*quoted, *hyphenated} - targets() == set()


def test_the_readme_names_the_targets_that_everybody_needs() -> None:
    needed = {"run", "test", "check", "create-env-vars-from-template", "docker-totoro-server"}

    assert [target for target in needed if f"make {target}" not in README.read_text()] == []


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md"])
def test_a_link_to_a_file_leads_there(file: str) -> None:
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#]+)", (ROOT / file).read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_code_cites_only_documents_that_are_here() -> None:
    rooms = ("services", "movies", "totoro", "fake_ghibli", "tests")
    files = [
        ROOT / "pyproject.toml",
        *(file for room in rooms for file in (ROOT / room).rglob("*.py")),
    ]
    cited = {
        (file.name, name)
        for file in files
        for name in re.findall(r"\b[A-Z]+\.md\b|\b(?:DESIGN|FAULTS|BRIEF)\b", file.read_text())
        if file != Path(__file__)
    }

    assert [(file, name) for file, name in cited if not (ROOT / name).exists()] == []


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION
