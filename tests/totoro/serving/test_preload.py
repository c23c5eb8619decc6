"""What workers load, and what they share."""

import os
import re
import signal
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.processes import needs_fork, proc
from tests.support.servers import HIDDEN_PACKAGES, SPAWNED_WORKERS, Totoro, Valkey, wait_until

MIB = 1024 * 1024

# Each takes memory, and needs Redis, PostgreSQL, a DSN or an invalid OpenAPI document.
NOT_NEEDED = {
    *("redis", "django_redis", "hiredis", "psycopg", "django.contrib.postgres", "sentry_sdk"),
    *("swagger_spec_validator", "jsonschema"),
}


@pytest.mark.parametrize("path", [HIDDEN_PACKAGES, SPAWNED_WORKERS], ids=["fork", "spawn"])
def test_a_worker_loads_only_what_serving_needs(tmp_path: Path, path: object) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path,
            DJANGO_SETTINGS_MODULE="tests.support.settings.inspected",
            GHIBLI_API_BASE_URL=upstream.url,
            PYTHONPATH=path,
        )
        try:
            assert server.get("/movies/").ok
            assert server.get("/swagger.json").ok

            modules = set(server.get("/modules/").json())
            assert {"requests", "sqlite3", "rest_framework"} <= modules
            assert NOT_NEEDED & modules == set()
            assert server.terminate() == 0
        finally:
            server.kill()


@needs_fork
@pytest.mark.parametrize("uses_redis", [False, True], ids=["without Redis", "with Redis"])
def test_workers_share_the_memory_of_what_they_import(
    tmp_path: Path, valkey: Valkey, uses_redis: bool
) -> None:
    server = Totoro(tmp_path, WEB_CONCURRENCY=3, REDIS_URL=valkey.url if uses_redis else "")
    try:
        wait_until(lambda: len(server.workers) == 3)
        # One has responded to the request by which the start was noticed.
        assert (
            sorted(map(own_memory, server.workers))[1] < 18 * MIB
        )  # 12 and 15; 35 if each imports it
    finally:
        server.kill()


def own_memory(pid: int) -> int:
    """Return the memory that a process shares with no other, in bytes."""
    kilobytes = re.findall(r"Private_\w+: +(\d+) kB", (proc(pid) / "smaps_rollup").read_text())
    return 1024 * sum(map(int, kilobytes))


def test_workers_share_no_state(tmp_path: Path) -> None:
    server = Totoro(tmp_path, WEB_CONCURRENCY=2, ACCESS_LOG="on")
    try:
        for _ in range(3):
            for _ in range(20):
                assert server.get("/livez").ok
            # The one that takes its place is forked from the same memory.
            killed = server.workers[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: len({*server.workers} - {killed}) == 2)  # type: ignore[misc]
            wait_until(server._responds)
        requests = server.events("request")
    finally:
        server.kill()

    assert len({request["pid"] for request in requests}) >= 3
    assert len({request["request_id"] for request in requests}) == len(requests)
