from collections.abc import Iterator

import pytest

from tests.support.servers import Totoro, free_port


@pytest.fixture(scope="module")
def broken_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """The real server with views that fail, and without its upstream."""
    server = Totoro(
        tmp_path_factory.mktemp("broken"),
        DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
        GHIBLI_API_BASE_URL=f"http://127.0.0.1:{free_port()}",
        ACCESS_LOG="on",
    )
    yield server
    server.terminate()
