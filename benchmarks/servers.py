"""How each server that is measured is started, pinned to one core."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import SERVER_CORE, BenchmarkError
from benchmarks.names import (
    BARE_WSGI,
    BLACKSHEEP,
    DRF,
    FASTAPI_MEMORY,
    FASTAPI_REDIS,
    NGINX_CACHE,
    NGINX_STATIC,
    TOTORO,
)
from benchmarks.process_tree import pinned
from benchmarks.server import Server
from benchmarks.workloads import DETAIL, FILTER, GZIP, LIST, NOT_MODIFIED, Workload
from tests.support.servers import (
    ROOT,
    Process,
    Totoro,
    clean_environment,
    free_port,
    migrated_database,
    wait_until,
)

FOLDER = Path(__file__).parent
PEERS = FOLDER / "peers"
VENV = ROOT / "var" / "benchmarks" / "venv" / "bin"
# Every request is counted, and none refused.
RATE = "6000000/min"
# Lets Totoro load more movies than the Ghibli API ever returns.
LARGE_CATALOGUE = os.pathsep.join([str(FOLDER / "large_catalogue"), str(ROOT)])


class Launcher:
    """Starts servers that use the fake Ghibli API `upstream` and Redis; they end with `stack`."""

    def __init__(self, stack: ExitStack, folder: Path, upstream: str, redis: str) -> None:
        self._stack, self._folder, self._upstream, self._redis = stack, folder, upstream, redis
        self._numbers = itertools.count(1)

    def redis_url(self) -> str:
        """Return the address of an unused Redis database."""
        return f"{self._redis.removesuffix('/0')}/{next(self._numbers)}"

    def totoro(self, name: str = TOTORO, **variables: str) -> Server:
        variables = {**self._variables(), **variables}
        with pinned(SERVER_CORE):
            process = Totoro(self._new_folder(), migrate=True, **variables)
        self._stack.callback(process.terminate)
        return ready(Server(name, process.url, [process.pid]))

    def environment(self, **variables: str) -> dict[str, str]:
        """Return an environment for a program that uses Totoro without a server."""
        database = self._new_folder() / "totoro.sqlite3"
        database.write_bytes(migrated_database())
        fixed = {
            "DJANGO_SECRET_KEY": "only-for-the-benchmark",
            "DATABASE_URL": f"sqlite:///{database}",
        }
        return {**clean_environment(), **self._variables(), **fixed, **variables}

    def _variables(self) -> dict[str, str]:
        return {
            "GHIBLI_API_BASE_URL": self._upstream,
            "THROTTLE_RATE": RATE,
            "PYTHONPATH": LARGE_CATALOGUE,
        }

    def _new_folder(self) -> Path:
        folder = self._folder / f"totoro-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def bare_wsgi(self, totoro: Server) -> Server:
        for workload in (LIST, DETAIL):
            response = totoro.get(workload.path)
            # The server adds its own.
            headers = [(key, value) for key, value in response.headers if key != "date"]
            (self._folder / f"{workload.name}.json").write_bytes(response.body)
            (self._folder / f"{workload.name}.headers.json").write_text(json.dumps(headers))
        options = ["--interface", "wsgi", "--http", "1", "--blocking-threads", "1", "--port"]
        return self._peer(
            BARE_WSGI,
            [str(ROOT / ".venv" / "bin" / "granian"), *options, "{port}", "bare_wsgi:application"],
            [LIST, DETAIL],
            RESPONSES=str(self._folder),
        )

    def drf(self) -> Server:
        # Threads as gunicorn's documentation advises; one worker, as there is one core.
        options = ["--worker-class", "gthread", "--threads", "4", "--bind", "127.0.0.1:{port}"]
        options += ["--no-control-socket"]  # it would be in the home folder
        return self._peer(
            DRF,
            [str(VENV / "gunicorn"), *options, "drf_cache_page:application"],
            [LIST, DETAIL, FILTER, NOT_MODIFIED, GZIP],
            REDIS_URL=self.redis_url(),
        )

    def fastapi(self) -> list[Server]:
        applications = {FASTAPI_REDIS: "fastapi_redis:app", FASTAPI_MEMORY: "fastapi_memory:app"}
        return [
            self._uvicorn(name, application, workloads, **variables)
            for name, application in applications.items()
            for workloads, variables in (([LIST, DETAIL], {}), ([GZIP], {"GZIP": "on"}))
        ]

    def blacksheep(self) -> Server:
        return self._uvicorn(BLACKSHEEP, "blacksheep_redis:app", [LIST, DETAIL])

    def _uvicorn(
        self, name: str, application: str, workloads: Sequence[Workload], **variables: str
    ) -> Server:
        options = ["--no-access-log", "--log-level", "warning", "--port", "{port}"]
        command = [str(VENV / "uvicorn"), "--loop", "uvloop", "--http", "httptools", *options]
        variables |= {"REDIS_URL": self.redis_url()}
        return self._peer(name, [*command, application], workloads, **variables)

    def nginx_static(self) -> Server:
        """Serve the files that `bare_wsgi` has written."""
        return self._nginx(NGINX_STATIC, "nginx-static.conf", [LIST, DETAIL, NOT_MODIFIED])

    def nginx_cache(self, totoro: Server) -> Server:
        upstream = totoro.url.removeprefix("http://")
        server = self._nginx(NGINX_CACHE, "nginx-cache.conf", None, upstream=upstream)
        return Server(server.name, server.url, [*server.pids, *totoro.pids])

    def _nginx(
        self, name: str, template: str, workloads: Sequence[Workload] | None, **names: str
    ) -> Server:
        port = free_port()
        # Root's files are not for nginx' own user.
        user = "user root;" if os.geteuid() == 0 else ""
        text = (PEERS / template).read_text()
        configuration = self._folder / template
        configuration.write_text(text.format(port=port, folder=self._folder, user=user, **names))
        command = ["nginx", "-e", str(self._folder / f"{template}.log"), "-c", str(configuration)]
        return self._started(name, command, port, workloads, {})

    def _peer(
        self, name: str, command: Sequence[str], workloads: Sequence[Workload], **variables: str
    ) -> Server:
        port = free_port()
        command = [argument.format(port=port) for argument in command]
        variables |= {"GHIBLI_API_BASE_URL": f"{self._upstream}/", "PYTHONPATH": str(PEERS)}
        return self._started(name, command, port, workloads, variables)

    def _started(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        workloads: Sequence[Workload] | None,
        variables: Mapping[str, str],
    ) -> Server:
        log = self._stack.enter_context((self._folder / f"{port}.log").open("wb"))
        environment = {**clean_environment(), **variables}
        with pinned(SERVER_CORE):
            process = Process(command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        self._stack.callback(process.terminate)
        try:
            return ready(Server(name, f"http://127.0.0.1:{port}", [process.pid], workloads))
        except TimeoutError:
            raise BenchmarkError(f"{name}: {Path(log.name).read_text()}") from None


def ready(server: Server) -> Server:
    wait_until(server.responds, what=f"{server.name} responds")
    return server


def check_same_data(servers: Sequence[Server]) -> None:
    """Check that all serve the same bytes, apart from the timestamp."""
    for workload in (LIST, DETAIL, FILTER):
        bodies = {
            server.name: server.get(workload.path).body.rpartition(b',"timestamp"')[0]
            for server in servers
            if server.supports(workload)
        }
        different = [name for name, body in bodies.items() if body != bodies[servers[0].name]]
        if different:
            raise BenchmarkError(f"{workload.name}: other data than Totoro's from {different}")
