"""The log of an outage over several processes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Totoro, Valkey, replicas, stored_snapshots, wait_until


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


@pytest.fixture
def pair(tmp_path: Path, upstream: FakeGhibli, valkey: Valkey) -> Iterator[list[Totoro]]:
    """Two servers that share Redis and a database."""
    with ExitStack() as stack:
        yield replicas(
            2,
            tmp_path,
            stack,
            GHIBLI_API_BASE_URL=upstream.url,
            REDIS_URL=valkey.url,
            CACHE_TTL=1,
            REFRESH_AHEAD=0,
        )


def test_all_processes_that_start_in_an_outage_serve_the_last_known_good(
    pair: list[Totoro], tmp_path: Path, upstream: FakeGhibli, valkey: Valkey
) -> None:
    good = pair[0].get("/movies/").json()
    wait_until(lambda: stored_snapshots(tmp_path) > 0, what="it is saved")
    for server in pair:
        server.kill()
    valkey.client.flushall()
    upstream.faults.status = 500

    for server in pair:
        server.start()
    responses = [server.get("/movies/") for server in pair]

    assert [response.status_code for response in responses] == [200, 200]
    assert [response.json() for response in responses] == [good, good]
    assert upstream.count("films") <= 3  # one failed refresh, which one of them tried


def is_over(valkey: Valkey, part: str, field: str) -> bool:
    """Return whether an instant in the shared state has passed, by Redis' clock."""
    state = json.loads(valkey.client.get("totoro:1:{movies}:state") or b"{}")
    seconds, microseconds = valkey.client.time()
    instant: int = state[part][field]
    return instant < seconds * 1_000_000 + microseconds


def fail_once(server: Totoro, upstream: FakeGhibli, valkey: Valkey) -> None:
    """One refresh of this server fails; then the upstream works, and the backoff is over."""
    upstream.faults.status = 500
    assert server.get("/movies/").status_code == 503
    upstream.faults.status = None
    wait_until(lambda: is_over(valkey, "backoff", "until"), what="the backoff is over")


def test_a_process_logs_the_end_of_an_outage_that_another_process_began(
    pair: list[Totoro], upstream: FakeGhibli, valkey: Valkey
) -> None:
    first, second = pair
    fail_once(first, upstream, valkey)

    assert second.get("/movies/").status_code == 200

    wait_until(lambda: bool(second.events("refresh_succeeded")))
    wait_until(lambda: bool(second.events("outage_over")), seconds=2)
    (over,) = second.events("outage_over")
    assert over["failures"] == 1
    [began] = first.events("outage_began") + second.events("outage_began")
    assert (began["reason"], began["level"]) == ("upstream_5xx", "error")
    assert over["seconds"] > 0


def test_only_one_process_logs_the_end_of_an_outage(
    pair: list[Totoro], upstream: FakeGhibli, valkey: Valkey
) -> None:
    first, second = pair
    fail_once(first, upstream, valkey)
    assert second.get("/movies/").status_code == 200
    wait_until(lambda: is_over(valkey, "current", "expires_at"), what="the entry has expired")

    assert first.get("/movies/").status_code == 200

    wait_until(lambda: bool(first.events("refresh_succeeded")))
    first.terminate()
    assert first.events("outage_over") == []
