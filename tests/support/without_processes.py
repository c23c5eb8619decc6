"""A pytest plugin that skips tests when they start a process, such as a server, which takes time."""

import sys

import pytest

EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}


def skip_test(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS:
        pytest.skip("starts a process")


def pytest_configure() -> None:
    sys.addaudithook(skip_test)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of PostgreSQL: it would start in the set-up of all tests with a database."""
    items[:] = [item for item in items if not uses_postgresql(item)]


def uses_postgresql(item: pytest.Item) -> bool:
    markers = item.iter_markers("django_db")
    return any("postgres" in marker.kwargs.get("databases", ()) for marker in markers)
