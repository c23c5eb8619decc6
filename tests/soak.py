"""A soak: two replicas of two workers under load, while everything around them goes wrong at random.

`python -m tests.soak --minutes 10 --rate 300 --ttl 10`, or `make soak`. Workers, Redis (Valkey), the
database (PostgreSQL) and the upstream are killed, stopped and restarted. At the end it says what the
clients saw, and ends with 1 if a promise was broken:

- no 5xx, ever: at most two of upstream, Redis and database are away at once;
- while the upstream is well, no answer is older than the TTL;
- while Redis is well, timestamps never run backwards.
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

# What may pass (seconds): a dead leader's lease, the first and the longest cool-down and how
# much they are spread, the silence that ends a flight, how long a Redis that failed is left alone.
LEASE = 5.0
COOL_DOWN, LONGEST_COOL_DOWN, SPREAD = 5.0, 30.0, 1.2
READ_TIMEOUT = 5.0
LATCH = 2.0

REPLICAS = WORKERS = 2
CONNECTIONS = 48
# A client connects anew now and then, so that a worker that was killed gets its share again.
RECONNECT_AFTER = 20
STATE = "totoro:1:{movies}:state"
# A worker that was killed is back by then.
BETWEEN_KILLS = 8.0
# Closed connections show up this long after a kill.
KILL_ECHO = 1.0
# Every so often nothing goes wrong for a while, so that there is a time in which all must be well.
CALM_EVERY, CALM = 60.0, 30.0


class Upstream(Process):
    """The fake Ghibli API as a process of its own, so that it can be killed."""

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
        wait_until(lambda: self.films() is not None, what="the fake Ghibli API answers")

    def films(self) -> int | None:
        """Requests for films since it started; None while it does not say."""
        with suppress(requests.RequestException):
            told = requests.get(f"http://127.0.0.1:{self.control}/", timeout=0.5).json()
            return int(told["requests"]["films"])
        return None

    def inject(self, **faults: object) -> None:
        requests.put(f"http://127.0.0.1:{self.control}/", json=faults, timeout=5)


@dataclass
class Window:
    """When something was away: instants of the monotonic clock."""

    start: float
    end: float = float("inf")


@dataclass
class Stopped(Window):
    """A worker that stood still, and the ports of the clients that it had taken."""

    ports: frozenset[int] = frozenset()


@dataclass
class History:
    """What was done to whom and when, for the verdict."""

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
        self.tally = LoadResult()
        self.films = 0
        self._killed = dict.fromkeys(range(REPLICAS), 0.0)
        self._ending: list[tuple[float, Callable[[], None]]] = []

    # Faults: each happens, and gives what undoes it

    def kill_worker(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        if time.monotonic() - self._killed[index] < BETWEEN_KILLS:
            return None
        os.kill(random.choice(self.replicas[index].workers), signal.SIGKILL)
        self._killed[index] = now = time.monotonic()
        self.history.kills.append((index, Window(now - 0.1, now + KILL_ECHO)))
        return lambda: None

    def stop_worker(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        worker = random.choice(self.replicas[index].workers)
        os.kill(worker, signal.SIGSTOP)
        window = Stopped(time.monotonic())
        own = self.replicas[index].port
        window.ports = frozenset(other for port, other in open_connections(worker) if port == own)
        self.history.stopped.append(window)

        def go_on() -> None:
            window.end = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

        return go_on

    def restart_replica(self) -> Callable[[], None] | None:
        index = random.randrange(REPLICAS)
        window = Window(time.monotonic() - 0.1)
        self.history.kills.append((index, window))
        code = self.replicas[index].terminate()
        if code != 0:
            self.history.counts[f"SIGTERM ended with {code}"] += 1
        self.replicas[index].start()
        window.end = time.monotonic() + KILL_ECHO
        self._killed[index] = 0.0
        return lambda: None

    def flush_redis(self) -> Callable[[], None]:
        # It has lost what the workers agreed on, as if it had been away.
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
        fault, broken, well = random.choice(
            [
                ("status", 500, None),
                ("status", 503, None),
                ("hang", True, False),
                ("reset", True, False),
            ]
        )
        window = Window(time.monotonic())
        self.history.upstream.append(window)
        self.upstream.inject(**{fault: broken})

        def mend() -> None:
            self.upstream.inject(**{fault: well})
            close(window)

        return mend

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

        def go_on() -> None:
            process.send_signal(signal.SIGCONT)
            close(window)

        return go_on

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
        self.tally = load.result
        thread = threading.Thread(target=load.run, daemon=True)
        watch = threading.Thread(target=self._watch, args=(thread,), daemon=True)
        thread.start()
        watch.start()
        try:
            self._go_wrong(time.monotonic() + minutes * 60)
        finally:
            load.stop()
            thread.join(90)

    def _watch(self, load: threading.Thread) -> None:
        """Count the requests to the fake Ghibli API, across its restarts."""
        before = 0
        while load.is_alive():
            films = self.upstream.films()
            if films is not None:
                self.films += films - before if films >= before else films
                before = films
            time.sleep(0.25)

    def _go_wrong(self, end: float) -> None:
        started = time.monotonic()
        next_fault = started + 3
        while (now := time.monotonic()) < end:
            for item in [item for item in self._ending if item[0] <= now]:
                self._ending.remove(item)
                item[1]()
            calm = (now - started) % CALM_EVERY > CALM_EVERY - CALM or end - now < CALM / 2
            if now >= next_fault and not calm:
                self._one_fault()
                next_fault = time.monotonic() + random.uniform(0.5, 5)
            time.sleep(0.05)
        for _, mend in self._ending:
            mend()

    def _one_fault(self) -> None:
        possible = list(self._possible())
        if not possible:  # a worker is stopped and two parts are away: enough at a time
            return
        fault, (shortest, longest) = random.choice(possible)
        mend = fault()
        if mend:
            self.history.counts[fault.__name__.replace("_", " ")] += 1
            self._ending.append((time.monotonic() + random.uniform(shortest, longest), mend))

    def _possible(
        self,
    ) -> Iterator[tuple[Callable[[], Callable[[], None] | None], tuple[float, float]]]:
        history = self.history
        away = {
            "upstream": is_open(history.upstream),
            # One that has come back empty holds nothing to fall back on.
            "redis": is_open(history.redis) or not self.valkey.client.exists(STATE),
            "database": is_open(history.database),
        }
        if not is_open(history.stopped):
            yield self.kill_worker, (0, 0)
            yield self.kill_worker, (0, 0)
            yield self.stop_worker, (0.5, 8)
            yield self.stop_worker, (0.5, 8)
            yield self.restart_replica, (0, 0)
        if sum(away.values()) == 2:
            return
        if not away["redis"]:
            yield self.flush_redis, (0, 0)
            yield self.restart_redis, (0.2, 6)
            yield self.stop_redis, (0.1, 6)
        if not away["database"]:
            yield self.restart_database, (1.5, 6)
            yield self.stop_database, (0.5, 6)
        if not away["upstream"]:
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
    """What the clients saw, held against what was done."""

    soak: Soak
    unwell: list[Window] = field(init=False)
    alone: list[Window] = field(init=False)

    def __post_init__(self) -> None:
        history = self.soak.history
        self.alone = [Window(window.start, self._together(window)) for window in history.redis]
        self.unwell = [self._until_recovery(outage) for outage in settled_outages(history.upstream)]

    def _together(self, away: Window) -> float:
        """When Redis is found again, each process goes on with its own answer until that ends, and
        if flights fail then, with its own last one until the first has landed."""
        landed = min(self._received_of_after(away.end), default=float("inf"))
        return landed + self.soak.ttl + LATCH + 1

    def _until_recovery(self, outage: Window) -> Window:
        """Cut to the first answer from after the outage, if Redis brought that one to all."""
        if during(self.alone, outage.start, outage.end):
            return outage
        last = max(w.end for w in self.soak.history.upstream if w.end <= outage.end)
        landed = min(self._received_of_after(last), default=outage.end)
        return Window(outage.start, min(outage.end, landed + 2))

    def _received_of_after(self, instant: float) -> list[float]:
        """When answers came in whose data is from after that instant."""
        wall = instant + time.time() - time.monotonic()
        return [answer.received for answer in self.soak.tally.successful if answer.timestamp > wall]

    def upstream_was_well(self, answer: ObservedResponse) -> bool:
        return not during(self.unwell, answer.sent, answer.received)

    def redis_was_well(self, answer: ObservedResponse) -> bool:
        return not during(self.alone, answer.sent, answer.received)

    def was_stopped(self, answer: ObservedResponse) -> bool:
        """Its worker stood still with the answer in its hands."""
        return any(
            answer.sent <= window.start + 0.01 <= answer.received and answer.port in window.ports
            for window in self.soak.history.stopped
        )

    def was_killed(self, cut: FailedRequest) -> bool:
        kills = self.soak.history.kills
        return any(i == cut.server and w.start <= cut.failed <= w.end for i, w in kills)


def settled_outages(outages: Sequence[Window]) -> Iterator[Window]:
    """From the start of each outage until the Ghibli API must have been asked again: after the
    longest cool-down, and one more lease for a leader that was killed meanwhile."""
    merged: list[Window] = []
    for outage in sorted(outages, key=lambda window: window.start):
        lasted_from = outage.start
        if merged and outage.start <= merged[-1].end:
            lasted_from = merged.pop().start
        cool_down = min(COOL_DOWN + outage.end - lasted_from, LONGEST_COOL_DOWN) * SPREAD
        merged.append(Window(lasted_from, outage.end + cool_down + READ_TIMEOUT + LEASE + 2))
    yield from merged


def during(windows: Sequence[Window], start: float, end: float) -> bool:
    return any(window.start <= end and start <= window.end for window in windows)


def report(soak: Soak, minutes: float) -> bool:
    """Print it; whether every promise was kept."""
    verdict, tally = Verdict(soak), soak.tally
    good = [answer for answer in tally.successful if not verdict.was_stopped(answer)]
    well = [answer for answer in good if verdict.upstream_was_well(answer)]
    together = [answer for answer in good if verdict.redis_was_well(answer)]
    old = [answer for answer in well if answer.age > soak.ttl + TOLERANCE]
    backwards = [answer for answer in together if answer.is_backwards]
    cut_otherwise = [cut for cut in tally.failures if not verdict.was_killed(cut)]
    events = [
        told["event"]
        for replica in soak.replicas
        for told in replica.events(
            "refresh_succeeded", "refresh_superseded", "refresh_failed", "lease_lost"
        )
    ]
    other = [answer for answer in tally.responses if answer.status // 100 != 2 or answer.defect]
    lines: dict[str, object] = {
        "answers given": len(tally.responses),
        "oldest with the upstream well": f"{oldest(well):.3f} s of {soak.ttl} ({len(well)} answers)",
        "oldest at all": f"{oldest(good):.3f} s",
        "older than the TTL with the upstream well": len(old),
        "stale": sum(answer.is_stale for answer in good),
        "not 2xx": dict(Counter(answer.status for answer in other if answer.status != 200)),
        "damaged": dict(Counter(answer.defect for answer in other if answer.defect)),
        "backwards with Redis well": f"{len(backwards)} (of {len(together)} answers)",
        "backwards with each process on its own": len(tally.backwards) - len(backwards),
        "cut by a kill": len(tally.failures) - len(cut_otherwise),
        "cut otherwise": dict(Counter(cut.reason for cut in cut_otherwise)),
        "held by a stopped worker": len(tally.successful) - len(good),
        "flights a minute": f"{soak.films / minutes:.1f} asked for, {dict(Counter(events))}",
        "latency": f"median {tally.latency(0.5) * 1000:.1f} ms, 99 % {tally.latency(0.99):.3f} s",
        "slowest": f"{tally.latency(1):.3f} s",
        "slowest but for stopped workers": f"{max(a.latency for a in good):.3f} s",
        "faults": json.dumps(soak.history.counts),
    }
    for name, value in lines.items():
        print(f"{name:<42} {value}")  # noqa: T201 (a program's output)
    for what, broken in (("old", old), ("backwards", backwards), ("bad", other)):
        for answer in broken[:5]:
            print(f"  {what}: {answer}")  # noqa: T201
    for cut in cut_otherwise[:5]:
        print(f"  {cut}")  # noqa: T201
    return not (old or backwards or other or cut_otherwise)


def oldest(answers: Sequence[ObservedResponse]) -> float:
    return max((answer.age for answer in answers), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--ttl", type=int, default=10, help="CACHE_TTL")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    given = parser.parse_args()
    random.seed(given.seed)
    print(f"seed {given.seed}", flush=True)  # noqa: T201
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="totoro-soak-")))
        soak = Soak(stack, folder, given.ttl)
        soak.run(given.minutes, given.rate)
        kept = report(soak, given.minutes)
        if not kept:
            logs = folder.with_name(f"totoro-soak-{given.seed}.log")
            logs.write_text("".join(replica.log.read_text() for replica in soak.replicas))
            print(f"A promise was broken; the logs: {logs}")  # noqa: T201
    sys.exit(not kept)


if __name__ == "__main__":
    main()
