from collections.abc import Iterator

import pytest

from tests.servers import Totoro, free_port
from upstream import StandIn


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """The real server with its upstream alive, for tests that only ask."""
    with StandIn() as upstream:
        server = Totoro(tmp_path_factory.mktemp("server"), GHIBLI_API_BASE_URL=upstream.url)
        yield server
        server.terminate()


@pytest.fixture(scope="module")
def broken_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """The real server with views that fail, and without its upstream."""
    server = Totoro(
        tmp_path_factory.mktemp("broken"),
        DJANGO_SETTINGS_MODULE="tests.totoro.broken_settings",
        GHIBLI_API_BASE_URL=f"http://127.0.0.1:{free_port()}",
        ACCESS_LOG="on",
    )
    yield server
    server.terminate()
