"""Load from wrk, and what it costs the server."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_tree import cpu_seconds, pinned

SERVER_CORE, LOAD_CORE = 0, 1
# Of the server's core. A server that waits for a single connection uses a quarter; nginx with files of
# 4 MB, which the kernel sends without a copy, 3 %.
MIN_CPU_SHARE = 0.01
SCRIPTS = Path(__file__).parent


class BenchmarkError(Exception):
    """A measurement that would say nothing."""


@dataclass(frozen=True)
class Load:
    """What wrk saw. Latencies in microseconds."""

    requests: int
    seconds: float
    p50: int
    p99: int
    p999: int
    slowest: int


@dataclass(frozen=True)
class Sample(Load):
    """A load, and the CPU time (seconds) that the server took for it."""

    cpu_seconds: float

    @property
    def capacity(self) -> float:
        """Requests per CPU-second of the server's process tree."""
        return self.requests / self.cpu_seconds

    @property
    def rate(self) -> float:
        """Requests per second of the clock."""
        return self.requests / self.seconds


def parse(output: str) -> Load:
    """Read what wrk.lua has printed; BenchmarkError if requests failed."""
    summary = json.loads(output.splitlines()[-1])
    errors = summary.pop("errors")
    if errors or not summary["requests"]:
        raise BenchmarkError(f"{errors} of {summary['requests']} requests failed")
    return Load(**summary)


def measure(
    pids: Sequence[int],
    url: str,
    headers: Mapping[str, str],
    connections: int,
    seconds: int,
    script: str,
) -> Sample:
    """Send as many requests as the server with these processes takes."""
    before = cpu_seconds(pids)
    load = send(url, headers, connections, seconds, script)
    return checked(Sample(**vars(load), cpu_seconds=cpu_seconds(pids) - before))


def checked(sample: Sample) -> Sample:
    """Return the sample; BenchmarkError if the server had next to no CPU time to show anything."""
    if sample.cpu_seconds < MIN_CPU_SHARE * sample.seconds:
        raise BenchmarkError(f"only {sample.cpu_seconds:.2f} s of CPU time: is the machine busy?")
    return sample


def send(url: str, headers: Mapping[str, str], connections: int, seconds: int, script: str) -> Load:
    options = [f"-c{connections}", f"-d{seconds}s", "-t1", "--timeout", "30s"]
    options += [f"-H{name}: {value}" for name, value in headers.items()]
    with pinned(LOAD_CORE):
        finished = subprocess.run(
            ["wrk", *options, "-s", SCRIPTS / script, url],
            capture_output=True,
            text=True,
            check=True,
        )
    return parse(finished.stdout)
