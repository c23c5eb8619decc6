"""Runs management commands, in the process of the test or in one of their own."""

from datetime import timedelta
from io import StringIO

from django.core.management import call_command

from services.persistence import DatabaseStore
from tests.support.fakes import EPOCH, make_snapshot
from tests.support.servers import free_port, manage


def run(name: str, *arguments: str) -> str:
    """Run a command in this process; return its output."""
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def error_line(environment: dict[str, str], *command: str, status: int = 1) -> str:
    """Run a command that fails; return its only line of output."""
    process = manage(*command, environment=environment, check=False)

    assert process.returncode == status
    [line] = without_log_events(process.stderr)
    assert line.startswith("CommandError: ")
    return line.removeprefix("CommandError: ")


def without_log_events(stderr: str) -> list[str]:
    """Return the lines that are not log events."""
    return [line for line in stderr.splitlines() if not line.startswith("{")]


def without_database(environment: dict[str, str]) -> dict[str, str]:
    url = f"postgresql://totoro@127.0.0.1:{free_port()}/totoro"
    return {**environment, "DATABASE_URL": url}


def save_snapshots(*titles: str) -> None:
    for number, title in enumerate(titles):
        DatabaseStore().save(make_snapshot(EPOCH + timedelta(minutes=number), title))
