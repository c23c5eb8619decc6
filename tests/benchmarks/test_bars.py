import re

import pytest

from benchmarks.bars import BARS, Bar
from benchmarks.load import Sample
from benchmarks.names import BARE_WSGI, TOTORO
from benchmarks.report import bars_table
from benchmarks.results import Case, Results

LIST = Case(TOTORO, "list")
BARE = Case(BARE_WSGI, "list")


def sample(capacity: int) -> Sample:
    return Sample(capacity, 2.0, p50=900, p99=2000, p999=5000, slowest=9000, cpu_seconds=1.0)


def results(**capacities: list[int]) -> Results:
    """Return results with the samples of Totoro's list and bare WSGI's."""
    results = Results()
    for case, name in ((LIST, "totoro"), (BARE, "bare")):
        for capacity in capacities.get(name, []):
            results.add(case, sample(capacity), memory_mb=80)
    return results


def bar(measure: str) -> Bar:
    return next(each for each in BARS if each.measure == measure)


@pytest.mark.parametrize(("capacity", "verdict"), [(5999, "miss"), (6000, "pass"), (9000, "pass")])
def test_a_ratio_must_reach_its_bar(capacity: int, verdict: str) -> None:
    measured = results(totoro=[capacity], bare=[10_000])

    assert bar("list hit against bare WSGI").verdict(measured) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(84.9, "pass"), (85.0, "pass"), (85.1, "miss")])
def test_a_limit_must_not_be_exceeded(value: float, verdict: str) -> None:
    measured = Results(figures={"worker_rss_mb": value})

    assert bar("MB of a worker (RSS) after 100,000 requests").verdict(measured) == verdict


@pytest.mark.parametrize("measured", [Results(), results(totoro=[1])])
def test_what_was_not_measured_has_no_verdict(measured: Results) -> None:
    assert {each.verdict(measured) for each in BARS} == {"-"}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine was slow in the second round and slow for one server in the third.
    measured = results(totoro=[6000, 3000, 1000], bare=[10_000, 5000, 10_000])

    assert measured.ratio(LIST, BARE) == pytest.approx(0.6)


def test_the_table_shows_each_bar_with_its_verdict() -> None:
    text = bars_table(results(totoro=[7000], bare=[10_000]))

    assert re.search(r"^list hit against bare WSGI +0\.7 +≥ 0\.6 +0\.75 +pass$", text, re.MULTILINE)
    assert re.search(r"^detail hit against bare WSGI +- +≥ 0\.6 +0\.75 +-$", text, re.MULTILINE)
    assert text.count("\n") == len(BARS) + 4
