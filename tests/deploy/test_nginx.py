"""nginx with the configuration of Docker Compose, in front of a real Totoro."""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from fake_ghibli import FakeGhibli
from tests.support.nginx import (
    FOLDER,
    NGINX,
    NameServer,
    Nginx,
    Recorder,
    derived_settings,
    serving,
)
from tests.support.servers import Totoro, end, free_port, stored_snapshots, wait_until
from totoro.middleware import SECURITY_HEADERS
from totoro.problem_types import PROBLEM_TYPES

if not NGINX and not os.environ.get("CI"):
    pytest.skip("nginx is missing: apt-get install nginx-light", allow_module_level=True)

pytestmark = pytest.mark.slow

GZIP = {"Accept-Encoding": "gzip"}
IDENTITY = {"Accept-Encoding": "identity"}
RATE: dict[str, Any] = {"THROTTLE_RATE": "100000/min"}
# The shortest whose responses nginx stores.
TTL_SECONDS = 4


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    with FakeGhibli() as upstream:
        folder = tmp_path_factory.mktemp("web")
        web = Totoro(folder, GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1, **RATE)
        yield web
        web.terminate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Start nginx in front of a port of this machine."""
    with ExitStack() as stack:

        def start(port: int, **settings: str) -> Nginx:
            nginx = Nginx(tmp_path, f"127.0.0.1:{port}", **{**RATE, **settings})
            stack.callback(end, nginx)
            return nginx

        yield start


@pytest.fixture
def nginx(start: Callable[..., Nginx], web: Totoro) -> Nginx:
    return start(web.port)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    with serving(recorder):
        yield recorder


def age_at(instant: float, response: requests.Response) -> float:
    return instant - datetime.fromisoformat(response.json()["timestamp"]).timestamp()


# The cache


def test_a_hit_has_nothing_of_the_first_clients_request(nginx: Nginx) -> None:
    first = nginx.get("/movies/", headers={"X-Request-ID": "first"})
    hit = nginx.hit(headers={"X-Request-ID": "second"})

    assert first.headers["X-Request-ID"] == "first"
    assert first.headers["Cache-Status"].startswith("totoro; ")
    assert {"RateLimit", "RateLimit-Policy"} <= first.headers.keys()
    assert hit.headers["X-Request-ID"] == "second"
    assert hit.headers["Cache-Status"] == "nginx; hit"
    assert hit.headers.keys() & {"RateLimit", "RateLimit-Policy", "X-Accel-Expires"} == set()
    assert hit.content == first.content
    same = ("ETag", "Last-Modified", "Vary", "Content-Type", "Content-Encoding", *SECURITY_HEADERS)
    for name in same:
        assert hit.headers[name] == first.headers[name]


def test_no_data_is_older_than_its_lifetime(start: Callable[..., Nginx], tmp_path: Path) -> None:
    """The age is that at the start of a request, so that a slow machine does not matter."""
    with FakeGhibli() as upstream, ExitStack() as stack:
        ttl: dict[str, Any] = {"CACHE_TTL": str(TTL_SECONDS)}
        web = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1, **RATE, **ttl)
        stack.callback(web.terminate)
        nginx = start(web.port, **ttl)
        hits = 0
        timestamps: set[str] = set()
        while len(timestamps) < 3:
            sent = time.time()
            response = nginx.get("/movies/")
            timestamps.add(response.json()["timestamp"])
            hits += response.headers["Cache-Status"] == "nginx; hit"
            # In the last second it is no-cache.
            max_age = re.fullmatch(r"max-age=(\d+)|no-cache", response.headers["Cache-Control"])
            assert max_age
            assert age_at(sent, response) + int(max_age[1] or 0) <= TTL_SECONDS
    assert hits > 5


def test_what_totoro_says_is_stale_is_not_fresh_for_clients_of_nginx(
    start: Callable[..., Nginx], tmp_path: Path
) -> None:
    """Young data, but from the database, while refreshes fail."""
    with FakeGhibli() as upstream, ExitStack() as stack:
        web = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1, **RATE)
        stack.callback(end, web)
        web.get("/movies/")
        wait_until(lambda: stored_snapshots(tmp_path) > 0, what="it is saved")
        web.kill()
        upstream.faults.status = 500
        web.start()

        response = start(web.port).get("/movies/")

    assert "detail=upstream_5xx" in response.headers["Cache-Status"]
    assert response.headers["Cache-Control"] == "no-cache"


def test_a_stale_response_is_served_while_web_is_away(
    start: Callable[..., Nginx], tmp_path: Path
) -> None:
    with FakeGhibli() as upstream, ExitStack() as stack:
        ttl: dict[str, Any] = {"CACHE_TTL": str(TTL_SECONDS)}
        web = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1, **RATE, **ttl)
        stack.callback(end, web)
        names = NameServer("127.0.0.1")
        stack.enter_context(serving(names))
        nginx = start(web.port, **ttl)
        by_name = Nginx(tmp_path, f"web:{web.port}", resolver=names.address, **RATE, **ttl)
        stack.callback(end, by_name)
        fresh = nginx.hit()
        by_name.hit()

        web.kill()
        names.addresses.clear()

        # Not only stale, but also older than `no-cache` needs.
        wait_until(lambda: age_at(time.time(), fresh) > TTL_SECONDS + 1)
        for proxy in (nginx, by_name):
            stale = proxy.get("/movies/")
            assert stale.status_code == 200
            assert stale.headers["Cache-Status"] == "nginx; hit; detail=stale"
            assert stale.headers["Cache-Control"] == "no-cache"
            assert stale.json()["api_data"] == fresh.json()["api_data"]
            missing = proxy.get("/movies/?search=never-requested")
            assert_problem(missing, 502)
            assert missing.headers["Retry-After"] == "5"
        # nginx itself is well.
        assert requests.get(nginx.health_url, timeout=5).status_code == 204


@pytest.mark.parametrize(
    ("accept_encoding", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, gzip, deflate", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.5, identity;q=0.9", None),
        ("br, gzipped", None),
        ("identity", None),
        ("", None),
    ],
)
def test_a_client_gets_the_encoding_that_it_accepts(
    accept_encoding: str, encoding: str | None, nginx: Nginx
) -> None:
    other = nginx.hit(headers=IDENTITY if encoding else GZIP)
    response = nginx.hit(headers={"Accept-Encoding": accept_encoding})

    assert response.headers.get("Content-Encoding") == encoding
    assert other.headers.get("Content-Encoding") != encoding
    assert response.headers["ETag"] != other.headers["ETag"]
    assert response.content == other.content  # requests has decoded it


def test_common_forms_of_accept_encoding_share_a_response(nginx: Nginx) -> None:
    nginx.hit(headers={"Accept-Encoding": "gzip"})

    for form in ("gzip, deflate", "gzip, deflate, br, zstd", "deflate, GZIP"):
        response = nginx.get("/movies/", headers={"Accept-Encoding": form})
        assert response.headers["Cache-Status"] == "nginx; hit"


def test_pages_and_data_are_stored_separately(nginx: Nginx) -> None:
    page = nginx.hit(headers={"Accept": "text/html"})
    data = nginx.hit(headers={"Accept": "application/json"})

    assert page.headers["Content-Type"].startswith("text/html")
    assert data.headers["Content-Type"] == "application/json"


def test_links_name_the_host_of_the_request(nginx: Nginx) -> None:
    for host in ("localhost", "127.0.0.1:81"):
        page = nginx.hit("/movies/?limit=2", headers={"Host": host})
        assert page.json()["pagination"]["next"].startswith(f"http://{host}/movies/")


def test_origins_are_not_confused_if_only_some_are_allowed(
    start: Callable[..., Nginx], tmp_path: Path
) -> None:
    origins: dict[str, Any] = {"CORS_ALLOWED_ORIGINS": "https://a.example,https://b.example"}
    with FakeGhibli() as upstream, ExitStack() as stack:
        web = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, TRUSTED_PROXIES=1, **origins)
        stack.callback(web.terminate)
        nginx = start(web.port, **origins)

        for origin in ("https://a.example", "https://b.example"):
            response = nginx.hit(headers={"Origin": origin})
            assert response.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("headers", [GZIP, IDENTITY])
def test_head_is_served_from_the_cache(headers: dict[str, str], nginx: Nginx) -> None:
    hit = nginx.hit(headers=headers)

    head = requests.head(f"{nginx.url}/movies/", headers=headers, timeout=30)

    assert head.headers["Cache-Status"] == "nginx; hit"
    assert head.headers["Content-Length"] == hit.headers["Content-Length"]
    assert head.content == b""


@pytest.mark.parametrize(
    ("name", "form", "status"),
    [
        ("If-None-Match", "{etag}", 304),
        ("If-None-Match", "W/{etag}", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"other"', 200),
        ("If-Modified-Since", "{modified}", 304),
        ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT", 304),
        ("If-Modified-Since", "Wed, 01 Jan 2020 00:00:00 GMT", 200),
        ("If-Match", "{etag}", 200),
        ("If-Match", '"other"', 412),
        ("If-Unmodified-Since", "Wed, 01 Jan 2020 00:00:00 GMT", 412),
        ("Range", "bytes=0-9", 200),
    ],
)
def test_conditions_have_the_same_result_as_in_totoro(
    name: str, form: str, status: int, nginx: Nginx, web: Totoro
) -> None:
    hit = nginx.hit()
    condition = form.format(etag=hit.headers["ETag"], modified=hit.headers["Last-Modified"])

    response = nginx.get("/movies/", headers={name: condition})

    assert (
        response.status_code == status == web.get("/movies/", headers={name: condition}).status_code
    )
    if status == 304:
        expected = ("ETag", "Cache-Control", "Vary", "Last-Modified", "Cache-Status", "Date")
        assert set(expected) <= response.headers.keys()
        assert response.headers["Cache-Status"] == "nginx; hit"


def test_errors_and_other_addresses_are_not_stored(nginx: Nginx) -> None:
    for path in ("/movies/nope/", "/movies/?limit=0", "/problems/", "/readyz"):
        statuses = {nginx.get(path).headers.get("Cache-Status") for _ in range(4)}
        assert not any(status and status.startswith("nginx") for status in statuses)


# Requests


def test_a_client_cannot_set_what_only_a_proxy_may(
    start: Callable[..., Nginx], recorder: Recorder
) -> None:
    nginx = start(recorder.port)
    sent = {
        "X-Forwarded-For": "9.9.9.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=9.9.9.9",
        "X-Real-IP": "9.9.9.9",
        "X_Forwarded_For": "9.9.9.9",
    }

    nginx.get("/", headers=sent)

    [(_, headers)] = recorder.requests
    forwarded = {name: text for name, text in headers.items() if "orward" in name or "real" in name}
    assert forwarded == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}
    assert headers["host"] == f"127.0.0.1:{nginx.port}"


@pytest.mark.parametrize("invalid", ["a b", "x" * 65, 'x"', "é", ""])
def test_an_invalid_request_id_is_replaced(
    invalid: str, start: Callable[..., Nginx], recorder: Recorder
) -> None:
    response = start(recorder.port).get("/", headers={"X-Request-ID": invalid.encode()})

    new = response.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", new)
    assert recorder.requests[0][1]["x-request-id"] == new


def test_get_is_sent_to_another_web_if_the_first_fails(tmp_path: Path) -> None:
    with ExitStack() as stack:
        well = Recorder("127.0.0.2")
        broken = Recorder("127.0.0.3", well.port)
        broken.is_broken = True
        names = NameServer("127.0.0.2", "127.0.0.3")
        for server in (well, broken, names):
            stack.enter_context(serving(server))
        nginx = Nginx(tmp_path, f"web:{well.port}", resolver=names.address, **RATE)
        stack.callback(end, nginx)

        while not broken.requests:
            assert nginx.get("/").status_code == 200
        # A POST may have had an effect.
        broken.requests.clear()
        statuses = []
        while not broken.requests:
            statuses.append(requests.post(nginx.url, timeout=30).status_code)

        assert broken.requests[0][0] == "POST"
        assert statuses[-1] == 502
        assert set(statuses[:-1]) <= {200}


def test_a_request_finds_the_only_web_that_listens(tmp_path: Path) -> None:
    with ExitStack() as stack:
        well = Recorder("127.0.0.2")
        names = NameServer(*(f"127.0.0.{i}" for i in range(2, 10)))
        for server in (well, names):
            stack.enter_context(serving(server))
        nginx = Nginx(tmp_path, f"web:{well.port}", resolver=names.address, **RATE)
        stack.callback(end, nginx)

        assert {nginx.get("/").status_code for _ in range(16)} == {200}


def test_a_new_web_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = Recorder("127.0.0.2")
        second = Recorder("127.0.0.3", first.port)
        names = NameServer("127.0.0.2")
        for server in (first, second, names):
            stack.enter_context(serving(server))
        nginx = Nginx(tmp_path, f"web:{first.port}", resolver=names.address, **RATE)
        stack.callback(end, nginx)
        nginx.get("/")
        names.addresses[:] = ["127.0.0.3"]

        def uses_only_the_second() -> bool:
            used = len(second.requests)
            return all(nginx.get("/").ok for _ in range(16)) and len(second.requests) == used + 16

        wait_until(uses_only_the_second, what="the first one is not used any more")


def test_a_client_that_has_closed_its_sending_side_gets_its_response(nginx: Nginx) -> None:
    response = nginx.send(b"GET /movies/?fields=id HTTP/1.0\r\nHost: localhost\r\n\r\n")

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")


def test_others_are_served_beside_a_thousand_slow_clients(nginx: Nginx) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", nginx.port))
            stack.enter_context(connection)
            connection.send(b"GET /movies/ HTTP/1.1\r\nHost: loc")

        assert nginx.get("/movies/").status_code == 200


# Limits


@pytest.mark.parametrize(
    ("rate", "per_minute", "burst", "retry_after"),
    [
        ("600/min", 600, 599, 1),
        (" 10/S ", 600, 9, 1),
        ("5000/h", 84, 4999, 1),
        ("1/hour", 1, 1, 3600),
        ("0010/day", 1, 9, 8640),
        ("9999999999/second", 60_000_000, 1_000_000, 1),
    ],
)
def test_the_rate_limit_is_that_of_totoro(
    rate: str, per_minute: int, burst: int, retry_after: int
) -> None:
    settings = derived_settings(THROTTLE_RATE=rate)

    assert settings["NGINX_LIMIT"] == "on"
    assert int(settings["NGINX_RATE"]) == per_minute
    assert int(settings["NGINX_BURST"]) == burst
    assert int(settings["NGINX_RETRY_AFTER"]) == retry_after


def test_a_client_that_sends_too_many_requests_gets_a_429(
    start: Callable[..., Nginx], web: Totoro
) -> None:
    nginx = start(web.port, THROTTLE_RATE="3/h")

    responses = [nginx.get("/movies/", headers={"X-Forwarded-For": str(i)}) for i in range(5)]

    assert [response.status_code for response in responses] == [200] * 3 + [429] * 2
    assert_problem(responses[-1], 429)
    assert responses[-1].headers["Retry-After"] == "1200"


def test_no_limit_if_the_rate_limit_is_off(start: Callable[..., Nginx], web: Totoro) -> None:
    nginx = start(web.port, THROTTLE_RATE="OFF")

    assert {nginx.get("/movies/").status_code for _ in range(50)} == {200}


def test_an_ipv6_network_is_one_client(start: Callable[..., Nginx], web: Totoro) -> None:
    include = "set_real_ip_from 127.0.0.1; real_ip_header X-Test-Address;"
    nginx = start(web.port, THROTTLE_RATE="2/h", include=include)

    def status(address: str) -> int:
        return nginx.get("/livez", headers={"X-Test-Address": address}).status_code

    assert [status(f"2001:db8::{i}") for i in range(1, 5)] == [200, 200, 429, 429]
    assert status("2001:db8:0:1::1") == 200
    assert status("192.0.2.1") == 200


# Errors


def assert_problem(response: requests.Response, status: int) -> dict[str, Any]:
    """Check that an error of nginx is like one of Totoro."""
    assert response.status_code == status
    headers = response.headers
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers.items() >= SECURITY_HEADERS.items()
    assert headers["Server"] == "nginx"
    problem: dict[str, Any] = response.json()
    members = ["type", "title", "status", "detail", "instance", "message", "request_id"]
    assert list(problem) == members
    assert problem["status"] == status
    assert problem["message"] == problem["detail"]
    assert problem["request_id"] == headers["X-Request-ID"]
    if problem["type"] != "about:blank":
        same = PROBLEM_TYPES[problem["type"].removeprefix("/problems/").removesuffix("/")]
        assert (problem["title"], problem["detail"]) == (same.title, same.description)
        assert same.status == status
    return problem


def test_metrics_are_not_served(start: Callable[..., Nginx], recorder: Recorder) -> None:
    nginx = start(recorder.port)
    for path in ("/metrics", "/%6detrics", "/metrics?x=1", "/movies/../metrics"):
        request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        assert nginx.send(request.encode()).startswith(b"HTTP/1.1 404 ")

    assert_problem(nginx.get("/metrics"), 404)
    assert recorder.requests == []


def test_every_error_of_nginx_is_a_problem(nginx: Nginx) -> None:
    url = f"{nginx.url}/movies/"
    nginx.hit()

    assert_problem(requests.post(url, data=b"x" * 100_000, timeout=30), 413)
    assert_problem(requests.request("TRACE", url, timeout=30), 405)
    assert_problem(nginx.get(f"/movies/?search={'x' * 20_000}"), 414)
    assert_problem(nginx.get("/movies/", headers={"X-Long": "x" * 20_000}), 431)
    assert_problem(nginx.get("/movies/", headers={"If-Match": '"other"'}), 412)


def test_the_redirect_to_the_last_slash_is_that_of_totoro(nginx: Nginx) -> None:
    response = requests.post(nginx.url + "/movies", allow_redirects=False, timeout=10)

    assert (response.status_code, response.headers["Location"]) == (308, "/movies/")
    assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_a_long_url_is_left_to_totoro(start: Callable[..., Nginx], recorder: Recorder) -> None:
    """It responds with 414 from 8,000 characters on."""
    assert start(recorder.port).get(f"/movies/?search={'x' * 15_000}").ok


@pytest.mark.parametrize(
    "request_line",
    [b"GET /a HTTP/1.1", b"GET /%zz HTTP/1.0", b"nonsense", b"GET /\x00 HTTP/1.0"],
)
def test_a_malformed_request_is_a_problem(request_line: bytes, nginx: Nginx) -> None:
    response = nginx.send(request_line + b"\r\n\r\n")

    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["title"] == "Bad request"


@pytest.mark.parametrize(
    ("path", "instance"),
    [
        (b"/movies/a-b_c~1%20/?x", "/movies/a-b_c~1%20/"),
        (b'/movies/"x', "/movies/"),
        (b"/movies/\\x", "/movies/"),
        (b"/movies/\xff", "/movies/"),
    ],
)
def test_the_address_in_a_problem_is_valid_json(
    path: bytes, instance: str, start: Callable[..., Nginx]
) -> None:
    response = start(free_port()).send(b"GET " + path + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")

    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["instance"] == instance


# Logs, TLS


def test_server_errors_are_always_logged(start: Callable[..., Nginx]) -> None:
    nginx = start(free_port())
    nginx.get("/livez", headers={"X-Request-ID": "failed"})

    wait_until(lambda: bool(nginx.access_log.read_text()))
    entry = json.loads(nginx.access_log.read_text())
    assert (entry["request_id"], entry["status"]) == ("failed", 502)


def test_requests_are_logged_without_addresses_if_the_operator_wants_it(
    start: Callable[..., Nginx], web: Totoro
) -> None:
    silent, logging = start(web.port), start(web.port, ACCESS_LOG="true")
    for nginx in (silent, logging):
        nginx.get("/movies/?search=secret", headers={"X-Request-ID": "logged"})

    wait_until(lambda: bool(logging.access_log.read_text()))
    [line] = logging.access_log.read_text().splitlines()
    entry = json.loads(line)
    assert entry["request_id"] == "logged"
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/movies/", 200)
    assert "127.0.0.1" not in line
    assert "secret" not in line
    assert silent.access_log.read_text() == ""


def test_the_example_for_tls_works(
    start: Callable[..., Nginx], web: Totoro, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    example = (FOLDER / "tls.conf.example").read_text()
    text = re.sub(r"/etc/nginx/tls/\w+\.pem", str(tmp_path / "tls.pem"), example)
    port = free_port()
    nginx = start(web.port, include=text.replace("8443", f"127.0.0.1:{port}"))

    def https(path: str) -> requests.Response:
        return requests.get(
            f"https://127.0.0.1:{port}{path}", verify=str(tmp_path / "ca.pem"), timeout=30
        )

    page = https("/movies/?limit=1")
    assert page.json()["pagination"]["next"].startswith(f"https://127.0.0.1:{port}/movies/")
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert https("/metrics").headers["Strict-Transport-Security"] == "max-age=31536000"
    redirect = nginx.get("/movies/?limit=1", allow_redirects=False)
    assert redirect.status_code == 308
    assert redirect.headers["Location"] == "https://127.0.0.1/movies/?limit=1"


def test_without_tls_there_is_no_hsts(nginx: Nginx) -> None:
    for path in ("/movies/", "/", "/metrics"):
        assert "Strict-Transport-Security" not in nginx.get(path).headers
