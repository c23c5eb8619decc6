"""Faults of the real server's processes, connections and open files."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.processes import needs_fork, process_state
from tests.support.servers import (
    HIDDEN_PACKAGES,
    ROOT,
    SPAWNED_WORKERS,
    Totoro,
    clean_environment,
    end,
    free_port,
    manage,
    stored_snapshots,
    wait_until,
)

MIB = 1024 * 1024
HALF_A_REQUEST = b"GET /movies/ HTTP/1.1\r\nHost: loc"
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"

forked_and_spawned = pytest.mark.parametrize(
    "python_path",
    [pytest.param(str(HIDDEN_PACKAGES), marks=needs_fork), SPAWNED_WORKERS],
    ids=["forked", "spawned"],
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")


class LimitedTotoro(Totoro):
    """A server with soft and hard limits of open files."""

    def __init__(self, folder: Path, limits: tuple[int, int], upstream_url: str) -> None:
        self._limits = limits
        super().__init__(folder, GHIBLI_API_BASE_URL=upstream_url)

    def start(self) -> None:
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, self._limits)
        self._options["preexec_fn"] = limit
        super().start()


class DetachedTotoro(Totoro):
    """A server that is started without stdin, stdout and stderr."""

    def start(self) -> None:
        self._options["preexec_fn"] = lambda: os.closerange(0, 3)
        super().start()


@pytest.fixture
def upstream_url() -> Iterator[str]:
    with FakeGhibli() as upstream:
        yield upstream.url


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Raise the limit of open files of the test itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("needs 4,096 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def connections(server: Totoro, number: int, sends: bytes) -> Iterator[None]:
    """Keep connections open that send these bytes, and nothing else."""
    with ExitStack() as stack:
        for _ in range(number):
            opened = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            stack.enter_context(opened).sendall(sends)
        yield


def seconds_for(server: Totoro, path: str = "/movies/") -> float:
    started = time.monotonic()
    assert server.get(path).status_code == 200
    return time.monotonic() - started


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def exchange(server: Totoro, sends: bytes, *, half_closes: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sends)
        if half_closes:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


# Connections


@pytest.mark.slow
@pytest.mark.usefixtures("_many_files")
@needs_proc
def test_responds_while_1200_connections_are_idle_and_1200_send_half_a_request(
    tmp_path: Path, upstream_url: str
) -> None:
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url)
    try:
        server.get("/movies/")
        [worker] = server.workers
        before = resident(worker)
        with connections(server, 1200, REQUEST), connections(server, 1200, HALF_A_REQUEST):
            latencies = sorted(seconds_for(server) for _ in range(100))
            grown = resident(worker) - before
        assert latencies[98] < 1
        assert grown < 128 * MIB
    finally:
        end(server)


@pytest.mark.slow
@pytest.mark.parametrize("sends", [b"", HALF_A_REQUEST, REQUEST], ids=["nothing", "half", "idle"])
def test_closes_connections_without_a_request_after_12_seconds(
    server: Totoro, sends: bytes
) -> None:
    started = time.monotonic()

    exchange(server, sends)

    assert 7 < time.monotonic() - started < 15


@pytest.mark.slow
def test_stops_in_time_while_connections_have_sent_half_a_request(
    tmp_path: Path, upstream_url: str
) -> None:
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url)
    with connections(server, 3, HALF_A_REQUEST):
        seconds_for(server)
        started = time.monotonic()

        assert server.terminate() == 0
    assert time.monotonic() - started < 18  # docker-compose.yml kills it after 35 s


def test_a_client_that_closes_its_sending_side_gets_no_response(server: Totoro) -> None:
    """A known limitation of granian, which does not enable hyper's `half_close`; README mentions it."""
    request = b"GET /movies/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    assert exchange(server, request, half_closes=True) == b""


# Open files


@pytest.mark.slow
def test_raises_a_low_soft_limit_of_open_files(tmp_path: Path, upstream_url: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = LimitedTotoro(tmp_path, (128, hard), upstream_url)
    try:
        with connections(server, 300, HALF_A_REQUEST):
            assert max(seconds_for(server) for _ in range(20)) < 2
    finally:
        end(server)


def test_refuses_to_start_with_too_few_open_files() -> None:
    environment = {**clean_environment(), "DJANGO_SECRET_KEY": "only-for-this-test"}
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (128, 128))

    process = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=ROOT,
        env={**environment, "PORT": str(free_port())},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
    )

    assert process.returncode == 1
    assert process.stderr == (
        "CommandError: the limit of open files is 128: must be at least 1024\n"
    )


@pytest.mark.minutes
@needs_proc
def test_connections_beyond_the_limit_of_open_files_wait_without_using_the_cpu(
    tmp_path: Path, upstream_url: str
) -> None:
    server = LimitedTotoro(tmp_path, (1024, 1024), upstream_url)
    try:
        seconds_for(server)
        [worker] = server.workers
        with connections(server, 1100, HALF_A_REQUEST):
            before = processor_seconds(worker)
            time.sleep(2)  # the time in which CPU use is measured
            assert processor_seconds(worker) - before < 0.5
            assert len(os.listdir(f"/proc/{worker}/fd")) < 1024
            assert seconds_for(server) < 40  # connections get their turn every 12 seconds
        assert "TCP handshake failed" not in server.log.read_text()
    finally:
        end(server)


# Processes


@pytest.mark.slow
@needs_proc
def test_workers_end_when_the_server_is_killed(tmp_path: Path, upstream_url: str) -> None:
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url, WEB_CONCURRENCY=2)
    workers = server.workers
    try:
        seconds_for(server)
        server.process.kill()
        server.process.wait()

        wait_until(
            lambda: not any(process_state(worker) not in ("", "Z") for worker in workers),
            seconds=5,
            what="the workers end",
        )
        server.start()  # on the same port
        assert server.get("/movies/").status_code == 200
    finally:
        end(server)
        for worker in workers:
            if process_state(worker):
                os.kill(worker, signal.SIGKILL)


def metrics_folder(pid: int) -> Path:
    maps = Path(f"/proc/{pid}/maps").read_text().split()
    [folder] = {Path(name).parent for name in maps if "totoro-metrics-" in name}
    return folder


@pytest.mark.slow
@needs_proc
def test_the_metrics_folder_of_a_killed_server_is_removed_by_the_next_start(
    tmp_path: Path, upstream_url: str, server: Totoro
) -> None:
    server.get("/movies/")
    other_folder = metrics_folder(server.workers[0])
    killed = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url)
    killed.get("/movies/")
    abandoned = metrics_folder(killed.workers[0])
    killed.kill()
    assert abandoned.exists()

    killed.start()

    end(killed)
    assert not abandoned.exists()
    assert other_folder.exists()


@pytest.mark.slow
@needs_proc
def test_keeps_serving_when_a_worker_is_killed_repeatedly(
    tmp_path: Path, upstream_url: str
) -> None:
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url)
    try:
        for _ in range(3):
            [worker] = server.workers
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda dead=worker: server.workers not in ([], [dead]))  # type: ignore[misc]
        wait_until(server._responds)

        assert seconds_for(server) < 5
        assert server.terminate() == 0
    finally:
        end(server)


UNLOADABLE = {
    **clean_environment(),
    "DJANGO_SECRET_KEY": "only-for-this-test",
    "DJANGO_SETTINGS_MODULE": "tests.support.settings.unloadable",
}


@needs_fork
def test_exits_before_it_starts_workers_that_cannot_load_the_application() -> None:
    environment = {**UNLOADABLE, "PORT": str(free_port())}

    process = manage("serve", environment=environment, check=False)

    assert process.returncode == 1
    *_, last = process.stderr.splitlines()
    assert last == "ModuleNotFoundError: No module named 'tests.faults.no_such_module'"
    assert process.stdout == ""


@pytest.mark.slow
def test_exits_when_no_worker_can_load_the_application() -> None:
    """Where each worker imports it for itself."""
    environment = {**UNLOADABLE, "PYTHONPATH": SPAWNED_WORKERS, "PORT": str(free_port())}

    process = manage("serve", environment=environment, check=False)

    assert process.returncode == 1
    assert "Worker crash loop detected" in process.stdout


def test_starts_and_stops_without_a_warning(tmp_path: Path) -> None:
    server = Totoro(tmp_path, WEB_CONCURRENCY=2)
    for _ in range(20):
        server.get("/livez")
    server.terminate()
    lines = server.log.read_text().splitlines()

    assert [line for line in lines if json.loads(line)["level"] == "warning"] == []


@forked_and_spawned
@pytest.mark.parametrize("attempt", range(4))
def test_stops_after_several_signals_at_once(
    attempt: int, python_path: str, tmp_path: Path
) -> None:
    server = Totoro(tmp_path, PYTHONPATH=python_path)
    try:
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            server.send_signal(number)
        assert server.process.wait(10) == 0
    finally:
        end(server)


@forked_and_spawned
def test_workers_that_log_before_they_have_started_stop_at_once(
    python_path: str, tmp_path: Path
) -> None:
    server = Totoro(tmp_path, LOG_LEVEL="DEBUG", PYTHONPATH=python_path)
    try:
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 10
    finally:
        end(server)


@needs_proc
@forked_and_spawned
def test_logs_into_no_other_file_without_stdout(
    python_path: str, tmp_path: Path, upstream_url: str
) -> None:
    server = DetachedTotoro(tmp_path, GHIBLI_API_BASE_URL=upstream_url, PYTHONPATH=python_path)
    try:
        assert server.get("/movies/").status_code == 200
        for pid in (server.pid, *server.workers):
            opened = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
            assert opened == [os.devnull] * 3
        assert server.terminate() == 0
    finally:
        end(server)


@pytest.mark.parametrize("first_closed", [0, 1])
def test_a_command_works_without_stdout(
    first_closed: int, tmp_path: Path, upstream_url: str
) -> None:
    environment = {
        **clean_environment(),
        "DJANGO_SECRET_KEY": "only-for-this-test",
        "DATABASE_URL": f"sqlite:///{tmp_path}/totoro.sqlite3",
        "GHIBLI_API_BASE_URL": upstream_url,
    }
    manage("migrate", "--skip-checks", environment=environment)

    process = subprocess.run(
        [sys.executable, "manage.py", "refresh_movies"],
        cwd=ROOT,
        env=environment,
        preexec_fn=lambda: os.closerange(first_closed, 3),
        timeout=60,
        check=False,
    )

    assert process.returncode == 0
    assert stored_snapshots(tmp_path) == 1


# Methods


@pytest.mark.parametrize("method", ["get", "Get", "head", "options"])
@pytest.mark.parametrize(
    "path", ["/", "/redoc/", "/swagger.json", "/movies/", "/problems/", "/livez", "/metrics"]
)
def test_a_method_in_lower_case_is_another_method(server: Totoro, path: str, method: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    head, _, body = exchange(server, request.encode()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET, HEAD, OPTIONS" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert json.loads(body)["detail"] == f'Method "{method.upper()} (CASE-SENSITIVE)" not allowed.'
