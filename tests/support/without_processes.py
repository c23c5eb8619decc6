"""A pytest plugin that skips tests when they start a process, such as a server, which takes time."""

import sys

import pytest

EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}


def skip_test(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS:
        pytest.skip("starts a process")


def pytest_configure() -> None:
    sys.addaudithook(skip_test)
