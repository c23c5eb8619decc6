"""The servers under test, and the faults that are injected into them."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import requests

from tests.soak.history import History, Stopped, Window, close, is_open
from tests.support.load_client import LoadClient, LoadResult
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
        self._options |= {"stdout": subprocess.DEVNULL}
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
