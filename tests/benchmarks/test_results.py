from pathlib import Path

from benchmarks.load import Sample
from benchmarks.results import Case, Results


def test_results_that_were_saved_are_read_again(tmp_path: Path) -> None:
    results = Results({"python": "3.11"}, figures={"cold_start_seconds": 1.5})
    for capacity in (5000, 6000):
        sample = Sample(capacity, 2.0, p50=1, p99=2, p999=3, slowest=4, cpu_seconds=1.0)
        results.add(Case("Totoro", "list"), sample, memory_mb=81.5)
    results.save(tmp_path / "new" / "results.json")

    assert Results.read(tmp_path / "new" / "results.json") == results
