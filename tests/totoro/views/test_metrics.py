"""/metrics: what is counted, over all workers of a server."""

import math
import os
import platform
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Protocol

import pytest
import requests
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from fake_ghibli import FakeGhibli
from services import metrics as counters
from services.exceptions import Reason
from tests.support.metrics import METRICS, PROCESS_METRICS, Sample, metrics_in, samples_in
from tests.support.processes import needs_fork, proc
from tests.support.servers import (
    ROOT,
    Postgres,
    Totoro,
    Valkey,
    free_port,
    stored_snapshots,
    wait_until,
)
from totoro.observability.metrics import route_of
from totoro.observability.metrics_folder import IN_MEMORY
from totoro.settings import VERSION

CASTLE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"


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
    return samples_in(response.text)


def value(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def total(found: dict[Sample, float], name: str) -> float:
    return sum(number for (of, _), number in found.items() if of == name)


def folders(server: Totoro) -> set[Path]:
    """Return the folders in which its workers keep their metrics."""
    maps = "".join((proc(pid) / "maps").read_text() for pid in server.workers)
    return {Path(file).parent for file in re.findall(r"(/\S+\.db)$", maps, re.MULTILINE)}


def get_movies_until(server: Totoro, *, refreshes: int) -> int:
    """Request the movies until so many refreshes have succeeded; return the number of requests.

    Workers that share nothing refresh once each, so each of them has then responded.
    """
    requests = 0

    def have_succeeded() -> bool:
        nonlocal requests
        requests += 1
        server.get("/movies/")
        name = "totoro_refresh_duration_seconds_count"
        return value(scrape(server), name, outcome="succeeded") == refreshes

    wait_until(have_succeeded)
    return requests


def test_any_worker_returns_the_metrics_of_all(two: Totoro) -> None:
    requests = get_movies_until(two, refreshes=2)

    scrapes = [scrape(two) for _ in range(20)]

    assert [total(found, "totoro_cache_results_total") for found in scrapes] == [requests] * 20
    assert value(scrapes[0], "totoro_cache_results_total", status="miss") == 2
    assert value(scrapes[0], "totoro_lease_requests_total", outcome="granted") == 2
    assert value(scrapes[0], "totoro_refreshes_total", outcome="succeeded", reason="") == 2


def kill_worker(server: Totoro) -> int:
    """Kill a worker, wait for the one in its place, and return the former's process ID."""
    first = server.workers
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len({*server.workers} - {*first}) == 1, what="another worker")
    wait_until(server._responds)
    return first[0]


def test_counts_of_a_killed_worker_remain(two: Totoro) -> None:
    requests = get_movies_until(two, refreshes=2)
    before = scrape(two)
    [folder] = folders(two)

    killed = [kill_worker(two) for _ in range(2)]

    after = scrape(two)
    counted = {
        sample: number
        for sample, number in before.items()
        if sample[0].startswith("totoro_")
        and sample[0].endswith(("_total", "_bucket", "_count", "_sum"))
        and "/movies/" in dict(sample[1]).get("route", "/movies/")  # scrapes count too
        and sample[0] != "totoro_worker_restarts_total"
    }
    assert {sample: after.get(sample) for sample in counted} == counted
    # In memory; a worker that is killed again and again would fill it.
    assert [file for pid in killed for file in folder.glob(f"*_{pid}.db")] == []
    requests += get_movies_until(two, refreshes=3)
    assert total(scrape(two), "totoro_cache_results_total") == requests


def test_counts_workers_that_are_replaced(two: Totoro) -> None:
    assert value(scrape(two), "totoro_worker_restarts_total") == 0

    kill_worker(two)

    assert value(scrape(two), "totoro_worker_restarts_total") == 1


def test_the_data_of_a_killed_worker_is_served_no_more(start: Start) -> None:
    server = start()
    server.get("/movies/")
    assert value(scrape(server), "totoro_snapshot_timestamp_seconds")

    kill_worker(server)

    after = scrape(server)
    assert value(after, "totoro_snapshot_timestamp_seconds") == 0
    assert math.isnan(value(after, "totoro_snapshot_age_seconds") or 0)


@needs_fork
def test_process_metrics_are_those_of_all_workers(two: Totoro) -> None:
    get_movies_until(two, refreshes=2)
    pids = [two.pid, *two.workers]
    before = [cpu_seconds(pid) for pid in pids]

    found = scrape(two)

    after = [cpu_seconds(pid) for pid in pids]
    cpu = value(found, "process_cpu_seconds_total")
    assert sum(before) - 0.1 <= (cpu or 0) <= sum(after) + 0.1
    memory = sum(map(shared_once, pids))
    assert value(found, "process_resident_memory_bytes") == pytest.approx(memory, rel=0.1)
    files = max(len(list((proc(pid) / "fd").iterdir())) for pid in pids)
    assert value(found, "process_open_fds") == pytest.approx(files, abs=10)
    limits = (proc(two.pid) / "limits").read_text()
    assert re.search(rf"^Max open files +{value(found, 'process_max_fds'):.0f} ", limits, re.M)
    assert 0 < time.time() - (value(found, "process_start_time_seconds") or 0) < 60


@needs_fork
def test_the_cpu_time_of_a_killed_worker_remains(two: Totoro) -> None:
    get_movies_until(two, refreshes=2)
    before = value(scrape(two), "process_cpu_seconds_total") or 0
    assert min(cpu_seconds(worker) for worker in two.workers) > 0.05

    kill_worker(two)

    assert (value(scrape(two), "process_cpu_seconds_total") or 0) >= before


def cpu_seconds(pid: int) -> float:
    fields = (proc(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def shared_once(pid: int) -> int:
    """Return a process' part of the memory: of what n processes share, 1/n."""
    return int((proc(pid) / "smaps_rollup").read_text().split("Pss:")[1].split()[0]) * 1024


def test_every_metric_and_every_series_exists_from_the_start(start: Start, valkey: Valkey) -> None:
    server = start(REDIS_URL=valkey.url, THROTTLE_RATE="20/min")
    text = server.get("/metrics").text

    for path in (CASTLE, "/movies/x/", "/movies/?limit=x", "/movies", "/", "/problems/", "/x"):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW"):
            requests.request(method, server.url + path, timeout=30, headers={"Accept": "text/html"})
    for path in ("/readyz", "/static/x", "/redoc/", "/swagger.json", "/%2e%2e/x" + 9000 * "x"):
        server.get(path)
    later = server.get("/metrics").text

    names = {name: labels_of(metric) for name, metric in metrics_in(text)}
    assert {n: v for n, v in names.items() if n.startswith("totoro_")} == {
        name: set(labels) for name, labels in METRICS.items()
    }
    assert names.keys() - METRICS.keys() == PROCESS_METRICS
    assert samples_in(later).keys() - samples_in(text).keys() == set()
    assert len(counted_statuses(later)) >= 8


def labels_of(metric: Metric) -> set[str]:
    return {label for sample in metric.samples for label in sample.labels} - {"le"}


def counted_statuses(text: str) -> set[str]:
    return {
        dict(labels)["status"]
        for (name, labels), number in samples_in(text).items()
        if name == "totoro_requests_total" and number
    }


@pytest.mark.parametrize(
    ("method", "path", "route", "counted_method", "status"),
    [
        ("GET", "/movies/", "/movies/", "GET", "200"),
        ("HEAD", "/movies/", "/movies/", "HEAD", "200"),
        ("GET", CASTLE, "/movies/{id}/", "GET", "200"),
        ("GET", "/movies/none/", "/movies/{id}/", "GET", "404"),
        ("OPTIONS", "/", "/", "OPTIONS", "200"),
        ("POST", "/redoc/", "/redoc/", "other", "405"),
        ("GET", "/swagger.json", "/swagger", "GET", "200"),
        ("GET", "/problems/not-found/", "/problems/", "GET", "200"),
        ("GET", "/static/none.css", "/static/", "GET", "404"),
        ("BREW", "/livez", "/livez", "other", "405"),
        ("get", "/readyz", "/readyz", "other", "405"),
        ("GET", "/metrics", "/metrics", "GET", "200"),
        ("GET", "/wp-login.php", "other", "GET", "404"),
        ("GET", "/movies", "other", "GET", "301"),
    ],
)
def test_counts_requests_by_route_method_and_status(
    server: Totoro, method: str, path: str, route: str, counted_method: str, status: str
) -> None:
    labels = {"route": route, "method": counted_method, "status": status}
    for _ in range(2):  # the second one is a hit
        before = scrape(server)
        # Not requests, which turns methods into upper case.
        with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request(method, path)
            connection.getresponse().read()
        after = scrape(server)

        name = "totoro_requests_total"
        # A scrape is counted after it.
        scrapes = 1 if route == "/metrics" else 0
        assert counted(after, before, name, **labels) == 1 + scrapes
        name = "totoro_request_duration_seconds_count"
        assert counted(after, before, name, route=route) == 1 + scrapes


def counted(
    after: dict[Sample, float], before: dict[Sample, float], *name: str, **labels: str
) -> float:
    return (value(after, *name, **labels) or 0) - (value(before, *name, **labels) or 0)


def test_every_address_has_a_route() -> None:
    paths = [
        reverse(str(url.name), args=["json"] * url.pattern.regex.groups)
        for url in get_resolver().url_patterns
        if isinstance(url, URLPattern)
    ]

    assert len(paths) > 5
    assert [path for path in paths if route_of(path) == "other"] == []


def test_each_server_counts_from_zero_and_leaves_no_folder(tmp_path: Path, start: Start) -> None:
    """Even if the environment names a folder with the metrics of an earlier server."""
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


def test_the_age_of_the_data_is_that_at_the_time_of_the_scrape(start: Start) -> None:
    server = start()
    new = scrape(server)
    server.get("/movies/")

    first, second = scrape(server), scrape(server)

    assert value(new, "totoro_snapshot_timestamp_seconds") == 0
    assert math.isnan(value(new, "totoro_snapshot_age_seconds") or 0)
    ages = [value(found, "totoro_snapshot_age_seconds") or 0 for found in (first, second)]
    assert 0 < ages[0] < ages[1] < 10
    assert (value(second, "totoro_fencing_token") or 0) > 1e15


def test_counts_a_failed_refresh_with_its_reason(start: Start, upstream: FakeGhibli) -> None:
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


def test_counts_repairs_of_upstream_data(start: Start, upstream: FakeGhibli) -> None:
    films, people = upstream.data["films"], upstream.data["people"]
    films.append(films[0])
    people[0]["films"] = ["https://ghibliapi.herokuapp.com/films/unheard-of"]
    people[1]["films"] = [*people[1]["films"], "https://ghibliapi.herokuapp.com/films/nor-this"]
    server = start()
    server.get("/movies/")

    found = scrape(server)

    assert value(found, "totoro_upstream_data_repairs_total", defect="duplicate") == 1
    assert value(found, "totoro_upstream_data_repairs_total", defect="unknown_film") == 2


def test_counts_errors_of_redis_and_the_database(start: Start) -> None:
    server = start(migrate=False, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    server.get("/movies/")

    wait_until(lambda: total(scrape(server), "totoro_database_errors_total") > 0)
    found = scrape(server)

    assert total(found, "totoro_redis_errors_total") >= 1
    assert value(found, "totoro_redis_up") == 0


def test_says_whether_redis_and_the_database_are_up(start: Start, valkey: Valkey) -> None:
    server = start(REDIS_URL=valkey.url, DATABASE_URL="sqlite:////dev/null/x", migrate=False)
    server.get("/movies/")

    found = scrape(server)

    assert value(found, "totoro_redis_up") == 1
    assert value(found, "totoro_database_up") == 0
    assert value(found, "totoro_redis_duration_seconds_count", command="acquire_lease") == 1
    wait_until(
        lambda: value(scrape(server), "totoro_database_duration_seconds_count", action="read") == 1
    )


def test_without_redis_there_is_none_to_be_up(server: Totoro) -> None:
    found = scrape(server)

    assert value(found, "totoro_redis_up") is None
    assert value(found, "totoro_database_up") == 1


def test_has_the_version_and_the_settings_that_alerts_compare_with(start: Start) -> None:
    found = scrape(start(CACHE_TTL=30, STALE_IF_ERROR=3600, WEB_CONCURRENCY=2))

    labels = {"version": VERSION, "python": platform.python_version()}
    assert value(found, "totoro_build_info", **labels) == 1
    assert value(found, "totoro_cache_ttl_seconds") == 30
    assert value(found, "totoro_stale_if_error_seconds") == 3600
    assert value(found, "totoro_workers") == 2
    assert 1000 < (value(found, "totoro_connection_limit") or 0) <= 4096
    assert (value(found, "totoro_memory_limit_bytes") or 0) > 1e6


def test_counts_invalid_values_in_redis(start: Start, valkey: Valkey) -> None:
    valkey.client.set("totoro:1:{movies}:state", "rubbish", px=60_000)
    server = start(REDIS_URL=valkey.url)
    server.get("/movies/")

    found = scrape(server)

    assert value(found, "totoro_redis_invalid_values_total") == 1


def test_the_age_is_that_of_the_entry_in_use_while_the_next_one_waits(start: Start) -> None:
    server = start(CACHE_TTL=20, REFRESH_AHEAD=19)
    timestamp = datetime.fromisoformat(server.get("/movies/").json()["timestamp"]).timestamp()

    def refreshes() -> float | None:
        return value(scrape(server), "totoro_refreshes_total", outcome="succeeded", reason="")

    wait_until(lambda: bool(server.get("/movies/")) and refreshes() == 2)
    found = scrape(server)

    in_use = datetime.fromisoformat(server.get("/movies/").json()["timestamp"]).timestamp()
    assert in_use == timestamp
    assert value(found, "totoro_snapshot_timestamp_seconds") == pytest.approx(timestamp)


def test_data_that_is_too_old_to_be_served_has_no_age(start: Start, upstream: FakeGhibli) -> None:
    server = start(CACHE_TTL=1, REFRESH_AHEAD=0, STALE_IF_ERROR=1)
    server.get("/movies/")
    assert (value(scrape(server), "totoro_snapshot_age_seconds") or 0) > 0
    upstream.faults.status = 500

    wait_until(lambda: server.get("/movies/").status_code == 503)

    assert math.isnan(value(scrape(server), "totoro_snapshot_age_seconds") or 0)


def test_every_metric_is_used() -> None:
    metrics = {name for name, it in vars(counters).items() if isinstance(it, MetricWrapperBase)}
    code = "".join(file.read_text() for file in (ROOT / "services").rglob("*.py"))

    assert len(metrics) > 5
    assert metrics == set(re.findall(r"\bmetrics\.([a-z_]+)", code))


def test_every_redis_command_and_database_action_has_a_counter(start: Start) -> None:
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


def test_the_age_of_last_known_good_data_is_right_after_a_restart(
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


def test_counts_errors_from_zero_and_unavailable_responses(
    start: Start, upstream: FakeGhibli
) -> None:
    server = start()
    before = scrape(server)
    for name, label, value in (
        ("totoro_redis_errors_total", "command", "read"),
        ("totoro_database_errors_total", "action", "read"),
    ):
        assert before[name, frozenset({(label, value)})] == 0
    upstream.faults.set({"status": 500})
    assert server.get("/movies/").status_code == 503

    labels = {"route": "/movies/", "method": "GET", "status": "503"}
    unavailable = ("totoro_requests_total", frozenset(labels.items()))
    assert before[unavailable] == 0
    assert scrape(server)[unavailable] == 1


def test_logs_the_end_of_an_outage_with_its_duration(start: Start, upstream: FakeGhibli) -> None:
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


def test_logs_an_error_of_the_database_with_its_code(
    start: Start, postgres_server: Postgres
) -> None:
    with postgres_server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS services_storedsnapshot")
    server = start(migrate=False, DATABASE_URL=postgres_server.url)
    server.get("/movies/")

    wait_until(lambda: bool(server.events("database_error")), seconds=5)
    event = server.events("database_error")[0]
    assert (event["error"], event["sqlstate"]) == ("ProgrammingError", "42P01")


@pytest.mark.django_db
def test_accepts_the_header_that_prometheus_sends(api: Client) -> None:
    accept = (
        "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text"
        ";version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3"
        ",*/*;q=0.2"
    )

    response = api.get("/metrics", headers={"Accept": accept})

    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.django_db
def test_offers_no_other_format(api: Client) -> None:
    response = api.get("/metrics", headers={"Accept": "application/json"})

    assert response.status_code == 406
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
def test_metrics_are_read_only(api: Client) -> None:
    response = api.post("/metrics")

    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD, OPTIONS"
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
def test_head_is_get_without_the_body(api: Client) -> None:
    response = api.head("/metrics")

    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.content == b""


def test_metrics_are_not_in_the_api_documentation(api: Client) -> None:
    assert "/metrics" not in api.get("/swagger.json").json()["paths"]
