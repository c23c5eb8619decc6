"""What is published are the results of one complete run."""

import pytest

from benchmarks.__main__ import DOCUMENT
from benchmarks.bars import BARS, Bar
from benchmarks.document import growth_markdown
from benchmarks.names import TOTORO
from benchmarks.results import Case, Results
from tests.support.servers import ROOT

PUBLISHED = Results.read(ROOT / "benchmarks" / "results.json")


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.measure)
def test_every_bar_was_measured(bar: Bar) -> None:
    assert bar.verdict(PUBLISHED) in ("pass", "miss")


@pytest.mark.parametrize("workload", ["list", "detail", "page"])
def test_every_server_was_measured_with_larger_catalogues(workload: str) -> None:
    servers = {
        movies: {
            case.server for case in PUBLISHED.measurements if case[1:] == (workload, 32, movies)
        }
        for movies in (22, 220, 2200)
    }

    assert TOTORO in servers[22]
    assert servers[220] == servers[2200] == servers[22]


def test_the_document_shows_the_results_with_larger_catalogues() -> None:
    assert growth_markdown(PUBLISHED) in DOCUMENT.read_text()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_plots_show_the_results(mode: str) -> None:
    plot = (ROOT / "docs" / "images" / f"benchmark-{mode}.svg").read_text()
    shown = [
        measurement
        for case, measurement in PUBLISHED.measurements.items()
        if case == Case(case.server, "list")
    ]

    assert Case(TOTORO, "list") in [measurement.case for measurement in shown]
    for measurement in shown:
        assert f">{measurement.case.server}<" in plot
        assert f">{measurement.capacity:,.0f}<" in plot
