from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.load import Sample
from benchmarks.results import Case, Results


def results(capacity: int) -> Results:
    results = Results()
    sample = Sample(capacity, 2.0, p50=900, p99=2000, p999=5000, slowest=9000, cpu_seconds=1)
    for movies in (22, 220):
        results.add(Case("Totoro", "list", movies=movies), sample, memory_mb=80)
    return results


def test_the_table_of_a_document_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(f"# Growth\n\n{document.BEGIN}{document.END}\nMore.\n")

    document.update(file, results(7000))
    document.update(file, results(8000))

    table = "|  | 22 movies | 220 movies |\n| --- | --: | --: |\n| list: Totoro | 8,000 | 8,000 |\n"
    assert file.read_text() == f"# Growth\n\n{document.BEGIN}{table}{document.END}\nMore.\n"


@pytest.mark.parametrize("text", ["", document.BEGIN, document.END])
def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "performance.md"
    file.write_text(text)

    with pytest.raises(ValueError, match="no place for a table"):
        document.update(file, results(7000))
    assert file.read_text() == text
