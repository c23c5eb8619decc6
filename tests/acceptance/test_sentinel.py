"""A failover of Redis by its Sentinels under load, with real processes."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli, Faults
from services.redis_connection import BREAKER_SECONDS
from tests.support.load_client import LoadResult, run_load, under_load
from tests.support.sentinel import SentinelGroup
from tests.support.servers import Totoro, Valkey, end, wait_until

pytestmark = pytest.mark.slow

STATE = "totoro:1:{movies}:state"
QUOTAS = "totoro:1:quota:*"
LIMIT = 200
CONNECTIONS = 16


class Fleet:
    """Servers with two workers each that share a Sentinel group, and a rate limit per second."""

    def __init__(
        self, folder: Path, stack: ExitStack, *, servers: int, ttl: int, ahead: int
    ) -> None:
        self.upstream = stack.enter_context(FakeGhibli(faults=Faults(stamp=True, delay=0.1)))
        self.group = SentinelGroup(folder, stack, replicas=2, sentinels=3)
        self.servers: list[Totoro] = []
        for i in range(servers):
            server = Totoro(
                folder,
                migrate=i == 0,
                GHIBLI_API_BASE_URL=self.upstream.url,
                REDIS_URL=self.group.url,
                WEB_CONCURRENCY=2,
                CACHE_TTL=ttl,
                REFRESH_AHEAD=ahead,
                THROTTLE_RATE=f"{LIMIT}/s",
            )
            stack.callback(end, server)
            self.servers.append(server)
        # The first request to a worker imports modules, which these tests do not measure.
        run_load(self.urls, connections=16 * servers, each=2, paths=["/livez"])
        self.group.wait_until_complete()

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    @property
    def refreshes(self) -> int:
        return self.upstream.count("films")

    def uses_redis(self) -> bool:
        """Return whether no worker has skipped Redis lately."""
        since = datetime.now(UTC) - timedelta(seconds=BREAKER_SECONDS + 1)
        errors = [event for server in self.servers for event in server.events("redis_error")]
        return all(datetime.fromisoformat(error["timestamp"]) < since for error in errors)

    def wait_until_shared(self, result: LoadResult) -> float:
        """Wait until all workers serve one entry, and return when that was."""

        def is_shared() -> bool:
            last = result.responses[-4 * CONNECTIONS :]
            return self.uses_redis() and len({response.timestamp for response in last}) == 1

        wait_until(is_shared, what="all workers serve one entry")
        return time.monotonic()


def test_a_killed_master_is_replaced_and_no_client_notices(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack, servers=1, ttl=60, ahead=10)
        with under_load(fleet.urls, connections=CONNECTIONS, rate=100) as result:
            wait_until(lambda: len(result.responses) > 100)
            master = fleet.group.master
            master.kill()
            successor = fleet.group.wait_for_failover(master)
            # Both connection pools follow: what is lost comes back.
            successor.client.flushall()
            wait_until(lambda: bool(successor.client.exists(STATE)), what="an entry in Redis")
            wait_until(lambda: bool(successor.client.keys(QUOTAS)), what="a quota in Redis")

    assert result.unsuccessful == []
    assert result.failures == []
    assert result.stale == []
    assert result.backwards == []
    assert fleet.refreshes == 1


@pytest.mark.minutes
def test_timestamps_stay_in_order_if_redis_is_back_before_the_entry_expires(tmp_path: Path) -> None:
    """Each worker has fetched its own next entry then, and all activate the newest of them."""
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack, servers=2, ttl=14, ahead=11)
        master = fleet.group.master
        with under_load(fleet.urls, connections=CONNECTIONS, rate=100) as result:
            wait_until(lambda: bool(result.responses and result.responses[-1].age > 2))
            killed(fleet, master)
            wait_until(lambda: len(result.timestamps) == 2, what="the next entry")
            time.sleep(1)  # in which no response may contain an older entry

    assert fleet.refreshes > 2
    assert result.unsuccessful == []
    assert result.failures == []
    assert result.backwards == []
    assert {one.timestamp for one in result.waited_for_refresh} <= {result.timestamps[0]}
    assert len(result.timestamps) == 2


def killed(fleet: Fleet, master: Valkey) -> None:
    master.kill()
    fleet.group.wait_for_failover(master)


def stopped_for_a_while(fleet: Fleet, master: Valkey) -> None:
    """When the old master continues, it accepts writes until a Sentinel demotes it."""
    master.send_signal(signal.SIGSTOP)
    try:
        fleet.group.wait_for_failover(master)
    finally:
        master.send_signal(signal.SIGCONT)


def demoted(fleet: Fleet, master: Valkey) -> None:
    fleet.group.sentinels[0].fail_over()
    fleet.group.wait_for_failover(master)


@pytest.mark.minutes
@pytest.mark.parametrize("failover", [killed, stopped_for_a_while, demoted])
def test_workers_share_entries_and_quotas_again_after_a_failover(
    tmp_path: Path, failover: Callable[[Fleet, Valkey], None]
) -> None:
    """Entries expire meanwhile, so that each worker refreshes for itself until it reaches Redis."""
    ttl = 4
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack, servers=2, ttl=ttl, ahead=2)
        with under_load(fleet.urls, connections=CONNECTIONS, rate=100) as result:
            wait_until(lambda: len(result.timestamps) >= 2)
            started = time.monotonic()
            failover(fleet, fleet.group.master)
            over = time.monotonic()
            shared = fleet.wait_until_shared(result)
            refreshes, entries = fleet.refreshes, len(result.timestamps)
            wait_until(lambda: len(result.timestamps) >= entries + 3, what="three entries")
            refreshes, entries = fleet.refreshes - refreshes, len(result.timestamps) - entries
        burst = run_load(fleet.urls, connections=CONNECTIONS, total=4 * LIMIT)

    summary = {**result.summary(), "until shared": round(shared - over, 1)}
    print(f"\n{failover.__name__} for {over - started:.1f} s: {summary}")  # noqa: T201 (pytest -s)
    assert result.unsuccessful == []
    assert result.failures == []
    assert result.stale == []
    assert result.older_than(ttl) == []
    assert result.backwards_on_a_connection == []
    assert [one for one in result.backwards if one.sent > shared] == []
    assert refreshes <= entries + 1
    assert {response.status for response in burst.responses} == {200, 429}
