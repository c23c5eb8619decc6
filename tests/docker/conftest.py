"""`make docker-test`: real containers, and a report of what was measured."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.stack import Stack
from tests.support.servers import ROOT

REPORT = ROOT / "var" / "docker-test" / "report.md"

Measure = Callable[[str, object], None]


@pytest.fixture(scope="session")
def created(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        tmp_path_factory.mktemp("stack"),
        GHIBLI_API_BASE_URL="http://fake-ghibli:3900/",
        THROTTLE_RATE="off",
    )
    stack.remove()  # what a run that was killed left
    try:
        stack.create()
        yield stack
    finally:
        if not os.environ.get("KEEP"):
            stack.remove()


@pytest.fixture
def stack(created: Stack) -> Stack:
    """The stack in its normal state, which the test may disturb."""
    created.start(web=1)
    return created


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Print a measured value at once, and put it into the report."""

    def record(name: str, value: object) -> None:
        request.node.user_properties.append((name, value))
        print(f"\n    {name}: {value}", end="", flush=True)

    return record


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("docker")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" or outcome != "passed"
    ]
    rows = [
        f"| {report.nodeid.split('::')[-1].removeprefix('test_').replace('_', ' ')} | {report.outcome} |"
        f" {report.duration:.0f} | {'; '.join(f'{name}: {value}' for name, value in report.user_properties)} |"
        for report in sorted(reports, key=lambda report: report.start)
    ]
    if not any("docker" in report.keywords for report in reports):
        return
    head = ["| test | outcome | seconds | measured |", "| --- | --- | --- | --- |"]
    text = "\n".join([f"# make docker-test, {time.strftime('%Y-%m-%d %H:%M')}", "", *head, *rows])
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text + "\n")
    terminalreporter.write_line(text)
