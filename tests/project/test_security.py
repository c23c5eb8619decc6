"""The checklists of SECURITY.md: each row names files and tests that exist."""

import ast
import re
import subprocess
from functools import cache
from urllib.parse import urlsplit

import pytest
from django.urls import get_resolver, resolve

from tests.support.documents import README, first_cells, read
from tests.support.servers import ROOT

API_RISKS = "OWASP API Security Top 10 2023"
CHECKLISTS = {API_RISKS: [f"API{number}" for number in range(1, 11)]}


def rows(checklist: str) -> dict[str, tuple[list[str], list[str]]]:
    """Return the files and the tests of each row."""
    _, section = read("SECURITY.md").split(f"\n### {checklist}\n")
    cells = re.findall(
        r"^\| (.+?): .*? \| .*? \| (.*?) \| (.*?) \|$", section.split("\n#")[0], re.M
    )
    return {name: (quoted(files), quoted(tests)) for name, files, tests in cells}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


ROWS = {name: row for checklist in CHECKLISTS for name, row in rows(checklist).items()}

every_row = pytest.mark.parametrize("name", ROWS)


@cache
def functions_of(file: str) -> set[str]:
    functions = [
        node for node in ast.walk(ast.parse(read(file))) if isinstance(node, ast.FunctionDef)
    ]
    return {function.name for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize("checklist", CHECKLISTS)
def test_a_checklist_has_every_row(checklist: str) -> None:
    assert list(rows(checklist)) == CHECKLISTS[checklist]


@every_row
def test_the_files_of_a_row_exist(name: str) -> None:
    files, _ = ROWS[name]

    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


@every_row
def test_a_row_has_tests_that_exist(name: str) -> None:
    _, tests = ROWS[name]

    assert tests
    for test in tests:
        file, _, function = test.partition("::")
        assert function in functions_of(file), test


def test_every_address_is_documented() -> None:
    cells = [cell for cell in first_cells(README) if cell.startswith("`/")]
    addresses = [address for cell in cells for address in quoted(cell)]
    documented = {resolve(urlsplit(re.sub("<[a-z]+>", "x", each)).path).route for each in addresses}

    assert {str(pattern.pattern) for pattern in get_resolver().url_patterns} == documented


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository")
def test_git_has_no_file_that_it_ignores() -> None:
    """Secrets, above all."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == ""


def test_no_secret_gets_into_an_image() -> None:
    patterns = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]
    allowed = {pattern[1:] for pattern in patterns if pattern[0] == "!"}

    assert patterns[0] == "*"
    assert not allowed & {".env", ".poetry.env", "secrets/", "var/", ".git/"}
    assert patterns[-1] == "**/.env"
