"""The probes for operators, at the real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Totoro, Valkey, free_port


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


@pytest.fixture
def server(tmp_path: Path, upstream: FakeGhibli) -> Iterator[Totoro]:
    """A new server, before the first request for movies."""
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url)
    yield server
    server.terminate()


def readiness(server: Totoro) -> tuple[int, dict[str, Any]]:
    response = server.get("/readyz")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, response.json()


def test_a_process_that_responds_is_alive(server: Totoro) -> None:
    response = server.get("/livez")

    assert response.status_code == 200
    assert response.json() == {"alive": True}
    assert response.headers["Cache-Control"] == "no-store"


def test_probes_send_nothing_to_the_ghibli_api(server: Totoro, upstream: FakeGhibli) -> None:
    server.get("/livez")
    server.get("/readyz")

    assert upstream.requests == []


def test_a_new_process_is_ready_without_data(server: Totoro) -> None:
    ready = {"ready": True, "cache": True, "database": True, "fresh": False, "age": None}

    assert readiness(server) == (200, ready)


def test_data_is_fresh_after_the_first_response(server: Totoro) -> None:
    server.get("/movies/")

    status, health = readiness(server)

    assert status == 200
    assert 0 <= health.pop("age") < 10
    assert health == {"ready": True, "cache": True, "database": True, "fresh": True}


def test_is_not_ready_after_a_failed_refresh_without_last_known_good(
    server: Totoro, upstream: FakeGhibli
) -> None:
    upstream.faults.status = 500
    assert server.get("/movies/").status_code == 503

    status, health = readiness(server)

    assert status == 503
    assert health == {
        "ready": False,
        "cache": True,
        "database": True,
        "fresh": False,
        "age": None,
    }
    assert server.get("/livez").status_code == 200


def test_is_ready_without_redis(tmp_path: Path, upstream: FakeGhibli) -> None:
    valkey = Valkey()
    server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, REDIS_URL=valkey.url)
    server.get("/movies/")
    assert readiness(server)[1]["cache"] is True

    valkey.kill()
    status, health = readiness(server)
    server.terminate()

    assert (status, health["ready"], health["cache"]) == (200, True, False)


def test_is_ready_without_a_database(tmp_path: Path, upstream: FakeGhibli) -> None:
    server = Totoro(tmp_path, migrate=False, GHIBLI_API_BASE_URL=upstream.url)
    server.get("/movies/")

    status, health = readiness(server)
    server.terminate()

    assert (status, health["ready"], health["database"]) == (200, True, False)


def test_readyz_exposes_only_booleans_and_an_age(tmp_path: Path) -> None:
    """No address, no version and no reason."""
    server = Totoro(
        tmp_path,
        migrate=False,
        GHIBLI_API_BASE_URL=f"http://127.0.0.1:{free_port()}",
        REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
    )
    server.get("/movies/")

    _, health = readiness(server)
    server.terminate()

    age = health.pop("age")
    assert age is None or isinstance(age, float)
    assert all(isinstance(value, bool) for value in health.values())


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/movies/", "/problems/"])
def test_ignores_the_format_parameter(path: str, server: Totoro) -> None:
    assert server.get(f"{path}?format=xml").status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_may_use_any_host(path: str, server: Totoro) -> None:
    headers = {"Host": "10.1.2.3:8000"}

    assert server.get(path, headers=headers).status_code == 200
    assert server.get("/movies/", headers=headers).status_code == 400
