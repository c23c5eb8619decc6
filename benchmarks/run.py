"""What all parts of the benchmark share: options, results, and servers that end with their part."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from benchmarks.catalogue import upstream
from benchmarks.load import LOAD_CORE
from benchmarks.process_tree import pinned, pss_mb
from benchmarks.progress import Progress
from benchmarks.results import Case, Results
from benchmarks.server import Server
from benchmarks.servers import Launcher
from benchmarks.workloads import Workload
from tests.support.servers import Valkey

CONNECTIONS = 32
# In the Ghibli API.
FILMS = 22


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: int
    workloads: Sequence[Workload]
    # By how much the catalogues are multiplied that show how costs grow.
    growth: Sequence[int]
    # How many requests a worker's memory is measured after, and for how long expiries are watched.
    requests: int
    expiry_seconds: int
    warm_up_seconds: int = 1


@dataclass
class Run:
    options: Options
    results: Results = field(default_factory=Results)
    progress: Progress = field(default_factory=Progress)

    def short(self) -> Self:
        """Return a run with the same results, and rounds of one second, of which the first warms up.

        As an outlier, that one does not change the median.
        """
        return replace(self, options=replace(self.options, seconds=1, warm_up_seconds=0))

    @contextmanager
    def launcher(self, times: int = 1) -> Iterator[Launcher]:
        """Start an upstream with the catalogue `times` times, and Redis, for the servers of a part."""
        with ExitStack() as stack:
            prefix = "totoro-benchmark-"
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
            with pinned(LOAD_CORE):
                ghibli = stack.enter_context(upstream(times))
                valkey = Valkey("--databases", "64")
            stack.callback(valkey.terminate)
            yield Launcher(stack, folder, ghibli.url, valkey.url)

    def measure(
        self,
        servers: Iterable[tuple[Server, int]],
        workload: Workload,
        connections: int = CONNECTIONS,
    ) -> None:
        """Measure servers in turn, in several rounds; each comes with its number of movies."""
        cases = [
            (Case(server.name, workload.name, connections, movies), server)
            for server, movies in servers
            if server.supports(workload)
        ]
        first = 0 if self.options.warm_up_seconds else 1
        for turn in range(first, self.options.rounds + 1):
            for case, server in cases:
                self._measure(case, server, workload, turn)

    def _measure(self, case: Case, server: Server, workload: Workload, turn: int) -> None:
        at = f"{case.workload}, {case.connections} connections, {case.movies:,} movies"
        self.progress(f"{at}, round {turn} of {self.options.rounds}: {case.server}")
        seconds = self.options.seconds if turn else self.options.warm_up_seconds
        sample = server.measure(workload, connections=case.connections, seconds=seconds)
        if turn:
            self.results.add(case, sample, sum(map(pss_mb, server.pids)))
