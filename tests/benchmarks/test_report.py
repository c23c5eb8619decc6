import re

from benchmarks.load import Sample
from benchmarks.names import BARE_WSGI, TOTORO
from benchmarks.report import growth, report
from benchmarks.results import Case, Results


def test_a_server_is_shown_with_capacity_rate_latency_and_memory() -> None:
    results = Results()
    for capacity in (7000, 8000, 9000):
        sample = Sample(capacity, 2.0, p50=900, p99=2000, p999=5000, slowest=9000, cpu_seconds=1)
        results.add(Case(TOTORO, "list"), sample, memory_mb=80)
        bare = Sample(10_000, 2.0, p50=100, p99=200, p999=500, slowest=900, cpu_seconds=1)
        results.add(Case(BARE_WSGI, "list"), bare, memory_mb=27)
    text = report(results)

    assert "list, 32 connections, 22 movies" in text
    assert re.search(r"^Totoro +8,000 +0\.8 +4,000 +0\.90 +2\.00 +80$", text, re.MULTILINE)


def test_what_was_measured_with_larger_catalogues_is_shown_by_size() -> None:
    results = Results()
    sample = Sample(7000, 2.0, p50=900, p99=2000, p999=5000, slowest=9000, cpu_seconds=1)
    for case in (
        Case(TOTORO, "list"),
        Case(TOTORO, "gzip"),
        Case(TOTORO, "list", 256),
        Case(TOTORO, "detail", movies=2200),
        Case(TOTORO, "list", movies=2200),
        Case(BARE_WSGI, "detail", movies=220),
    ):
        results.add(case, sample, memory_mb=80)

    assert growth(results) == (
        ["", "22 movies", "220 movies", "2,200 movies"],
        [
            [f"detail: {TOTORO}", "-", "-", "7,000"],
            [f"detail: {BARE_WSGI}", "-", "7,000", "-"],
            [f"list: {TOTORO}", "7,000", "-", "7,000"],
        ],
    )
    assert re.search(r"^list: Totoro +7,000 +- +7,000$", report(results), re.MULTILINE)


def test_figures_of_several_sizes_are_shown_in_one_row() -> None:
    text = report(Results(figures={"merge_ms_22_movies": 0.4718, "merge_ms_2200_movies": 183.4}))

    assert re.search(r"^ +22 movies +2,200 movies$", text, re.MULTILINE)
    assert re.search(r"^merge +0\.472 +183$", text, re.MULTILINE)


def test_other_figures_are_shown_one_by_one() -> None:
    text = report(Results(figures={"cold_start_seconds": 1.5}))

    assert re.search(r"^cold_start_seconds +1\.5$", text, re.MULTILINE)
