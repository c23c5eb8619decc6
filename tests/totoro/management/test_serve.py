"""`manage.py serve`: how it starts and stops."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import TIMEOUT_SECONDS, Totoro, clean_environment, manage, wait_until

PRODUCTION = {**clean_environment(), "DJANGO_SECRET_KEY": "only-for-this-test"}


def test_a_port_in_use_stops_the_start_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        process = manage("serve", environment={**PRODUCTION, "PORT": port}, check=False)

    assert process.returncode == 1
    assert process.stderr.startswith(f"CommandError: PORT = {port}: Address already in use")
    assert process.stderr.count("\n") == 1


def test_a_second_server_on_the_same_port_stops(server: Totoro) -> None:
    environment = {**PRODUCTION, "PORT": str(server.port)}

    process = manage("serve", environment=environment, check=False)

    assert process.returncode == 1
    assert server.get("/livez").status_code == 200


@pytest.mark.parametrize("processes", [1, 2])
def test_stops_on_sigterm(tmp_path: Path, processes: int) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, WEB_CONCURRENCY=processes)
        server.get("/movies/")

        assert server.terminate() == 0
    assert len(server.events("worker_started")) == processes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("attempt", range(3))  # a race: it used to hang in half of the cases
def test_stops_at_once_when_workers_get_the_signal_too(
    tmp_path: Path, number: int, attempt: int
) -> None:
    """As with Ctrl-C in a terminal, or systemd's SIGTERM to all processes of a service."""
    server = Totoro(tmp_path, WEB_CONCURRENCY=2)
    workers, started = server.workers, time.monotonic()
    try:
        for pid in [server.pid, *workers]:
            with suppress(ProcessLookupError):  # the server may have stopped it already
                os.kill(pid, number)

        assert server.process.wait(40) == 0
        assert time.monotonic() - started < 10  # granian would wait for half a minute
    finally:
        server.kill()


def test_stops_without_an_error_if_workers_have_stopped_first(tmp_path: Path) -> None:
    """On a busy machine they may be faster when all get the signal."""
    server = Totoro(tmp_path, WEB_CONCURRENCY=2)
    workers = server.workers
    try:
        server.send_signal(signal.SIGSTOP)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not server.workers, what="they have stopped")
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)

        # Not terminate(): while Python ends, a second SIGTERM would kill it.
        assert server.process.wait(TIMEOUT_SECONDS) == 0
    finally:
        server.kill()


@pytest.mark.slow
def test_a_worker_stops_on_sigterm_while_it_starts(tmp_path: Path) -> None:
    server = Totoro(tmp_path)
    try:
        [killed] = server.workers
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server.workers not in ([], [killed]))
        started = time.monotonic()

        assert server.terminate() == 0
        assert time.monotonic() - started < 10  # granian would wait for half a minute
    finally:
        server.kill()
