"""The checklists of SECURITY.md: each row names files and tests that exist."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.urls import get_resolver, resolve

from tests.support.documents import README, first_cells, read
from tests.support.servers import ROOT

API_RISKS = "OWASP API Security Top 10 2023"
DOCKER_RULES = "OWASP Docker Security Cheat Sheet"
CHECKLISTS = {
    API_RISKS: [f"API{number}" for number in range(1, 11)],
    DOCKER_RULES: [f"RULE #{number}" for number in range(14)],
}
COMPOSE = {file.name: file.read_text() for file in sorted(ROOT.glob("docker-compose*.yml"))}
# Rights that Compose can give to a container beyond Docker's defaults.
RIGHTS = (
    r"privileged|docker\.sock|unconfined|seccomp|apparmor|label[:=]disable|cap_add|devices|cgroup_parent"
    r"|(network_mode|userns_mode|pid|ipc|uts):"
)

every_compose_file = pytest.mark.parametrize("name", COMPOSE)


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


@every_compose_file
def test_no_container_gets_more_than_docker_gives_by_default(name: str) -> None:
    assert re.findall(RIGHTS, COMPOSE[name]) == []


@every_compose_file
def test_files_are_mounted_read_only(name: str) -> None:
    mounts = re.findall(r"^ +- (\./.*)$", COMPOSE[name], re.MULTILINE)

    assert [mount for mount in mounts if not mount.endswith(":ro")] == []


@every_compose_file
def test_no_port_below_1024_is_published_by_default(name: str) -> None:
    # Like "127.0.0.1:${GRAFANA_PORT:-3000}:3000".
    defaults = re.findall(r'ports: \["[^"]*?([0-9]+)\}?:[0-9]+"', COMPOSE[name])

    assert len(defaults) == COMPOSE[name].count("ports:")
    assert [port for port in defaults if int(port) < 1024] == []


def test_nothing_configures_the_docker_daemon() -> None:
    files = [file for folder in ("deploy", "scripts") for file in (ROOT / folder).rglob("*.*")]
    texts = [*COMPOSE.values(), read("Makefile"), *map(Path.read_text, files)]

    assert not any(re.search(r"\bdockerd\b|daemon\.json|--log-level", text) for text in texts)


def test_base_images_take_fixes_when_they_are_pulled() -> None:
    """They name a release, not one of its patches, nor `latest`, which would change the release."""
    named = re.findall(r"^FROM (\S+:\S+)", read("Dockerfile"), re.MULTILINE)
    named += re.findall(r"image: ((?:nginx|redis|postgres):\S+)", COMPOSE["docker-compose.yml"])

    assert len(named) >= 3
    for image in named:
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)?-(slim|alpine)", image)
        assert image.startswith(("redis", "postgres")) or image.count(".") == 1


def test_the_makefile_installs_locked_packages_only() -> None:
    # What only computes the locks is pinned or new.
    lines = read("Makefile").replace("\\\n", "").splitlines()
    installs = [line for line in lines if re.search(r"pip install|-m pip", line)]
    unlocked = [line for line in installs if "--require-hashes" not in line]

    assert len(installs) > len(unlocked)
    assert all("poetry" in line or "pip-tools" in line for line in unlocked)
