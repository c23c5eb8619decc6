"""Who may read /metrics."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from totoro.observability import internal_clients

pytestmark = pytest.mark.django_db

# The addresses under which Docker's proxy forwards connections.
BEHIND_DOCKER = ["172.17.0.1", "fd00::1", "::ffff:172.17.0.1"]
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
IPV6_ROUTES = (
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00"
    " fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n"
    "fd000000000000000000000000000000 40 00000000000000000000000000000000 00"
    " 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0\n"
)


@pytest.fixture(autouse=True)
def _routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The routes of a container, whose gateways are 172.17.0.1 and fd00::1."""
    ipv4, ipv6 = tmp_path / "route", tmp_path / "ipv6_route"
    ipv4.write_text(ROUTES)
    ipv6.write_text(IPV6_ROUTES)
    monkeypatch.setattr(internal_clients, "IPV4_ROUTES", ipv4)
    monkeypatch.setattr(internal_clients, "IPV6_ROUTES", ipv6)
    internal_clients.default_gateways.cache_clear()
    yield
    internal_clients.default_gateways.cache_clear()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "172.17.0.2", "192.168.1.2", "fd00::2"]
)
def test_internal_clients_may_read_metrics(api: Client, address: str) -> None:
    response = api.get("/metrics", REMOTE_ADDR=address)

    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response["Cache-Control"] == "no-store"
    assert b"\ntotoro_refreshes_total{" in response.content


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "", "unix:", *BEHIND_DOCKER],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PROPFIND"])
def test_for_all_other_clients_metrics_do_not_exist(api: Client, method: str, address: str) -> None:
    metrics = api.generic(method, "/metrics", REMOTE_ADDR=address)
    unknown = api.generic(method, "/nothing", REMOTE_ADDR=address)

    assert metrics.status_code == unknown.status_code == 404
    assert metrics["Content-Type"] == unknown["Content-Type"] == "application/problem+json"
    assert metrics.headers.keys() == unknown.headers.keys()


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "Origin"])
def test_forwarded_requests_are_not_internal(api: Client, header: str) -> None:
    assert api.get("/metrics", headers={header: "10.0.0.1"}).status_code == 404
