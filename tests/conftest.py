from collections.abc import Iterator

import pytest
from django.db import connections
from django.test import Client
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli
from services.movies import movie_service
from services.rate_limit import rate_limiter
from tests.support.servers import Postgres, Totoro, Valkey
from tests.support.without_processes import uses_postgresql


@pytest.fixture(autouse=True)
def _new_service() -> Iterator[None]:
    """End the service of each test, so that the next one starts with an empty cache."""
    yield
    restart_service()


def restart_service() -> None:
    if movie_service.cache_info().currsize:
        movie_service().close()
    movie_service.cache_clear()
    rate_limiter.cache_clear()


@pytest.fixture
def upstream(settings: Settings) -> Iterator[FakeGhibli]:
    """The fake Ghibli API that the service under test uses."""
    with FakeGhibli() as upstream:
        settings.GHIBLI_API_BASE_URL = f"{upstream.url}/"
        yield upstream


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """A real server with a working upstream, for tests that only send requests."""
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path_factory.mktemp("server"), GHIBLI_API_BASE_URL=upstream.url)
        yield server
        server.terminate()


@pytest.fixture
def api() -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.terminate()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """A running, empty Valkey."""
    valkey_server.client.flushall()
    return valkey_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Start PostgreSQL and tell Django its port, if one of the selected tests uses it."""
    if any(uses_postgresql(item) for item in request.session.items):
        postgres = connections.databases["postgres"]
        postgres["PORT"] = request.getfixturevalue("postgres_server").port
        # Creating and dropping a database takes longer than the time-outs of requests allow.
        del postgres["OPTIONS"]["options"]
