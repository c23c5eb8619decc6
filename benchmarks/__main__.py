"""The command line: python -m benchmarks."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import document
from benchmarks.capacity import (
    measure_connections,
    measure_growth,
    measure_leases,
    measure_peers,
    measure_waiting,
)
from benchmarks.load import BenchmarkError
from benchmarks.memory import measure_memory
from benchmarks.miss_path import measure_miss_path
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.run import Options, Run
from benchmarks.servers import VENV
from benchmarks.timings import measure_cold_start, measure_expiry
from benchmarks.workloads import WORKLOADS
from tests.support.servers import ROOT

PARTS = {
    "peers": measure_peers,
    "growth": measure_growth,
    "connections": measure_connections,
    "waiting": measure_waiting,
    "leases": measure_leases,
    "miss": measure_miss_path,
    "expiry": measure_expiry,
    "start": measure_cold_start,
    "memory": measure_memory,
}
# Processes that run or want to (a load average), without the benchmark's own.
QUIET_LOAD = 0.5
MEASURED = ROOT / "var" / "benchmarks"
PUBLISHED = ROOT / "benchmarks"
DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = "results.json"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each sample")
    names = ", ".join([*PARTS, *WORKLOADS])
    parser.add_argument(
        "--only", nargs="+", choices=[*PARTS, *WORKLOADS], metavar="NAME", help=f"of {names}"
    )
    parser.add_argument("--quick", action="store_true", help="to try it: one round of one second")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="update the committed results, and plots and a table in docs/",
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing: show the published results"
    )
    arguments = parser.parse_args()
    if arguments.publish and (arguments.quick or arguments.only):
        parser.error("only a complete run may be published")
    return arguments


def options(arguments: argparse.Namespace) -> Options:
    only = arguments.only or []
    workloads = [WORKLOADS[name] for name in only if name in WORKLOADS]
    return Options(
        rounds=1 if arguments.quick else arguments.rounds,
        seconds=1 if arguments.quick else arguments.seconds,
        workloads=workloads or list(WORKLOADS.values()),
        growth=() if arguments.quick else (10, 100),
        requests=10_000 if arguments.quick else 100_000,
        expiry_seconds=12 if arguments.quick else 45,
    )


def parts(arguments: argparse.Namespace) -> list[str]:
    if not arguments.only:
        return list(PARTS)
    chosen = [name for name in arguments.only if name in PARTS]
    has_workload = any(name in WORKLOADS for name in arguments.only)
    return list(dict.fromkeys([*(["peers"] if has_workload else []), *chosen]))


def check_machine() -> None:
    missing = [name for name in ("wrk", "nginx") if not shutil.which(name)]
    if missing:
        sys.exit(f"Missing: apt-get install {' '.join(missing)}")
    if os.getloadavg()[0] > QUIET_LOAD:
        print("This machine is busy, which costs all servers, but not equally.", file=sys.stderr)
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("Needs two cores: one for the server, one for the load generator.")


def machine() -> dict[str, str]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def plot(results: Path, folder: Path) -> None:
    command = [str(VENV / "python"), "-m", "benchmarks.plot", str(results), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    arguments = parse_arguments()
    if arguments.report:
        print(report(Results.read(PUBLISHED / RESULTS)))
        return
    check_machine()
    run = Run(options(arguments), Results(machine()))
    try:
        for name in parts(arguments):
            PARTS[name](run)
            run.results.save(MEASURED / RESULTS)
    except (BenchmarkError, KeyboardInterrupt) as error:
        sys.exit(f"\n{error!r}")
    run.progress.clear()
    print(report(run.results))
    if "peers" in parts(arguments):
        plot(MEASURED / RESULTS, MEASURED)
    if arguments.publish:
        run.results.save(PUBLISHED / RESULTS)
        plot(PUBLISHED / RESULTS, ROOT / "docs" / "images")
        document.update(DOCUMENT, run.results)


if __name__ == "__main__":
    main()
