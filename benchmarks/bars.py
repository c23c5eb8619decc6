"""What Totoro promises about its speed and memory, and whether a run has shown it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.names import (
    BARE_WSGI,
    BLACKSHEEP,
    DRF,
    FASTAPI_MEMORY,
    FASTAPI_REDIS,
    NGINX_CACHE,
    NGINX_STATIC,
    TOTORO,
    TOTORO_NONE_WAITING,
    TOTORO_WAITING,
    TOTORO_WITH_REDIS,
    TOTORO_WITHOUT_CACHE,
)
from benchmarks.results import Case, Results
from benchmarks.workloads import BESIDE_WAITING, MANY_CLIENTS

Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Bar:
    """`bar` must be reached, or not exceeded if `is_limit`; `aim` is what is hoped for."""

    measure: str
    value: Value
    bar: float
    aim: float | None = None
    is_limit: bool = False

    def verdict(self, results: Results) -> str:
        """Return pass, miss, or a dash if it was not measured."""
        value = self.value(results)
        if value is None:
            return "-"
        return "pass" if (value <= self.bar if self.is_limit else value >= self.bar) else "miss"


def ratio(case: Case, other: Case) -> Value:
    return lambda results: results.ratio(case, other)


def figure(name: str) -> Value:
    return lambda results: results.figure(name)


def list_and_detail(
    measure: str, server: str, other: str, bar: float, aim: float | None = None
) -> list[Bar]:
    return [
        Bar(f"{hit} hit {measure}", ratio(Case(server, hit), Case(other, hit)), bar, aim)
        for hit in ("list", "detail")
    ]


BARS = [
    *list_and_detail("against bare WSGI", TOTORO, BARE_WSGI, 0.60, 0.75),
    *list_and_detail("against FastAPI + Redis", TOTORO, FASTAPI_REDIS, 5, 7),
    *list_and_detail("against FastAPI in memory", TOTORO, FASTAPI_MEMORY, 2.2, 2.8),
    *list_and_detail("against BlackSheep + Redis", TOTORO, BLACKSHEEP, 3, 4.5),
    *list_and_detail("against naive DRF + cache_page", TOTORO, DRF, 25, 50),
    Bar("304 against a list hit", ratio(Case(TOTORO, "304"), Case(TOTORO, "list")), 1.2, 1.5),
    Bar(
        "list hit at 256 connections against bare WSGI",
        ratio(Case(TOTORO, "list", 256), Case(BARE_WSGI, "list", 256)),
        0.55,
        0.70,
    ),
    *(
        Bar(
            f"list hit at {text}, 128 requests waiting against none",
            ratio(
                Case(TOTORO_WAITING, BESIDE_WAITING.name, connections),
                Case(TOTORO_NONE_WAITING, BESIDE_WAITING.name, connections),
            ),
            0.9,
        )
        for connections, text in (
            (1, "1 connection"),
            (32, "32 connections"),
            (256, "256 connections"),
        )
    ),
    *list_and_detail(
        "with the cache off against FastAPI + Redis", TOTORO_WITHOUT_CACHE, FASTAPI_REDIS, 1, 1.3
    ),
    *list_and_detail("through nginx against nginx static", NGINX_CACHE, NGINX_STATIC, 0.9),
    Bar(
        "slowest response around an expiry against the steady p99.9",
        figure("expiry_slowest_to_p999"),
        2,
        is_limit=True,
    ),
    *(
        Bar(
            f"{hit} hit at 2,200 movies against 22",
            ratio(Case(TOTORO, hit, movies=2200), Case(TOTORO, hit, movies=22)),
            0.95,
        )
        for hit in ("detail", "page")
    ),
    Bar("refresh at 2,200 movies against 22", figure("refresh_growth"), 110, is_limit=True),
    Bar(
        "MB of a worker (RSS) after 100,000 requests",
        figure("worker_rss_mb"),
        85,
        75,
        is_limit=True,
    ),
    # What the kernel and the allocator may take for themselves.
    Bar("its growth over the next 100,000, MB", figure("worker_growth_mb"), 1, is_limit=True),
    Bar(
        "MB of each further worker (PSS, 4 workers)",
        figure("further_worker_pss_mb"),
        55,
        45,
        is_limit=True,
    ),
    Bar(
        "with Redis and leased quotas against without Redis",
        ratio(Case(TOTORO_WITH_REDIS, MANY_CLIENTS.name), Case(TOTORO, MANY_CLIENTS.name)),
        0.9,
    ),
]
