"""The rooms of the code: lines further down import only lines further up."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.servers import ROOT

CODE = [
    file.relative_to(ROOT)
    for room in ("services", "movies", "totoro", "fake_ghibli")
    for file in sorted((ROOT / room).rglob("*.py"))
] + [Path("manage.py")]

# From the ground up.
SERVICES = [
    "exceptions",
    "clock",
    "metrics",
    "background",
    "redis_connection",
    "models",
    "catalogue",
    "persistence",
    "ghibli",
    "rate_limit",
    "freshness",
    "movies",
]
# Django finds these by their names, and nothing imports them.
FOUND_BY_NAME = {"management", "migrations"}

FORBIDDEN = {
    "services": {"rest_framework", "drf_yasg", "django.http", "movies", "totoro", "fake_ghibli"},
    "movies": {"totoro", "fake_ghibli"},
    "totoro": {"fake_ghibli"},
    "fake_ghibli": {"django", "rest_framework", "movies", "totoro"},
}

ONLY_IN = {
    "requests": ["services/ghibli/"],
    "redis": ["services/redis_connection.py", "services/freshness/redis_store.py"],
    "django_redis": ["services/redis_connection.py"],
    "django.core.cache": [],
    "django.db": ["services/persistence.py", "services/models.py", "services/migrations/", "services/management/"],
    "configurations": ["totoro/settings.py", "totoro/wsgi.py", "manage.py"],
    "sentry_sdk": ["totoro/observability/sentry.py", "totoro/env.py"],
    "tests": [],
    # What reads these runs what it reads.
    "pickle": [],
    "marshal": [],
    "shelve": [],
}  # fmt: skip
# All but settings.py only set what is read by others.
KNOW_THE_ENVIRONMENT = [
    "totoro/__init__.py",
    "totoro/management/commands/serve.py",
    "totoro/settings.py",
]

every_file = pytest.mark.parametrize("file", CODE, ids=str)


def tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


def imports(file: Path) -> Iterator[str]:
    """Full names: `from services import bundled` is services.bundled."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative imports hide which room they lead to"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@every_file
def test_a_room_imports_only_rooms_further_up(file: Path) -> None:
    forbidden = FORBIDDEN.get(file.parts[0], set())

    assert [n for n in imports(file) for package in forbidden if is_of(n, package)] == []


def test_fake_ghibli_imports_only_the_bundled_catalogue_from_services() -> None:
    names = {name for file in CODE if file.parts[0] == "fake_ghibli" for name in imports(file)}

    assert {name for name in names if is_of(name, "services")} == {"services.catalogue.bundled"}


def test_every_service_has_its_place() -> None:
    services = {file.parts[1].removesuffix(".py") for file in CODE if file.parts[0] == "services"}

    assert services - FOUND_BY_NAME == {*SERVICES, "__init__"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_only_services_further_up(service: str) -> None:
    below = {*SERVICES[SERVICES.index(service) :], *FOUND_BY_NAME} - {service}
    files = [
        f for f in CODE if f.parts[0] == "services" and f.parts[1] in (service, f"{service}.py")
    ]

    assert files
    names = [name for file in files for name in imports(file)]
    assert [n for n in names for other in below if is_of(n, f"services.{other}")] == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_of_one_purpose_is_imported_where_that_purpose_lies(package: str) -> None:
    users = {file.as_posix() for file in CODE if any(is_of(n, package) for n in imports(file))}

    places = ONLY_IN[package]
    assert [user for user in users if not user.startswith(tuple(places))] == []
    assert [place for place in places if not any(user.startswith(place) for user in users)] == []


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["project"]["dependencies"], project["dependency-groups"]["dev"]
    declared = {re.split(r"[^a-z0-9-]", name.lower())[0] for group in groups for name in group}
    packages = packages_distributions()
    modules = {name.partition(".")[0] for file in CODE for name in imports(file)}
    used = {package for module in modules for package in packages.get(module, [])}

    assert {package.lower().replace("_", "-") for package in used} - declared == set()


def test_the_environment_is_read_in_one_place() -> None:
    readers = [
        file.as_posix()
        for file in CODE
        if any(
            isinstance(node, ast.Attribute | ast.alias)
            and (node.attr if isinstance(node, ast.Attribute) else node.name)
            in ("environ", "getenv", "environb")
            for node in ast.walk(tree(file))
        )
    ]

    assert sorted(readers) == KNOW_THE_ENVIRONMENT


# Whatever goes wrong in a refresh is a failed refresh, recorded and reported.
MAY_CATCH_ALL: list[str] = []


@every_file
def test_no_error_is_swallowed_without_knowing_which(file: Path) -> None:
    handlers = [node for node in ast.walk(tree(file)) if isinstance(node, ast.ExceptHandler)]

    blind = [h.lineno for h in handlers if catches_all(h) and not hands_it_on(h)]
    assert bool(blind) is (file.as_posix() in MAY_CATCH_ALL)


def catches_all(handler: ast.ExceptHandler) -> bool:
    caught = ast.walk(handler.type) if handler.type else ()
    names = {node.id for node in caught if isinstance(node, ast.Name)}
    return not names or bool(names & {"Exception", "BaseException"})


def hands_it_on(handler: ast.ExceptHandler) -> bool:
    """Raised again, reported to Sentry, or put where another thread waits for it."""
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr in ("set_exception", "exception"))
        for node in ast.walk(handler)
    )
