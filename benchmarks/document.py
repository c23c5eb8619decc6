"""Results in docs/performance.md, as a Markdown table between two comments."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import growth
from benchmarks.results import Results

BEGIN = "<!-- make benchmark writes this table -->\n"
END = "<!-- end of the table -->\n"


def update(file: Path, results: Results) -> None:
    """Replace the table in the document."""
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} has no place for a table")
    file.write_text("".join([before, begin, growth_markdown(results), end, after]))


def growth_markdown(results: Results) -> str:
    header, rows = growth(results)
    return "".join(map(line, [header, ["---", *("--:" for _ in header[1:])], *rows]))


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
