"""A module imports only from its own layer and those below, and some packages only in one place."""

import ast
import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.servers import ROOT

# From the bottom up.
LAYERS = [
    "services.exceptions",
    "services.clock",
    "services.metrics",
    "services.tracing",
    "services.background",
    "services.redis_connection",
    "services.models",
    "services.migrations",
    "services.catalogue",
    "services.persistence",
    "services.ghibli",
    "services.rate_limit",
    "services.freshness.state",
    "services.freshness.fencing",
    "services.freshness.policy",
    "services.freshness.store",
    "services.freshness.redis_store",
    "services.freshness.process_state",
    "services.freshness.refresh",
    "services.freshness.refresh_thread",
    "services.freshness.health",
    "services.freshness.cache",
    "services.movies",
    "services.management",
    "movies",
    "totoro",
]
# The only files and folders that import a package.
ONLY_IN = {
    "requests": ["services/ghibli/"],
    "redis": ["services/redis_connection.py", "services/freshness/redis_store.py"],
    "django_redis": ["services/redis_connection.py"],
    "django.core.cache": ["totoro/apps.py"],
    "django.db": ["totoro/apps.py", "services/persistence.py", "services/models.py", "services/migrations/", "services/management/"],
    "django.http": ["movies/", "totoro/"],
    "rest_framework": ["movies/", "totoro/"],
    "drf_yasg": ["movies/", "totoro/"],
    "configurations": ["totoro/settings.py", "totoro/wsgi.py", "manage.py"],
    "sentry_sdk": ["totoro/observability/sentry.py", "totoro/env/connections.py"],
    "opentelemetry": ["totoro/observability/tracing.py"],
    "fake_ghibli": ["fake_ghibli/"],
    "benchmarks": [],
    "tests": [],
    # They execute what they read.
    "pickle": [],
    "marshal": [],
    "shelve": [],
}  # fmt: skip
# settings.py reads the environment; the others only set variables.
USE_THE_ENVIRONMENT = [
    "totoro/__init__.py",
    "totoro/management/commands/serve.py",
    "totoro/settings.py",
]

FILES = [
    file.relative_to(ROOT)
    for folder in ("services", "movies", "totoro", "fake_ghibli")
    for file in sorted((ROOT / folder).rglob("*.py"))
] + [Path("manage.py")]
LAYERED = [file for file in FILES if file.parts[0] in ("services", "movies", "totoro")]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


@cache
def imports(file: Path) -> list[str]:
    """Return full names: `from services import metrics` is services.metrics."""
    names = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import hides its layer"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def is_of(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def layer(name: str) -> int | None:
    return next((i for i, package in enumerate(LAYERS) if is_of(name, package)), None)


@pytest.mark.parametrize("file", LAYERED, ids=str)
def test_a_module_imports_only_its_own_layer_and_those_below(file: Path) -> None:
    name = ".".join(file.with_suffix("").parts)
    layers = {imported: layer(imported) for imported in imports(file)}
    imported_layers = {name: number for name, number in layers.items() if number is not None}
    if file.name == "__init__.py" and layer(name) is None:  # of a package with several layers
        assert imported_layers == {}
        return

    own = layer(name)
    assert own is not None, f"{name} is in no layer"
    assert [imported for imported, number in imported_layers.items() if number > own] == []


def test_every_layer_has_a_module() -> None:
    modules = {".".join(file.with_suffix("").parts) for file in LAYERED}

    assert [each for each in LAYERS if not any(is_of(module, each) for module in modules)] == []


def test_fake_ghibli_imports_only_the_bundled_catalogue() -> None:
    names = {name for file in FILES if file.parts[0] == "fake_ghibli" for name in imports(file)}
    packages = ("services", "movies", "totoro", "django", "rest_framework")

    found = {name for name in names if any(is_of(name, package) for package in packages)}
    assert found == {"services.catalogue.bundled"}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    users = {file.as_posix() for file in FILES if any(is_of(n, package) for n in imports(file))}

    places = ONLY_IN[package]
    assert [user for user in users if not user.startswith(tuple(places))] == []
    assert [place for place in places if not any(user.startswith(place) for user in users)] == []


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    groups = project["project"]["dependencies"], project["dependency-groups"]["dev"], *extras
    declared = {re.split(r"[^a-z0-9-]", name.lower())[0] for group in groups for name in group}
    packages = packages_distributions()
    modules = {name.partition(".")[0] for file in FILES for name in imports(file)}
    providers = {
        module: {package.lower().replace("_", "-") for package in packages[module]}
        for module in modules
        if module in packages
    }

    # Several packages provide parts of one module: opentelemetry.
    assert [module for module, names in providers.items() if not names & declared] == []


def test_the_environment_is_read_in_one_place() -> None:
    users = [
        file.as_posix()
        for file in FILES
        if any(
            isinstance(node, ast.Attribute | ast.alias)
            and (node.attr if isinstance(node, ast.Attribute) else node.name)
            in ("environ", "getenv", "environb")
            for node in ast.walk(tree(file))
        )
    ]

    assert sorted(users) == USE_THE_ENVIRONMENT


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_handler_swallows_all_exceptions(file: Path) -> None:
    handlers = [node for node in ast.walk(tree(file)) if isinstance(node, ast.ExceptHandler)]

    assert [h.lineno for h in handlers if catches_all(h) and not passes_on(h)] == []


def catches_all(handler: ast.ExceptHandler) -> bool:
    caught = ast.walk(handler.type) if handler.type else ()
    names = {node.id for node in caught if isinstance(node, ast.Name)}
    return not names or bool(names & {"Exception", "BaseException"})


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Return whether it raises, logs the exception, or passes it to a thread that waits."""
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr in ("set_exception", "exception"))
        for node in ast.walk(handler)
    )
