"""Behind a proxy that strips a path prefix, links contain the prefix."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Totoro

PREFIX = "/ghibli"
PAGES = ["/", "/redoc/", "/movies/", "/movies/?limit=2", "/problems/", "/problems/not-found/"]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """A server that trusts one proxy."""
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path_factory.mktemp("proxied"), GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1
        )
        yield server
        server.terminate()


def links_of(server: Totoro, page: str, headers: dict[str, str]) -> list[str]:
    response = server.get(page, headers={"Accept": "text/html", **headers})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    found = re.findall(
        r'(?:href|src)="(/[^"]*)"|"specUrl?": "([^"]*)"|"(/[^"]*swagger[^"]*)"', response.text
    )
    links = [link.replace("&amp;", "&") for each in found for link in each if link]
    assert links
    return links


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_has_the_prefix(page: str, proxied: Totoro) -> None:
    # With and without a prefix in turn: neither gets what was stored for the other.
    for headers, prefix in [({}, ""), ({"X-Forwarded-Prefix": PREFIX}, PREFIX)] * 2:
        for link in links_of(proxied, page, headers):
            assert link.startswith(f"{prefix}/")
            assert prefix or not link.startswith(PREFIX)
            assert proxied.get(link.removeprefix(prefix)).status_code == 200


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_the_type_of_a_problem_has_the_prefix(prefix: str, proxied: Totoro) -> None:
    headers = {"X-Forwarded-Prefix": prefix} if prefix else {}
    problem = proxied.get("/movies/nope/", headers=headers).json()

    assert problem["type"] == f"{prefix}/problems/movie-not-found/"
    types = [
        problem_type["type"] for problem_type in proxied.get("/problems/", headers=headers).json()
    ]
    assert f"{prefix}/problems/not-found/" in types
    assert all(link.startswith(f"{prefix}/problems/") for link in types)


def test_ignores_a_prefix_without_a_trusted_proxy(tmp_path: Path) -> None:
    server = Totoro(tmp_path)
    try:
        headers = {"X-Forwarded-Prefix": PREFIX}
        assert server.get("/nope", headers=headers).json()["type"] == "/problems/not-found/"
        assert all(not link.startswith(PREFIX) for link in links_of(server, "/", headers))
    finally:
        server.terminate()
