"""What is published are the results of one complete run."""

import pytest

from benchmarks.bars import BARS
from benchmarks.names import TOTORO
from benchmarks.results import Case, Results
from tests.support.servers import ROOT

PUBLISHED = Results.read(ROOT / "benchmarks" / "results.json")


def test_every_bar_was_measured() -> None:
    assert [bar.measure for bar in BARS if bar.verdict(PUBLISHED) == "-"] == []


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
