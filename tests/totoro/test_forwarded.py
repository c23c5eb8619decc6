"""The client's address, scheme and prefix behind proxies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory
from django.urls import clear_script_prefix
from pytest_django.fixtures import Settings
from werkzeug.test import Client, TestResponse

from fake_ghibli import FakeGhibli
from movies.http.throttling import count_request
from tests.support.servers import ROOT, clean_environment
from totoro.forwarded import FORWARDED, TrustedProxies

PEER = "10.0.0.9"


def environ_of(proxies: int, **headers: str) -> dict[str, Any]:
    """Return the environ that the application gets."""
    found: dict[str, Any] = {}
    environ = RequestFactory().get("/movies/", REMOTE_ADDR=PEER, headers=headers).environ
    application = TrustedProxies(lambda environ, _: found.update(environ) or [], proxies)
    assert list(application(environ, lambda *_: lambda _: None)) == []
    return found


def address(proxies: int, header: str) -> str:
    remote_address: str = environ_of(proxies, **{"X-Forwarded-For": header})["REMOTE_ADDR"]
    return remote_address


ALL_HEADERS = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/ghibli",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Server": "evil.example",
}


def test_ignores_and_removes_all_headers_without_a_trusted_proxy() -> None:
    plain, found = environ_of(0), environ_of(0, **ALL_HEADERS)

    assert found.pop(FORWARDED) is True
    different = {name for name in found if found[name] != plain.get(name)}
    assert different <= {"wsgi.input", "wsgi.errors"}
    assert found.keys() == plain.keys()


def test_applies_the_headers_of_a_trusted_proxy() -> None:
    found = environ_of(1, **ALL_HEADERS)

    assert found["REMOTE_ADDR"] == "192.0.2.1"
    assert found["wsgi.url_scheme"] == "https"
    assert found["SCRIPT_NAME"] == "/ghibli"
    assert found["PATH_INFO"] == "/movies/"
    assert found["HTTP_HOST" if "HTTP_HOST" in found else "SERVER_NAME"] == "testserver"
    assert not any(name.startswith("HTTP_X_FORWARDED") for name in found)
    assert found[FORWARDED] is True


@pytest.mark.parametrize("proxies", [0, 1])
def test_does_not_change_a_request_without_such_headers(proxies: int) -> None:
    found = environ_of(proxies, Accept="text/html")

    assert FORWARDED not in found
    assert found["REMOTE_ADDR"] == PEER
    assert found["wsgi.url_scheme"] == "http"
    assert found["SCRIPT_NAME"] == ""
    assert found["HTTP_ACCEPT"] == "text/html"


@pytest.mark.parametrize(
    ("proxies", "header", "expected"),
    [
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6,192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6, not an address, 192.0.2.1", "192.0.2.1"),
        (2, "192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (2, "6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (1, "2001:DB8:0::1", "2001:db8::1"),
        (1, " 192.0.2.1 ", "192.0.2.1"),
        # No address that a trusted proxy would send.
        (2, "192.0.2.1", PEER),
        (1, "", PEER),
        (2, ",192.0.2.1", PEER),
        (1, "192.0.2.1,", PEER),
        (1, "unknown", PEER),
        (1, "_hidden", PEER),
        (1, "192.0.2", PEER),
        (1, "192.0.2.1:443", PEER),
        (1, "[2001:db8::1]", PEER),
        (1, "fe80::1%evil", PEER),
        (1, "192.0.2.1 6.6.6.6", PEER),
        (1, "\uff11.2.3.4", PEER),
    ],
)
def test_counts_the_clients_address_from_the_right(
    proxies: int, header: str, expected: str
) -> None:
    assert address(proxies, header) == expected


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("javascript", "http"),
        ("", "http"),
        ("https,http", "http"),
        ("https ", "http"),
    ],
)
def test_accepts_only_http_and_https_as_scheme(header: str, scheme: str) -> None:
    assert environ_of(1, **{"X-Forwarded-Proto": header})["wsgi.url_scheme"] == scheme


@pytest.mark.parametrize(
    ("header", "script"),
    [
        ("/ghibli", "/ghibli"),
        ("/ghibli/", "/ghibli"),
        ("/a/b-c_d~e.f", "/a/b-c_d~e.f"),
        ("/", ""),
        ("", ""),
        ("ghibli", ""),
        ("//evil.example", ""),
        ("/a//b", ""),
        ("/a/../b", ""),
        ("/./a", ""),
        ("/a/%2e%2e", ""),
        ("/a?b", ""),
        ("/a#b", ""),
        ("/a b", ""),
        ("/a, /b", ""),
        ('/"onload=', ""),
        ("https://evil.example/a", ""),
    ],
)
def test_accepts_only_a_safe_path_as_prefix(header: str, script: str) -> None:
    assert environ_of(1, **{"X-Forwarded-Prefix": header})["SCRIPT_NAME"] == script


def test_10_000_invented_addresses_are_one_client(settings: Settings) -> None:
    settings.THROTTLE_RATE = (60, 60)
    allowed = 0

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        nonlocal allowed
        status = count_request(environ)
        assert status
        allowed += status.is_allowed
        return []

    direct, behind = TrustedProxies(application, 0), TrustedProxies(application, 1)
    for i in range(10_000):
        header = f"10.{i // 256}.{i % 256}.1"
        direct({"REMOTE_ADDR": PEER, "HTTP_X_FORWARDED_FOR": header}, lambda *_: lambda _: None)
    assert allowed == 60
    for i in range(10_000):
        header = f"10.{i // 256}.{i % 256}.1, 192.0.2.1"
        behind({"REMOTE_ADDR": PEER, "HTTP_X_FORWARDED_FOR": header}, lambda *_: lambda _: None)
    assert allowed == 120


# Totoro behind a proxy


@pytest.fixture
def behind() -> Iterator[Client]:
    yield Client(TrustedProxies(get_wsgi_application(), 1))
    clear_script_prefix()


def get(client: Client, path: str, **headers: str) -> TestResponse:
    return client.get(path, base_url="http://testserver", headers=headers)


PUBLIC = {
    "X-Forwarded-For": "8.8.8.8",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/ghibli",
}


@pytest.mark.django_db(transaction=True)
def test_links_point_to_the_proxy(behind: Client, upstream: FakeGhibli) -> None:
    response = get(behind, "/movies/?limit=2", **PUBLIC)

    assert response.status_code == 200
    assert response.json
    after = urlsplit(response.json["pagination"]["next"])
    assert after[:3] == ("https", "testserver", "/ghibli/movies/")
    assert "<https://testserver/ghibli/movies/?" in response.headers["Link"]


@pytest.mark.django_db(transaction=True)
def test_the_document_has_the_base_path_of_the_proxy(behind: Client) -> None:
    document = get(behind, "/swagger.json", **PUBLIC).json

    assert document
    assert document["basePath"].rstrip("/") == "/ghibli"
    assert "/movies/" in document["paths"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("proxies", [0, 1])
def test_forwarded_requests_get_no_metrics(proxies: int) -> None:
    client = Client(TrustedProxies(get_wsgi_application(), proxies))
    internal = {"REMOTE_ADDR": "127.0.0.1"}

    assert client.get("/metrics", environ_base=internal).status_code == 200
    for header in ("8.8.8.8", "127.0.0.1", ""):
        headers = {"X-Forwarded-For": header}
        assert client.get("/metrics", environ_base=internal, headers=headers).status_code == 404


SERVED_APPLICATION = """
import json
from totoro.wsgi import application
from services.rate_limit import rate_limiter
print(json.dumps([type(application).__name__, application._proxies, rate_limiter.cache_info().currsize]))
"""


def test_the_served_application_applies_trusted_proxies() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SERVED_APPLICATION],
        cwd=ROOT,
        env={**clean_environment(), "DJANGO_CONFIGURATION": "Dev", "TRUSTED_PROXIES": "2"},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert json.loads(process.stdout) == ["TrustedProxies", 2, 1]
