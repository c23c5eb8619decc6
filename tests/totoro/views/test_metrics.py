"""What Prometheus is told, by whom it is asked, and that it adds up over the workers."""

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pytest
from django.test import Client
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from fake_ghibli import FakeGhibli
from services import metrics as counters
from services.exceptions import Reason
from tests.support.processes import proc
from tests.support.servers import (
    ROOT,
    Postgres,
    Totoro,
    Valkey,
    free_port,
    stored_snapshots,
    wait_until,
)
from totoro import internal_clients
from totoro.observability.metrics_folder import IN_MEMORY

# As which Docker's proxy shows whoever comes through it.
BEHIND_DOCKER = ["172.17.0.1", "fd00::1", "::ffff:172.17.0.1"]
Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


class Start(Protocol):
    def __call__(self, *, migrate: bool = True, **variables: object) -> Totoro: ...


@pytest.fixture
def start(tmp_path: Path, upstream: FakeGhibli) -> Iterator[Start]:
    """Starts servers of the test's own."""
    started = []

    def start(*, migrate: bool = True, **variables: object) -> Totoro:
        url = upstream.url
        started.append(Totoro(tmp_path, migrate=migrate, GHIBLI_API_BASE_URL=url, **variables))
        return started[-1]

    yield start
    for server in started:
        server.terminate()


@pytest.fixture
def two(start: Start) -> Totoro:
    """A server with two workers, which share nothing but the database."""
    return start(WEB_CONCURRENCY=2)


def scrape(server: Totoro) -> dict[Sample, float]:
    response = server.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def total(found: dict[Sample, float], name: str) -> float:
    return sum(number for (of, _), number in found.items() if of == name)


def folders(server: Totoro) -> set[Path]:
    """Where its workers count."""
    maps = "".join((proc(pid) / "maps").read_text() for pid in server.workers)
    return {Path(file).parent for file in re.findall(r"(/\S+\.db)$", maps, re.MULTILINE)}


def ask_until(server: Totoro, *, flights: int) -> int:
    """Ask for the movies until so many flights have landed; gives how often.

    Workers that share nothing fly once each, so all of them have answered then.
    """
    asked = 0

    def have_landed() -> bool:
        nonlocal asked
        asked += 1
        server.get("/movies/")
        landed = value(scrape(server), "totoro_refresh_duration_seconds_count", outcome="succeeded")
        return landed == flights

    wait_until(have_landed)
    return asked


def test_any_worker_tells_of_all(two: Totoro) -> None:
    asked = ask_until(two, flights=2)

    scrapes = [scrape(two) for _ in range(20)]

    assert [total(found, "totoro_cache_results_total") for found in scrapes] == [asked] * 20
    assert value(scrapes[0], "totoro_cache_results_total", status="miss") == 2
    assert value(scrapes[0], "totoro_lease_requests_total", outcome="granted") == 2
    assert value(scrapes[0], "totoro_refreshes_total", outcome="succeeded", reason="") == 2


def test_what_a_worker_counted_outlives_it(two: Totoro) -> None:
    asked = ask_until(two, flights=2)
    before, first = scrape(two), two.workers

    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len({*two.workers} - {*first}) == 1, what="another worker in its place")

    after = scrape(two)
    changing = ("totoro_snapshot_age_seconds", "totoro_responses_total")  # the scrapes count too
    counted = {name: number for name, number in before.items() if name[0] not in changing}
    assert {name: after.get(name) for name in counted} == counted
    asked += ask_until(two, flights=3)
    assert total(scrape(two), "totoro_cache_results_total") == asked


def test_each_server_counts_from_nothing_and_leaves_nothing(tmp_path: Path, start: Start) -> None:
    """Even if the environment names a folder with what an earlier one has left."""
    server = start()
    server.get("/movies/")
    [folder] = folders(server)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    server.terminate()
    old = tmp_path / "old"
    old.mkdir()
    for name, content in files.items():
        (old / name).write_bytes(content)

    server = start(PROMETHEUS_MULTIPROC_DIR=old)
    found, [another] = scrape(server), folders(server)
    server.terminate()

    assert files
    assert total(found, "totoro_refreshes_total") == 0
    assert folder.parent == IN_MEMORY
    assert not folder.exists()
    assert another not in (old, folder)
    assert not another.exists()


def test_the_datas_age_is_that_of_the_scrape(start: Start) -> None:
    server = start()
    new = scrape(server)
    server.get("/movies/")

    first, second = scrape(server), scrape(server)

    assert value(new, "totoro_snapshot_timestamp_seconds") == 0
    assert value(new, "totoro_snapshot_age_seconds") is None
    ages = [value(found, "totoro_snapshot_age_seconds") or 0 for found in (first, second)]
    assert 0 < ages[0] < ages[1] < 10
    assert (value(second, "totoro_fencing_token") or 0) > 1e15


def test_a_failed_flight_is_counted_with_its_reason(start: Start, upstream: FakeGhibli) -> None:
    server = start(CACHE_TTL=1, REFRESH_AHEAD=0)
    before = scrape(server)
    server.get("/movies/")
    upstream.faults.status = 500
    wait_until(lambda: "ttl=-" in server.get("/movies/").headers["Cache-Status"])

    after = scrape(server)

    reasons = {**dict.fromkeys(Reason, 0), Reason.UPSTREAM_5XX: 1}
    for reason, count in reasons.items():
        labels = {"outcome": "failed", "reason": str(reason)}
        assert value(before, "totoro_refreshes_total", **labels) == 0
        assert value(after, "totoro_refreshes_total", **labels) == count
    assert value(after, "totoro_refresh_duration_seconds_count", outcome="failed") == 1
    assert (value(after, "totoro_cache_results_total", status="stale") or 0) >= 1


def test_what_was_mended_is_counted(start: Start, upstream: FakeGhibli) -> None:
    films, people = upstream.data["films"], upstream.data["people"]
    films.append(films[0])
    people[0]["films"] = ["https://ghibliapi.herokuapp.com/films/unheard-of"]
    people[1]["films"] = [*people[1]["films"], "https://ghibliapi.herokuapp.com/films/nor-this"]
    server = start()
    server.get("/movies/")

    found = scrape(server)

    assert value(found, "totoro_upstream_data_repairs_total", defect="duplicate") == 1
    assert value(found, "totoro_upstream_data_repairs_total", defect="unknown_film") == 2


def test_troubles_of_redis_and_the_database_are_counted(start: Start) -> None:
    server = start(migrate=False, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    server.get("/movies/")

    wait_until(lambda: total(scrape(server), "totoro_database_errors_total") > 0)
    found = scrape(server)

    assert total(found, "totoro_redis_errors_total") >= 1


def test_values_in_redis_that_are_not_ours_are_counted(start: Start, valkey: Valkey) -> None:
    valkey.client.set("totoro:1:{movies}:state", "rubbish", px=60_000)
    server = start(REDIS_URL=valkey.url)
    server.get("/movies/")

    found = scrape(server)

    assert value(found, "totoro_redis_invalid_values_total") == 1


def test_no_metric_is_there_that_nobody_counts() -> None:
    metrics = {name for name, it in vars(counters).items() if isinstance(it, MetricWrapperBase)}
    code = "".join(file.read_text() for file in (ROOT / "services").rglob("*.py"))

    assert len(metrics) > 5
    assert metrics == set(re.findall(r"\bmetrics\.([a-z_]+)", code))


def test_every_command_of_redis_and_action_of_the_database_has_its_counter(start: Start) -> None:
    code = "".join(file.read_text() for file in (ROOT / "services").rglob("*.py"))
    matches = re.findall(r"@or_in_memory\n +def (\w+)|\.call\(\s*\"(\w+)\"", code)
    commands = {name for match in matches for name in match if name}
    actions = {*re.findall(r"_attempt\(\s*\"(\w+)\"", code)}
    assert commands
    assert actions

    before = scrape(start())

    for command in commands:
        assert value(before, "totoro_redis_errors_total", command=command) == 0, command
    for action in actions:
        assert value(before, "totoro_database_errors_total", action=action) == 0, action


def test_after_a_restart_on_last_known_good_data_its_age_is_told(
    tmp_path: Path, start: Start, upstream: FakeGhibli
) -> None:
    server = start()
    fetched = datetime.fromisoformat(server.get("/movies/").json()["timestamp"]).timestamp()
    wait_until(lambda: stored_snapshots(tmp_path) == 1, what="the snapshot is in the database")
    server.terminate()
    upstream.faults.set({"status": 500})
    server.start()
    server.get("/movies/")

    scraped = scrape(server)
    assert scraped["totoro_snapshot_timestamp_seconds", frozenset()] == pytest.approx(fetched)
    age = time.time() - fetched
    assert scraped["totoro_snapshot_age_seconds", frozenset()] == pytest.approx(age, abs=2)


def test_errors_are_counted_from_zero_and_unavailable_responses_are_counted(
    start: Start, upstream: FakeGhibli
) -> None:
    server = start()
    before = scrape(server)
    for name, label, value in (
        ("totoro_redis_errors_total", "command", "read"),
        ("totoro_database_errors_total", "action", "read"),
        ("totoro_responses_total", "status", "503"),
    ):
        assert before[name, frozenset({(label, value)})] == 0
    upstream.faults.set({"status": 500})
    assert server.get("/movies/").status_code == 503

    unavailable = ("totoro_responses_total", frozenset({("status", "503")}))
    assert scrape(server)[unavailable] == 1


def test_an_outage_that_is_over_is_logged_with_how_long_it_lasted(
    start: Start, upstream: FakeGhibli
) -> None:
    server = start()
    upstream.faults.set({"status": 500})
    assert server.get("/movies/").status_code == 503
    upstream.faults.set({"status": None})
    wait_until(lambda: server.get("/movies/").status_code == 200)

    wait_until(lambda: bool(server.events("outage_over")), seconds=5)
    [event] = server.events("outage_over")
    assert event["failures"] >= 1
    assert 4 <= event["seconds"] < 20
    assert event["pid"] in server.workers


def test_a_failure_of_the_database_is_logged_with_what_it_says(
    start: Start, postgres_server: Postgres
) -> None:
    with postgres_server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS services_storedsnapshot")
    server = start(migrate=False, DATABASE_URL=postgres_server.url)
    server.get("/movies/")

    wait_until(lambda: bool(server.events("database_error")), seconds=5)
    event = server.events("database_error")[0]
    assert (event["error"], event["sqlstate"]) == ("ProgrammingError", "42P01")


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


class TestWhoMayAsk:
    @pytest.fixture(autouse=True)
    def _routes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    def test_who_is_near_may(self, api: Client, address: str) -> None:
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
    def test_to_anybody_else_there_is_nothing(self, api: Client, method: str, address: str) -> None:
        here = api.generic(method, "/metrics", REMOTE_ADDR=address)
        nowhere = api.generic(method, "/nothing", REMOTE_ADDR=address)

        assert here.status_code == nowhere.status_code == 404
        assert here["Content-Type"] == nowhere["Content-Type"] == "application/problem+json"
        assert here.headers.keys() == nowhere.headers.keys()

    @pytest.mark.parametrize(
        "header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "Origin"]
    )
    def test_who_asks_for_somebody_else_is_not_near(self, api: Client, header: str) -> None:
        assert api.get("/metrics", headers={header: "10.0.0.1"}).status_code == 404

    def test_a_list_of_formats_as_prometheus_sends_it_is_understood(self, api: Client) -> None:
        accept = (
            "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text"
            ";version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3"
            ",*/*;q=0.2"
        )

        response = api.get("/metrics", headers={"Accept": accept})

        assert response.status_code == 200
        assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_there_is_no_other_format(self, api: Client) -> None:
        response = api.get("/metrics", headers={"Accept": "application/json"})

        assert response.status_code == 406
        assert response["Content-Type"] == "application/problem+json"

    def test_nothing_can_be_done_but_ask(self, api: Client) -> None:
        response = api.post("/metrics")

        assert response.status_code == 405
        assert response["Allow"] == "GET, HEAD, OPTIONS"
        assert response["Content-Type"] == "application/problem+json"

    def test_head_is_get_without_the_body(self, api: Client) -> None:
        response = api.head("/metrics")

        assert response.status_code == 200
        assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.content == b""

    def test_the_api_documentation_does_not_know_it(self, api: Client) -> None:
        assert "/metrics" not in api.get("/swagger.json").json()["paths"]
