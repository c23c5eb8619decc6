"""A pytest plugin that skips tests when they start a process, such as a server, which takes time."""

import sys
from collections.abc import Generator

import pytest

EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}
running = False


def skip_test(event: str, arguments: tuple[object, ...]) -> None:
    if running and event in EVENTS:
        pytest.skip("starts a process")


def pytest_configure() -> None:
    sys.addaudithook(skip_test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    global running
    running = True  # what pytest-xdist starts outside of tests is needed
    try:
        return (yield)
    finally:
        running = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of PostgreSQL: it would start in the set-up of all tests with a database."""
    items[:] = [item for item in items if not uses_postgresql(item)]


def uses_postgresql(item: pytest.Item) -> bool:
    markers = item.iter_markers("django_db")
    return any("postgres" in marker.kwargs.get("databases", ()) for marker in markers)
