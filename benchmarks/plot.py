"""Plot results.json: python -m benchmarks.plot RESULTS FOLDER. Runs in the benchmark's environment."""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

from benchmarks.names import TOTORO
from benchmarks.results import Case, Results

# Ink, muted ink, surface, Totoro's bar, other bars: GitHub's page colours in both modes.
MODES = {
    "light": ("#1f2328", "#59636e", "#ffffff", "#2a78d6", "#b8c0c8"),
    "dark": ("#f0f6fc", "#9198a1", "#0d1117", "#3987e5", "#4a525c"),
}
# The same file for the same results, so that a new plot is a change only if the numbers are new.
FIXED = {"svg.hashsalt": "totoro", "svg.fonttype": "none", "font.family": "sans-serif"}
NO_DATE = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def plot(results: Results, folder: Path) -> None:
    """Write benchmark-light.png, benchmark-light.svg and the same for dark."""
    measured = [
        measurement
        for case, measurement in results.measurements.items()
        if case == Case(case.server, "list")
    ]
    measured.sort(key=lambda measurement: measurement.capacity)
    names = [measurement.case.server for measurement in measured]
    capacities = [measurement.capacity for measurement in measured]
    folder.mkdir(parents=True, exist_ok=True)
    for mode in MODES:
        draw(mode, names, capacities, folder / f"benchmark-{mode}")


def draw(mode: str, names: list[str], capacities: list[float], file: Path) -> None:
    ink, muted, surface, totoro, others = MODES[mode]
    with plt.rc_context(FIXED):
        figure, axes = plt.subplots(figsize=(8, 0.42 * len(names) + 0.9), facecolor=surface)
        axes.set_facecolor(surface)
        colours = [totoro if name == TOTORO else others for name in names]
        bars = axes.barh(names, capacities, color=colours, height=0.62)
        labels = [f"{capacity:,.0f}" for capacity in capacities]
        axes.bar_label(bars, labels, padding=5, color=ink, fontsize=10)
        title = "Requests per CPU-second: the list of 22 movies, cached, 32 connections"
        axes.set_title(title, color=muted, fontsize=10, loc="left", pad=10)
        axes.set_xlim(0, max(capacities) * 1.12)
        axes.xaxis.set_visible(False)
        axes.tick_params("y", length=0, labelcolor=ink, labelsize=10)
        axes.spines[:].set_visible(False)
        for text in axes.get_yticklabels():
            text.set_fontweight("bold" if text.get_text() == TOTORO else "normal")
        for kind, metadata in NO_DATE.items():
            path = file.with_suffix(f".{kind}")
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)
        plt.close(figure)


if __name__ == "__main__":
    plot(Results.read(Path(sys.argv[1])), Path(sys.argv[2]))
