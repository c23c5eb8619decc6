"""Connections, time limits, redirects, TLS and the environment, against a scripted upstream."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from services.exceptions import Reason, UpstreamError
from services.ghibli.client import GhibliClient
from tests.support.fault_proxy import FaultProxy
from tests.support.ghibli_client import (
    CHUNKED_HEAD,
    FILMS_BODY,
    HALF,
    HEAD,
    MIB,
    UNAVAILABLE,
    failure,
    fetch_threads,
)
from tests.support.scripted_upstream import (
    CATALOGUE,
    FILMS,
    Exchange,
    Script,
    ScriptedUpstream,
    chunked,
    film,
    http_response,
    json_response,
    run_concurrently,
    then,
)
from tests.support.servers import ROOT, free_port, wait_until

YEAR_2020, YEAR_2021 = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)


# Names and connections


def test_reports_a_name_that_does_not_resolve(upstream: ScriptedUpstream) -> None:
    assert failure("http://totoro.invalid/").reason == Reason.DNS


def test_a_closed_port_fails_within_a_second() -> None:
    start = time.monotonic()

    assert failure(f"http://127.0.0.1:{free_port()}/").reason == Reason.REFUSED
    assert time.monotonic() - start < 1


class StalledResolver:
    """A getaddrinfo that returns the addresses of one name only after `released` is set."""

    NAME = "stalled.test"

    def __init__(self) -> None:
        self.calls = 0
        self.released = threading.Event()
        self.addresses = ["127.0.0.1"]
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host != self.NAME:
            return self._real(host, *arguments, **options)
        self.calls += 1
        self.released.wait()
        lists = (self._real(address, *arguments, **options) for address in self.addresses)
        return [entry for entries in lists for entry in entries]

    def url(self, upstream: ScriptedUpstream) -> str:
        return upstream.url.replace("127.0.0.1", self.NAME)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[StalledResolver]:
    resolver = StalledResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.released.set()
    wait_until(lambda: not fetch_threads(), what="all threads end")


def test_a_stalled_dns_lookup_does_not_extend_the_deadline(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    failed = timed_failure(resolver.url(upstream), deadline=0.2)

    assert failed.reason == Reason.DEADLINE
    assert failed.seconds < 1


def test_a_stalled_dns_lookup_is_not_repeated_by_later_fetches(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    client = GhibliClient(resolver.url(upstream), deadline=0.1)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            client.fetch()

    assert resolver.calls == 1


def test_a_fetch_succeeds_once_the_dns_lookup_returns(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    client = GhibliClient(resolver.url(upstream), deadline=5)
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(client.fetch()))
    thread.start()
    wait_until(lambda: resolver.calls == 1)
    resolver.released.set()
    thread.join()

    assert outcomes[0].films == CATALOGUE.films


def test_a_stalled_dns_lookup_does_not_delay_the_exit_of_the_process() -> None:
    program = """
import socket, threading
from services.exceptions import UpstreamError
from services.ghibli.client import GhibliClient
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    GhibliClient("http://stalled.test/", deadline=0.1).fetch()
except UpstreamError as error:
    print(error.reason)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=10, stdout=subprocess.PIPE, check=True
    )

    assert process.stdout == b"deadline\n"


def test_tries_the_next_address_when_one_refuses(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    resolver.addresses = ["::1", "127.0.0.1"]
    resolver.released.set()

    assert GhibliClient(resolver.url(upstream)).fetch().films == CATALOGUE.films


def test_looks_the_name_up_again_for_new_connections(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    resolver.released.set()
    client = GhibliClient(resolver.url(upstream))
    client.fetch()
    calls = resolver.calls
    upstream.hang_up()
    wait_until(lambda: upstream.open_connections() == 0)
    client.fetch()

    assert resolver.calls > calls


def test_sends_no_request_after_the_deadline(
    upstream: ScriptedUpstream, resolver: StalledResolver
) -> None:
    timed_failure(resolver.url(upstream), deadline=0.1)
    resolver.released.set()
    wait_until(lambda: not fetch_threads(), what="all threads end")

    assert upstream.requests == []


def test_reuses_connections_for_the_next_fetch(upstream: ScriptedUpstream) -> None:
    client = GhibliClient(upstream.url)
    for _ in range(3):
        client.fetch()

    assert upstream.count("films") == 3
    assert upstream.connections <= 2


def test_replaces_idle_connections_that_the_upstream_has_closed(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)
    client.fetch()
    connections = upstream.connections
    upstream.hang_up()
    wait_until(lambda: upstream.open_connections() == 0)

    assert client.fetch().films == CATALOGUE.films
    assert (upstream.count("films"), upstream.count("people")) == (2, 2)
    assert upstream.connections > connections


def test_ignores_surplus_bytes_on_an_idle_connection(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)
    upstream.films = FILMS + json_response([film(title="Smuggled")])
    client.fetch()
    upstream.films = FILMS

    assert client.fetch().films == CATALOGUE.films


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize(
    "films",
    [
        UNAVAILABLE,
        then(HALF, Exchange.reset),
        then(HALF, Exchange.stall),
        b"hello\r\n\r\n",
        http_response(b"<html>"),
        http_response(b"<html>", Content_Type="text/html"),
        http_response(b"", "301 Moved Permanently", Location="/films"),
        then(CHUNKED_HEAD, lambda it: it.send_repeatedly(chunked(b" " * MIB))),
    ],
)
def test_failed_fetches_leave_no_connections_open(
    upstream: ScriptedUpstream, films: Script
) -> None:
    before = open_files()
    upstream.films = upstream.people = films
    client = GhibliClient(upstream.url, deadline=0.2)
    for _ in range(10):
        with pytest.raises(UpstreamError):
            client.fetch()

    # The upstream notices late that the client has closed a connection.
    wait_until(lambda: open_files() <= before + 4, seconds=2, what="connections are closed")


# Time limits


@dataclass
class TimedFailure:
    reason: Reason
    seconds: float


def timed_failure(url: str, **options: Any) -> TimedFailure:
    """Return why and when a fetch fails, without waiting for its threads."""
    client = GhibliClient(url, **options)
    start = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        client.fetch()
    return TimedFailure(caught.value.reason, time.monotonic() - start)


@pytest.fixture(scope="module")
def failures() -> dict[str, TimedFailure]:
    """Fetches with the time limits of production. All run at once: in turn they take a minute."""
    resolver = StalledResolver()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(socket, "getaddrinfo", resolver)
        stack.callback(resolver.released.set)
        silent = stack.enter_context(ScriptedUpstream(films=Exchange.stall))
        half = stack.enter_context(ScriptedUpstream(films=then(HALF, Exchange.stall)))
        slow_head = stack.enter_context(ScriptedUpstream(films=lambda it: it.drip(FILMS, pause=1)))
        slow_body = stack.enter_context(
            ScriptedUpstream(films=then(HEAD, lambda it: it.drip(FILMS_BODY, pause=1)))
        )
        proxy = stack.enter_context(FaultProxy(0))
        proxy.ignore_syn()
        urls = {
            "stalled resolver": resolver.url(silent),
            "ignored SYN": f"http://127.0.0.1:{proxy.port}/",
            "silence": silent.url,
            "silent handshake": silent.url.replace("http:", "https:"),
            "half a body": half.url,
            "slow head": slow_head.url,
            "slow body": slow_body.url,
        }
        outcomes = run_concurrently(*[partial(timed_failure, url) for url in urls.values()])
    wait_until(lambda: not fetch_threads(), what="all threads end")
    return dict(zip(urls, outcomes, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason", "seconds"),
    [
        ("stalled resolver", Reason.DNS, 5),
        ("ignored SYN", Reason.CONNECT_TIMEOUT, 2),
        ("silent handshake", Reason.READ_TIMEOUT, 2),
        ("silence", Reason.READ_TIMEOUT, 5),
        ("half a body", Reason.READ_TIMEOUT, 5),
        ("slow head", Reason.DEADLINE, 20),
        ("slow body", Reason.DEADLINE, 20),
    ],
)
def test_each_kind_of_waiting_has_its_time_limit(
    failures: dict[str, TimedFailure], fault: str, reason: Reason, seconds: float
) -> None:
    assert failures[fault].reason == reason
    assert seconds <= failures[fault].seconds < seconds + 1


# Redirects


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "308 Permanent Redirect"])
def test_does_not_follow_a_redirect_to_another_host(
    upstream: ScriptedUpstream, status: str
) -> None:
    with ScriptedUpstream() as other:
        upstream.films = http_response(b"", status, Location=f"{other.url}films")

        assert failure(upstream.url).reason == Reason.REDIRECT
        assert (upstream.count("films"), other.connections) == (1, 0)


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest/meta-data/", "/films", "http://[", "\xff", None]
)
def test_does_not_follow_a_redirect_whatever_its_location(
    upstream: ScriptedUpstream, location: str
) -> None:
    upstream.films = http_response(b"", "301 Moved Permanently", Location=location)

    assert failure(upstream.url).reason == Reason.REDIRECT
    assert upstream.count("films") == 1


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make requests trust the authority."""
    bundle = str(tmp_path / "authority.pem")
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", bundle)


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root = trustme.CA()
    with root.cert_pem.tempfile() as certificate, root.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


@pytest.mark.usefixtures("_trusted")
def test_accepts_a_certificate_of_a_trusted_authority(authority: trustme.CA) -> None:
    with ScriptedUpstream(tls=tls(authority.issue_cert("127.0.0.1"))) as upstream:
        client = GhibliClient(upstream.url)
        client.fetch()

        assert client.fetch().films == CATALOGUE.films
        assert upstream.connections <= 2


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize(
    "context",
    [
        lambda _: self_signed(),
        lambda _: tls(trustme.CA().issue_cert("127.0.0.1")),
        lambda authority: tls(
            authority.issue_cert("127.0.0.1", not_before=YEAR_2020, not_after=YEAR_2021)
        ),
        lambda authority: tls(authority.issue_cert("ghibliapi.test")),
    ],
    ids=["self-signed", "unknown authority", "expired", "wrong name"],
)
def test_rejects_invalid_certificates(
    authority: trustme.CA,
    context: Callable[[trustme.CA], ssl.SSLContext],
) -> None:
    with ScriptedUpstream(tls=context(authority)) as upstream:
        assert failure(upstream.url).reason == Reason.TLS
        assert upstream.requests == []
        assert upstream.connections <= 2


@pytest.mark.usefixtures("_trusted")
def test_the_deadline_ends_slow_responses_over_tls(authority: trustme.CA) -> None:
    context = tls(authority.issue_cert("127.0.0.1"))
    with ScriptedUpstream(films=lambda it: it.drip(FILMS), tls=context) as upstream:
        start = time.monotonic()

        assert failure(upstream.url, deadline=0.4).reason == Reason.DEADLINE
        assert time.monotonic() - start < 2


def test_rejects_plain_http_on_a_tls_port() -> None:
    def send_plain_http(connection: socket.socket) -> None:
        connection.sendall(http_response(b"", "400 Bad Request"))

    with ScriptedUpstream(opening=send_plain_http) as upstream:
        assert failure(upstream.url.replace("http:", "https:")).reason == Reason.TLS


# The environment and cookies


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_does_not_use_a_proxy_from_the_environment(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for no_proxy in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(no_proxy, raising=False)
    with ScriptedUpstream() as proxy:
        monkeypatch.setenv(name, proxy.url)

        assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films
        assert proxy.connections == 0


def test_does_not_send_passwords_from_netrc(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login totoro password acorn\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    GhibliClient(upstream.url).fetch()

    assert not any("authorization" in request.headers for request in upstream.requests)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_does_not_trust_a_certificate_bundle_from_the_environment(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv(name, str(tmp_path / "authority.pem"))

    with ScriptedUpstream(tls=tls(authority.issue_cert("127.0.0.1"))) as upstream:
        assert failure(upstream.url).reason == Reason.TLS


def test_does_not_send_cookies_back(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(FILMS_BODY, Set_Cookie="acorn=1; Path=/")
    client = GhibliClient(upstream.url)
    for _ in range(2):
        client.fetch()

    assert not any("cookie" in request.headers for request in upstream.requests)
