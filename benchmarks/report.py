"""The results as tables."""

import re
from collections.abc import Iterable, Sequence

from benchmarks.bars import BARS
from benchmarks.names import BARE_WSGI
from benchmarks.results import Case, Results

Row = Sequence[str]

GROWTH = "Requests per CPU-second with larger catalogues, 32 connections"

# A figure that was measured with catalogues of several sizes.
OF_A_SIZE = re.compile(r"(?P<step>\w+)_ms_(?P<movies>\d+)_movies")


def table(title: str, header: Row, rows: Iterable[Row]) -> str:
    """Return an aligned table; all columns but the first are aligned to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    texts = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return "\n".join([title, "", *(text.rstrip() for text in texts), ""])


def report(results: Results) -> str:
    return "\n".join(
        [
            *capacity_tables(results),
            *growth_tables(results),
            *refresh_table(results),
            *figures_table(results),
            bars_table(results),
        ]
    )


def capacity_tables(results: Results) -> list[str]:
    header = ["", "requests/CPU-s", "to bare WSGI", "requests/s", "p50 ms", "p99 ms", "MB"]
    kinds = dict.fromkeys((case[1:]) for case in results.measurements)
    return [
        table(
            f"{workload}, {connections} connections, {movies:,} movies",
            header,
            [
                row(results, case)
                for case in results.measurements
                if case[1:] == (workload, connections, movies)
            ],
        )
        for workload, connections, movies in kinds
    ]


def row(results: Results, case: Case) -> Row:
    measurement = results.measurements[case]
    return [
        case.server,
        capacity(results, case),
        number(results.ratio(case, case._replace(server=BARE_WSGI))),
        f"{measurement.rate:,.0f}",
        f"{measurement.p50_ms:.2f}",
        f"{measurement.p99_ms:.2f}",
        f"{measurement.memory_mb:.0f}",
    ]


def growth_tables(results: Results) -> list[str]:
    header, rows = growth(results)
    return [table(GROWTH, header, rows)] if rows else []


def growth(results: Results) -> tuple[Row, Sequence[Row]]:
    """Return header and rows of a table: the capacity of what was measured with larger catalogues."""
    cases = [case for case in results.measurements if case == case._replace(connections=32)]
    sizes = sorted({case.movies for case in cases})
    kinds = {case[:2]: None for case in cases if case.movies != sizes[0]}
    workloads = list(dict.fromkeys(workload for _, workload in kinds))
    rows = [
        [
            f"{workload}: {server}",
            *(capacity(results, Case(server, workload, movies=movies)) for movies in sizes),
        ]
        for server, workload in sorted(kinds, key=lambda kind: workloads.index(kind[1]))
    ]
    return ["", *(f"{movies:,} movies" for movies in sizes)], rows


def capacity(results: Results, case: Case) -> str:
    measurement = results.measurements.get(case)
    return f"{measurement.capacity:,.0f}" if measurement else "-"


def refresh_table(results: Results) -> list[str]:
    names = [match for name in results.figures if (match := OF_A_SIZE.fullmatch(name))]
    sizes = dict.fromkeys(match["movies"] for match in names)
    rows = [
        [step, *(number(results.figure(f"{step}_ms_{movies}_movies")) for movies in sizes)]
        for step in dict.fromkeys(match["step"] for match in names)
    ]
    header = ["", *(f"{int(movies):,} movies" for movies in sizes)]
    return (
        [table("A refresh and the first requests after it, CPU ms", header, rows)] if rows else []
    )


def figures_table(results: Results) -> list[str]:
    rows = [
        [name, number(value)]
        for name, value in results.figures.items()
        if not OF_A_SIZE.fullmatch(name)
    ]
    return [table("Other figures", ["", "measured"], rows)] if rows else []


def bars_table(results: Results) -> str:
    rows = [
        [
            bar.measure,
            number(bar.value(results)),
            f"{'≤' if bar.is_limit else '≥'} {bar.bar:g}",
            "" if bar.aim is None else f"{bar.aim:g}",
            bar.verdict(results),
        ]
        for bar in BARS
    ]
    return table("Bars", ["", "measured", "bar", "aim", "verdict"], rows)


def number(value: float | None) -> str:
    """Return a number with three digits or more; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
