"""What is installed by `make` and in the images."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.servers import ROOT

GROUPS = {"main": [], "dev": ["dev"], "test": ["dev", "test"]}


def normalized(requirement: str) -> str:
    """Return the name of the package alone."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]
    return re.sub(r"[._]", "-", name.lower())


def declared(groups: list[str]) -> set[str]:
    """Return the packages that pyproject.toml names, in these groups and for production."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = [*pyproject["project"]["dependencies"]]
    for group in groups:
        requirements += pyproject["dependency-groups"][group]
    return {normalized(requirement) for requirement in requirements}


def locked(name: str) -> set[str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return {normalized(line) for line in lines if not line.startswith(" ")}


@pytest.mark.parametrize("name", GROUPS)
def test_a_requirements_file_has_every_declared_package(name: str) -> None:
    assert declared(GROUPS[name]) - locked(name) == set()


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("main", "dev"), ("dev", "test"), ("main", "tracing"), ("tracing", "test")],
)
def test_one_requirements_file_is_enough(smaller: str, larger: str) -> None:
    assert locked(smaller) < locked(larger)


def test_the_test_tools_are_not_needed_for_development() -> None:
    tools = declared(["test"]) - declared([])

    assert tools & locked("dev") == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name
)
def test_a_requirements_file_names_no_package_index(path: Path) -> None:
    text = path.read_text()

    assert "://" not in text
    assert "index-url" not in text
