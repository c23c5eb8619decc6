"""Requests wait in a real server, beside hits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from benchmarks.load import BenchmarkError
from benchmarks.names import TOTORO_WAITING
from benchmarks.process_tree import tree
from benchmarks.server import Server
from benchmarks.waiting import WAITING, WAITING_SETTINGS, number_waiting, waiting_requests
from fake_ghibli import FakeGhibli
from services.movies import FREE_THREADS
from tests.support.processes import proc
from tests.support.servers import Totoro, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with FakeGhibli() as upstream:
        totoro = Totoro(
            tmp_path, migrate=True, GHIBLI_API_BASE_URL=upstream.url, **WAITING_SETTINGS
        )
        yield Server(TOTORO_WAITING, totoro.url, [totoro.pid])
        totoro.terminate()


def threads(server: Server) -> int:
    _, worker = tree(server.pids[0])
    return len(list((proc(worker) / "task").iterdir()))


def test_as_many_requests_wait_as_may_wait_for_a_refresh() -> None:
    assert WAITING == settings.REQUEST_THREADS - FREE_THREADS
    assert str(WAITING) in TOTORO_WAITING


def test_hits_are_served_while_requests_wait_in_threads_of_the_pool(server: Server) -> None:
    server.get("/movies/")

    with waiting_requests(server):
        assert threads(server) > WAITING
        assert server.get("/movies/").header("Cache-Status").startswith("totoro; hit")


def test_requests_that_have_not_waited_until_the_end_are_an_error(server: Server) -> None:
    def end_early() -> None:
        with waiting_requests(server):
            server.get("/continue")
            wait_until(lambda: number_waiting(server) == 0)

    with pytest.raises(BenchmarkError, match="only 0 requests"):
        end_early()
