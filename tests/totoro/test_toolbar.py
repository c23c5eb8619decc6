"""What the Dev configuration adds, and that it does not affect the API."""

import re
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Totoro, clean_environment, manage

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TOOLBAR = 'id="djDebug"'


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path_factory.mktemp("dev"),
            DJANGO_CONFIGURATION="Dev",
            GHIBLI_API_BASE_URL=upstream.url,
        )
        yield server
        server.terminate()


@pytest.mark.parametrize("path", ["/", "/redoc/"])
def test_shows_the_toolbar_on_a_page(dev: Totoro, path: str) -> None:
    html = dev.get(path, headers=BROWSER).text

    assert TOOLBAR in html
    assert "debug_toolbar/js/toolbar.js" in html


def test_opens_a_panel(dev: Totoro) -> None:
    html = dev.get("/", headers=BROWSER).text
    found = re.search('data-request-id="([0-9a-f]+)"', html)
    assert found
    panel = {"request_id": found[1], "panel_id": "HeadersPanel"}

    response = dev.get("/__debug__/render_panel/", params=panel)

    assert response.status_code == 200
    assert "Accept" in response.json()["content"]


def test_serves_the_files_of_the_toolbar(dev: Totoro) -> None:
    response = dev.get("/static/debug_toolbar/js/toolbar.js")

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize("path", ["/movies/", "/movies/none/", "/none/", "/livez"])
def test_never_shows_the_toolbar_in_the_api(dev: Totoro, path: str) -> None:
    response = dev.get(path)

    assert response.headers["Content-Type"] in ("application/json", "application/problem+json")
    assert TOOLBAR not in response.text
    assert "Set-Cookie" not in response.headers
    assert not [name for name in response.headers if name.lower().startswith("djdt")]


def test_shows_no_toolbar_to_another_machine(dev: Totoro) -> None:
    elsewhere = HTTPConnection("127.0.0.1", dev.port, source_address=("127.0.0.2", 0))
    elsewhere.request("GET", "/", headers=BROWSER)
    response = elsewhere.getresponse()

    assert response.status == 200
    assert TOOLBAR.encode() not in response.read()
    elsewhere.close()


def test_shows_no_toolbar_in_the_openapi_document(dev: Totoro) -> None:
    assert TOOLBAR not in dev.get("/", headers={"Accept": "application/json"}).text


def test_production_has_no_toolbar(server: Totoro) -> None:
    assert TOOLBAR not in server.get("/", headers=BROWSER).text
    assert server.get("/__debug__/render_panel/").status_code == 404


def test_an_error_is_a_problem_in_dev_too(dev: Totoro) -> None:
    response = dev.get("/none/", headers=BROWSER)

    assert response.headers["Content-Type"] == "application/problem+json"


def test_dev_has_the_commands_of_django_extensions() -> None:
    environment = clean_environment() | {"DJANGO_CONFIGURATION": "Dev"}

    commands = manage("help", "--commands", environment=environment).stdout.split()

    assert {"shell_plus", "runserver_plus", "show_urls"} <= set(commands)


def test_dev_logs_plain_text(dev: Totoro) -> None:
    started = next(line for line in dev.log.read_text().splitlines() if "worker_started" in line)

    assert not started.startswith("{")
    # Colours are for terminals only.
    assert "\x1b" not in started
