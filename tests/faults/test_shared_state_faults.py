"""Shared state that Redis loses, or whose values are impossible."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from django.test import Client
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli, Faults
from tests.conftest import restart_service
from tests.support.fault_proxy import FaultProxy
from tests.support.load_client import run_load, under_load
from tests.support.servers import Totoro, Valkey, end, replicas, stored_snapshots, wait_until
from totoro.env.connections import redis_caches


def timestamp(response: requests.Response) -> datetime:
    return datetime.fromisoformat(response.json()["timestamp"])


@pytest.fixture
def shared(valkey: Valkey, settings: Settings) -> Valkey:
    """The Valkey server that the service under test uses."""
    settings.REDIS_URL = valkey.url
    settings.CACHES = redis_caches(valkey.url)
    return valkey


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("milliseconds", [None, 3_600_000])
def test_a_backoff_ends_in_time_although_its_key_does_not_expire(
    milliseconds: int | None, shared: Valkey, api: Client, upstream: FakeGhibli
) -> None:
    upstream.faults.set({"status": 500})
    assert api.get("/movies/").status_code == 503
    upstream.faults.set({"status": None})
    for key in shared.client.scan_iter():
        if milliseconds:
            shared.client.pexpire(key, milliseconds)
        else:
            shared.client.persist(key)
    restart_service()  # a new process, which knows only the shared state

    # Within the first backoff, 5 s and 20 % jitter, whose end is part of the state.
    wait_until(lambda: api.get("/movies/").status_code == 200, seconds=7)


@pytest.mark.slow
def test_age_is_correct_after_a_restart(tmp_path: Path) -> None:
    with FakeGhibli() as upstream, ExitStack() as stack:
        [server] = replicas(1, tmp_path, stack, GHIBLI_API_BASE_URL=upstream.url)
        fetched = timestamp(server.get("/movies/"))
        wait_until(lambda: stored_snapshots(tmp_path) == 1, what="the snapshot is in the database")
        server.terminate()
        upstream.faults.set({"status": 500})
        server.start()

        response = server.get("/movies/")
        age = (datetime.now(UTC) - fetched).total_seconds()
        assert timestamp(response) == fetched
        assert response.headers["Cache-Control"] == "no-cache"
        assert age - 1 <= int(response.headers["Age"]) <= age + 1
        assert "ttl=0; detail=upstream_5xx" in response.headers["Cache-Status"]


# Two replicas


@pytest.fixture
def redis() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    end(server)


def pair(
    folder: Path, stack: ExitStack, upstream: FakeGhibli, port: int, **more: object
) -> list[Totoro]:
    return replicas(
        2,
        folder,
        stack,
        GHIBLI_API_BASE_URL=upstream.url,
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        **{"CACHE_TTL": 6, "REFRESH_AHEAD": 3, **more},
    )


@pytest.mark.slow
def test_timestamps_do_not_run_backwards_when_redis_loses_the_next_entry(
    tmp_path: Path, redis: Valkey
) -> None:
    with FakeGhibli(faults=Faults(delay=0.3)) as upstream, ExitStack() as stack:
        servers = pair(tmp_path, stack, upstream, redis.port)
        for server in servers:
            server.get("/movies/")
        refreshes = upstream.count("people")
        seen, lost = [], 0
        stop = time.monotonic() + 15
        while time.monotonic() < stop:
            for server in servers:
                response = server.get("/movies/")
                assert response.status_code == 200
                seen.append(timestamp(response))
            if upstream.count("people") > refreshes:
                # The refresh publishes the next entry soon; flush Redis until after that.
                refreshes = upstream.count("people")
                lost += 1
                flushed_until = time.monotonic() + 0.6
                while time.monotonic() < flushed_until:
                    redis.client.flushall()
            time.sleep(0.02)

        assert lost >= 2
        assert [later - earlier for earlier, later in pairwise(seen) if later < earlier] == []


@pytest.mark.slow
def test_workers_agree_on_the_last_known_good_when_redis_returns_empty_during_an_outage(
    tmp_path: Path, redis: Valkey
) -> None:
    with FakeGhibli() as upstream, FaultProxy(redis.port) as proxy, ExitStack() as stack:
        servers = pair(tmp_path, stack, upstream, proxy.port, CACHE_TTL=2, REFRESH_AHEAD=0)
        proxy.down()
        last = [timestamp(server.get("/movies/")) for server in servers]
        assert last[0] != last[1]  # each has refreshed itself
        upstream.faults.set({"status": 500})
        wait_until(lambda: all(_is_stale(server.get("/movies/")) for server in servers))
        redis.client.flushall()
        proxy.up()

        def agree() -> bool:
            return {timestamp(server.get("/movies/")) for server in servers} == {max(last)}

        wait_until(agree, seconds=10, what="both serve the newest snapshot")
        for _ in range(20):
            assert agree()


def _is_stale(response: requests.Response) -> bool:
    return response.status_code == 200 and "detail=" in response.headers["Cache-Status"]


# Requests that wait


@pytest.mark.slow
def test_waiting_requests_leave_threads_for_other_requests(tmp_path: Path) -> None:
    with FakeGhibli(faults=Faults(hang=True)) as upstream, ExitStack() as stack:
        [server] = replicas(1, tmp_path, stack, GHIBLI_API_BASE_URL=upstream.url)
        run_load([server.url], connections=24, each=2, paths=["/livez"])
        with under_load([server.url], connections=4, rate=40, paths=["/livez"]) as livez:
            result = run_load([server.url], connections=400, each=1, paths=["/movies/"])

        rejected_at_once = [response for response in result.responses if response.latency < 3]
        assert {response.status for response in result.responses} == {503}
        assert len(rejected_at_once) >= 400 - 128
        assert {response.status for response in livez.responses} == {200}
        assert livez.latency(0.9) < 0.1
