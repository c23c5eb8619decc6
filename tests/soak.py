"""A soak test: two replicas with two workers each run under load, with random faults.

`make soak`, or `python -m tests.soak --minutes 10 --rate 300 --ttl 10`. It kills, stops and restarts
workers, Redis (Valkey), the database (PostgreSQL) and the upstream. At the end it prints what clients saw,
and exits with 1 if a promise was broken:

- no 5xx: at most two of upstream, Redis and database are down at once;
- while the upstream works, no response is older than the TTL;
- while Redis works, timestamps never run backwards.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.support.load_client import (
    TOLERANCE,
    FailedRequest,
    LoadClient,
    LoadResult,
    ObservedResponse,
)
from tests.support.processes import open_connections
from tests.support.servers import (
    ROOT,
    Postgres,
    Process,
    Valkey,
    clean_environment,
    end,
    free_port,
    replicas,
    wait_until,
)

# Delays in seconds: a lease whose holder is dead, the first and the longest backoff with its jitter,
# an upstream that sends nothing, Redis after an error.
LEASE = 5.0
FIRST_BACKOFF, LONGEST_BACKOFF, JITTER = 5.0, 30.0, 1.2
READ_TIMEOUT = 5.0
CIRCUIT_BREAKER = 2.0

REPLICAS = WORKERS = 2
CONNECTIONS = 48
# Requests per connection: without new connections a restarted worker would get no requests.
RECONNECT_AFTER = 20
STATE = "totoro:1:{movies}:state"
# A killed worker has been replaced by then.
SECONDS_BETWEEN_KILLS = 8.0
# How long after a kill requests may fail.
KILL_EFFECT = 1.0
# A part of each minute has no faults, so that the promises of a working system are tested too.
CALM_EVERY, CALM = 60.0, 30.0


class Upstream(Process):
    """The fake Ghibli API in a process that can be killed."""

    def __init__(self) -> None:
        self.port, self.control = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ports = ["--port", str(self.port), "--control", str(self.control)]
        super().__init__(
            [sys.executable, "-m", "fake_ghibli", "--stamp", *ports],
            cwd=ROOT,
            env=clean_environment(),
        )

    def start(self) -> None:
        self._options |= {"stdout": -3}
        super().start()
        wait_until(lambda: self.films() is not None, what="the fake Ghibli API responds")

    def films(self) -> int | None:
        """Return the requests for films since it started, or None if it does not respond."""
        with suppress(requests.RequestException):
            state = requests.get(f"http://127.0.0.1:{self.control}/", timeout=0.5).json()
            return int(state["requests"]["films"])
        return None

    def inject(self, **faults: object) -> None:
        requests.put(f"http://127.0.0.1:{self.control}/", json=faults, timeout=5)


@dataclass
class Window:
    """When something was down (monotonic seconds)."""

    start: float
    end: float = float("inf")


@dataclass
class Stopped(Window):
    """When a worker was stopped, and the ports of the clients connected to it."""

    ports: frozenset[int] = frozenset()


@dataclass
class History:
    """All injected faults."""

    upstream: list[Window] = field(default_factory=list)
    redis: list[Window] = field(default_factory=list)
    database: list[Window] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    kills: list[tuple[int, Window]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Soak:
    def __init__(self, stack: ExitStack, folder: Path, ttl: int) -> None:
        self.ttl, self.history = ttl, History()
        self.upstream = Upstream()
        stack.callback(end, self.upstream)
        self.valkey = Valkey()
        stack.callback(end, self.valkey)
        self.postgres = Postgres()
        stack.callback(self.postgres.remove)
        self.replicas = replicas(
            REPLICAS,
            folder,
            stack,
            GHIBLI_API_BASE_URL=self.upstream.url,
            REDIS_URL=self.valkey.url,
            DATABASE_URL=self.postgres.url,
            CACHE_TTL=ttl,
            REFRESH_AHEAD=max(1, ttl * 3 // 10),
            WEB_CONCURRENCY=WORKERS,
        )
        self.result = LoadResult()
        self.films = 0
        self._killed = dict.fromkeys(range(REPLICAS), 0.0)
        self._ending: list[tuple[float, Callable[[], None]]] = []

    # Faults: each method injects one, and returns the function that ends it.

    def kill_worker(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        if time.monotonic() - self._killed[index] < SECONDS_BETWEEN_KILLS:
            return None
        os.kill(random.choice(self.replicas[index].workers), signal.SIGKILL)
        self._killed[index] = now = time.monotonic()
        self.history.kills.append((index, Window(now - 0.1, now + KILL_EFFECT)))
        return lambda: None

    def stop_worker(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        worker = random.choice(self.replicas[index].workers)
        os.kill(worker, signal.SIGSTOP)
        window = Stopped(time.monotonic())
        own = self.replicas[index].port
        window.ports = frozenset(other for port, other in open_connections(worker) if port == own)
        self.history.stopped.append(window)

        def resume() -> None:
            window.end = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

        return resume

    def restart_replica(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        window = Window(time.monotonic() - 0.1)
        self.history.kills.append((index, window))
        code = self.replicas[index].terminate()
        if code != 0:
            self.history.counts[f"exit code {code} after SIGTERM"] += 1
        self.replicas[index].start()
        window.end = time.monotonic() + KILL_EFFECT
        self._killed[index] = 0.0
        return lambda: None

    def flush_redis(self) -> Callable[[], None]:
        # The shared state is lost, as if Redis had been down.
        self.valkey.client.flushall()
        window = Window(time.monotonic())
        self.history.redis.append(window)
        return lambda: close(window)

    def restart_redis(self) -> Callable[[], None]:
        return self._restart(self.valkey, self.history.redis)

    def stop_redis(self) -> Callable[[], None]:
        return self._stop(self.valkey, self.history.redis)

    def restart_database(self) -> Callable[[], None]:
        return self._restart(self.postgres, self.history.database)

    def stop_database(self) -> Callable[[], None]:
        return self._stop(self.postgres, self.history.database)

    def restart_upstream(self) -> Callable[[], None]:
        return self._restart(self.upstream, self.history.upstream)

    def stop_upstream(self) -> Callable[[], None]:
        return self._stop(self.upstream, self.history.upstream)

    def break_upstream(self) -> Callable[[], None]:
        fault, value, normal = random.choice(
            [
                ("status", 500, None),
                ("status", 503, None),
                ("hang", True, False),
                ("reset", True, False),
            ]
        )
        window = Window(time.monotonic())
        self.history.upstream.append(window)
        self.upstream.inject(**{fault: value})

        def repair() -> None:
            self.upstream.inject(**{fault: normal})
            close(window)

        return repair

    def _restart(self, process: Process, windows: list[Window]) -> Callable[[], None]:
        window = Window(time.monotonic())
        windows.append(window)
        process.kill()

        def start() -> None:
            process.start()
            close(window)

        return start

    def _stop(self, process: Process, windows: list[Window]) -> Callable[[], None]:
        window = Window(time.monotonic())
        windows.append(window)
        process.send_signal(signal.SIGSTOP)

        def resume() -> None:
            process.send_signal(signal.SIGCONT)
            close(window)

        return resume

    def run(self, minutes: float, rate: float) -> None:
        urls = [replica.url for replica in self.replicas]
        film = requests.get(f"{urls[0]}/movies/", timeout=10).json()["api_data"][0]["id"]
        load = LoadClient(
            urls,
            connections=CONNECTIONS,
            rate=rate,
            paths=["/movies/", *[f"/movies/{film}/"] * 3],
            reconnect_after=RECONNECT_AFTER,
            timeout=60,
        )
        self.result = load.result
        thread = threading.Thread(target=load.run, daemon=True)
        counter = threading.Thread(target=self._count_refreshes, args=(thread,), daemon=True)
        thread.start()
        counter.start()
        try:
            self._inject_faults(time.monotonic() + minutes * 60)
        finally:
            load.stop()
            thread.join(90)

    def _count_refreshes(self, load: threading.Thread) -> None:
        """Count the requests for films, across restarts of the fake Ghibli API."""
        before = 0
        while load.is_alive():
            films = self.upstream.films()
            if films is not None:
                self.films += films - before if films >= before else films
                before = films
            time.sleep(0.25)

    def _inject_faults(self, end: float) -> None:
        started = time.monotonic()
        next_fault = started + 3
        while (now := time.monotonic()) < end:
            for due in [ending for ending in self._ending if ending[0] <= now]:
                self._ending.remove(due)
                due[1]()
            calm = (now - started) % CALM_EVERY > CALM_EVERY - CALM or end - now < CALM / 2
            if now >= next_fault and not calm:
                self._inject_one()
                next_fault = time.monotonic() + random.uniform(0.5, 5)
            time.sleep(0.05)
        for _, end_fault in self._ending:
            end_fault()

    def _inject_one(self) -> None:
        possible = list(self._possible())
        if not possible:  # a worker is stopped and two parts are down
            return
        fault, (shortest, longest) = random.choice(possible)
        end_fault = fault()
        if end_fault:
            self.history.counts[fault.__name__.replace("_", " ")] += 1
            self._ending.append((time.monotonic() + random.uniform(shortest, longest), end_fault))

    def _possible(
        self,
    ) -> Iterator[tuple[Callable[[], Callable[[], None] | None], tuple[float, float]]]:
        history = self.history
        down = {
            "upstream": is_open(history.upstream),
            # An empty Redis has no last known good.
            "redis": is_open(history.redis) or not self.valkey.client.exists(STATE),
            "database": is_open(history.database),
        }
        if not is_open(history.stopped):
            yield self.kill_worker, (0, 0)
            yield self.kill_worker, (0, 0)
            yield self.stop_worker, (0.5, 8)
            yield self.stop_worker, (0.5, 8)
            yield self.restart_replica, (0, 0)
        if sum(down.values()) == 2:
            return
        if not down["redis"]:
            yield self.flush_redis, (0, 0)
            yield self.restart_redis, (0.2, 6)
            yield self.stop_redis, (0.1, 6)
        if not down["database"]:
            yield self.restart_database, (1.5, 6)
            yield self.stop_database, (0.5, 6)
        if not down["upstream"]:
            yield self.restart_upstream, (0.2, 5)
            yield self.stop_upstream, (0.5, 5)
            yield self.break_upstream, (0.5, 5)


def close(window: Window) -> None:
    window.end = time.monotonic()


def is_open(windows: Sequence[Window]) -> bool:
    return any(window.end == float("inf") for window in windows)


# The verdict


@dataclass
class Verdict:
    """Judges responses by the faults that were active."""

    soak: Soak
    upstream_outages: list[Window] = field(init=False)
    redis_outages: list[Window] = field(init=False)

    def __post_init__(self) -> None:
        history = self.soak.history
        self.redis_outages = [
            Window(window.start, self._end_of_divergence(window)) for window in history.redis
        ]
        self.upstream_outages = [
            self._until_recovery(outage) for outage in settled_outages(history.upstream)
        ]

    def _end_of_divergence(self, outage: Window) -> float:
        """Return when all processes share an entry again.

        Each serves its own entry until that expires; while refreshes fail, its own last known good.
        """
        first_refresh = min(self._receipts_of_data_after(outage.end), default=float("inf"))
        return first_refresh + self.soak.ttl + CIRCUIT_BREAKER + 1

    def _until_recovery(self, outage: Window) -> Window:
        """End an outage with the first newer data, which Redis, if it works, shares with all."""
        if during(self.redis_outages, outage.start, outage.end):
            return outage
        last = max(w.end for w in self.soak.history.upstream if w.end <= outage.end)
        first_refresh = min(self._receipts_of_data_after(last), default=outage.end)
        return Window(outage.start, min(outage.end, first_refresh + 2))

    def _receipts_of_data_after(self, instant: float) -> list[float]:
        """Return when clients received data that was fetched after this instant."""
        wall = instant + time.time() - time.monotonic()
        return [
            response.received
            for response in self.soak.result.successful
            if response.timestamp > wall
        ]

    def upstream_worked(self, response: ObservedResponse) -> bool:
        return not during(self.upstream_outages, response.sent, response.received)

    def redis_worked(self, response: ObservedResponse) -> bool:
        return not during(self.redis_outages, response.sent, response.received)

    def was_stopped(self, response: ObservedResponse) -> bool:
        """Return whether the worker was stopped during the request."""
        return any(
            response.sent <= window.start + 0.01 <= response.received
            and response.port in window.ports
            for window in self.soak.history.stopped
        )

    def was_killed(self, failure: FailedRequest) -> bool:
        kills = self.soak.history.kills
        return any(i == failure.server and w.start <= failure.failed <= w.end for i, w in kills)


def settled_outages(outages: Sequence[Window]) -> Iterator[Window]:
    """Yield each outage until the next refresh must have succeeded.

    That is after the backoff, and the lease of a worker that was killed meanwhile.
    """
    merged: list[Window] = []
    for outage in sorted(outages, key=lambda window: window.start):
        start = outage.start
        if merged and outage.start <= merged[-1].end:
            start = merged.pop().start
        backoff = min(FIRST_BACKOFF + outage.end - start, LONGEST_BACKOFF) * JITTER
        merged.append(Window(start, outage.end + backoff + READ_TIMEOUT + LEASE + 2))
    yield from merged


def during(windows: Sequence[Window], start: float, end: float) -> bool:
    return any(window.start <= end and start <= window.end for window in windows)


def report(soak: Soak, minutes: float) -> bool:
    """Print the results, and return whether every promise holds."""
    verdict, result = Verdict(soak), soak.result
    delivered = [response for response in result.successful if not verdict.was_stopped(response)]
    while_upstream_worked = [
        response for response in delivered if verdict.upstream_worked(response)
    ]
    while_redis_worked = [response for response in delivered if verdict.redis_worked(response)]
    old = [response for response in while_upstream_worked if response.age > soak.ttl + TOLERANCE]
    backwards = [response for response in while_redis_worked if response.is_backwards]
    unexplained = [one for one in result.failures if not verdict.was_killed(one)]
    events = [
        entry["event"]
        for replica in soak.replicas
        for entry in replica.events(
            "refresh_succeeded", "refresh_superseded", "refresh_failed", "lease_lost"
        )
    ]
    unsuccessful = [
        response for response in result.responses if response.status // 100 != 2 or response.defect
    ]
    lines: dict[str, object] = {
        "responses": len(result.responses),
        "oldest while the upstream worked": f"{oldest(while_upstream_worked):.3f} s of {soak.ttl}",
        "oldest": f"{oldest(delivered):.3f} s",
        "older than the TTL while the upstream worked": f"{len(old)} of {len(while_upstream_worked)}",
        "stale": sum(response.is_stale for response in delivered),
        "not 2xx": dict(
            Counter(response.status for response in unsuccessful if response.status != 200)
        ),
        "defective": dict(Counter(response.defect for response in unsuccessful if response.defect)),
        "backwards while Redis worked": f"{len(backwards)} of {len(while_redis_worked)}",
        "backwards while Redis was down": len(result.backwards) - len(backwards),
        "failed because of a kill": len(result.failures) - len(unexplained),
        "failed otherwise": dict(Counter(failure.reason for failure in unexplained)),
        "delayed by a stopped worker": len(result.successful) - len(delivered),
        "refreshes per minute": f"{soak.films / minutes:.1f} requests, {dict(Counter(events))}",
        "latency": f"median {result.latency(0.5) * 1000:.1f} ms, 99 % {result.latency(0.99):.3f} s",
        "slowest": f"{result.latency(1):.3f} s",
        "slowest without stopped workers": f"{max(r.latency for r in delivered):.3f} s",
        "faults": json.dumps(soak.history.counts),
    }
    for name, value in lines.items():
        print(f"{name:<42} {value}")  # noqa: T201 (a program's output)
    for what, broken in (("old", old), ("backwards", backwards), ("unsuccessful", unsuccessful)):
        for response in broken[:5]:
            print(f"  {what}: {response}")  # noqa: T201
    for failure in unexplained[:5]:
        print(f"  {failure}")  # noqa: T201
    return not (old or backwards or unsuccessful or unexplained)


def oldest(responses: Sequence[ObservedResponse]) -> float:
    return max((response.age for response in responses), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--ttl", type=int, default=10, help="CACHE_TTL")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)  # noqa: T201
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="totoro-soak-")))
        soak = Soak(stack, folder, options.ttl)
        soak.run(options.minutes, options.rate)
        passed = report(soak, options.minutes)
        if not passed:
            logs = folder.with_name(f"totoro-soak-{options.seed}.log")
            logs.write_text("".join(replica.log.read_text() for replica in soak.replicas))
            print(f"A promise was broken. Logs: {logs}")  # noqa: T201
    sys.exit(not passed)


if __name__ == "__main__":
    main()
