"""Capacity: requests per CPU-second of Totoro and its peers."""

from contextlib import ExitStack

from benchmarks.names import (
    TOTORO_NONE_WAITING,
    TOTORO_WAITING,
    TOTORO_WITH_REDIS,
    TOTORO_WITHOUT_CACHE,
)
from benchmarks.run import FILMS, Run
from benchmarks.server import Server
from benchmarks.servers import Launcher, check_same_data
from benchmarks.waiting import WAITING_SETTINGS, waiting_requests
from benchmarks.workloads import BESIDE_WAITING, GZIP, LIST, MANY_CLIENTS

# So that a client can say its address.
LEASED_QUOTA = {"THROTTLE_RATE": "60000/min", "TRUSTED_PROXIES": "1"}


def measure_peers(run: Run) -> None:
    """Measure all servers with the Ghibli API's catalogue, and Totoro with larger ones."""
    with ExitStack() as stack:
        run.progress("starting the servers")
        servers = [(server, FILMS) for server in all_servers(stack.enter_context(run.launcher()))]
        for times in run.options.growth:
            launcher = stack.enter_context(run.launcher(times))
            servers.append((launcher.totoro(RESPONSE_CACHE="on"), FILMS * times))
        for workload in run.options.workloads:
            run.measure(servers, workload)


def measure_growth(run: Run) -> None:
    """Measure the other servers with larger catalogues, in shorter samples."""
    # A sample would have next to no gzip request: most servers compress 4 MB for each.
    workloads = [workload for workload in run.options.workloads if workload != GZIP]
    for times in run.options.growth:
        with run.launcher(times) as launcher:
            run.progress(f"starting the servers, with {FILMS * times:,} movies")
            _, *others = all_servers(launcher)
            for workload in workloads:
                run.short().measure([(server, FILMS * times) for server in others], workload)


def all_servers(launcher: Launcher) -> list[Server]:
    """Return Totoro and its peers."""
    totoro, without_cache = totoros(launcher)
    servers = [
        totoro,
        without_cache,
        launcher.bare_wsgi(totoro),
        launcher.drf(),
        *launcher.fastapi(),
        launcher.blacksheep(),
        launcher.nginx_cache(launcher.totoro(RESPONSE_CACHE="on")),
        launcher.nginx_static(),
    ]
    check_same_data(servers)
    return servers


def totoros(launcher: Launcher) -> list[Server]:
    return [
        launcher.totoro(RESPONSE_CACHE="on"),
        launcher.totoro(TOTORO_WITHOUT_CACHE, RESPONSE_CACHE="off"),
    ]


def measure_connections(run: Run) -> None:
    with run.launcher() as launcher:
        totoro, without_cache = totoros(launcher)
        servers = [totoro, without_cache, launcher.bare_wsgi(totoro)]
        for connections in (1, 256):
            run.measure([(server, FILMS) for server in servers], LIST, connections)


def measure_waiting(run: Run) -> None:
    """Measure hits of two equal servers, in one of which as many requests wait as may."""
    with run.launcher() as launcher:
        names = (TOTORO_NONE_WAITING, TOTORO_WAITING)
        servers = [launcher.totoro(name, **WAITING_SETTINGS) for name in names]
        with waiting_requests(servers[1]):
            for connections in (1, 32, 256):
                run.measure([(server, FILMS) for server in servers], BESIDE_WAITING, connections)


def measure_leases(run: Run) -> None:
    """Measure a rate at which workers take quota from Redis, for 64 clients that use it up slowly."""
    with run.launcher() as launcher:
        redis = launcher.redis_url()
        servers = [
            launcher.totoro(**LEASED_QUOTA),
            launcher.totoro(TOTORO_WITH_REDIS, REDIS_URL=redis, **LEASED_QUOTA),
        ]
        run.measure([(server, FILMS) for server in servers], MANY_CLIENTS)
