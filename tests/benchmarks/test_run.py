from dataclasses import dataclass, field

from benchmarks.load import Sample
from benchmarks.results import Case
from benchmarks.run import Options, Run
from benchmarks.server import Server
from benchmarks.workloads import LIST, Workload


@dataclass(frozen=True)
class ServerWithoutProcess(Server):
    """`seconds` of each sample."""

    seconds: list[int] = field(default_factory=list)

    def measure(self, workload: Workload, *, connections: int, seconds: int) -> Sample:
        self.seconds.append(seconds)
        capacity = 1000 * len(self.seconds)
        return Sample(capacity, 1.0, p50=1, p99=1, p999=1, slowest=1, cpu_seconds=1.0)


def run() -> Run:
    return Run(Options(3, 5, [LIST], growth=(), requests=1, expiry_seconds=1))


def test_rounds_follow_a_sample_that_does_not_count() -> None:
    server, complete = ServerWithoutProcess("Totoro", "", []), run()

    complete.measure([(server, 22)], LIST)

    assert server.seconds == [1, 5, 5, 5]
    samples = complete.results.measurements[Case("Totoro", "list")].samples
    assert [sample.capacity for sample in samples] == [2000, 3000, 4000]


def test_a_short_run_has_as_many_samples_of_a_second_in_the_same_results() -> None:
    server, complete = ServerWithoutProcess("Totoro", "", []), run()

    complete.short().measure([(server, 220)], LIST)

    assert server.seconds == [1, 1, 1]
    assert len(complete.results.measurements[Case("Totoro", "list", movies=220)].samples) == 3
