"""What a run has measured, as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

from benchmarks.load import Sample


class Case(NamedTuple):
    """What was measured in one round after another."""

    server: str
    workload: str
    connections: int = 32
    movies: int = 22


@dataclass
class Measurement:
    """The samples of a case, one for each round. `memory_mb`: PSS of its process trees after them."""

    case: Case
    samples: list[Sample] = field(default_factory=list)
    memory_mb: float = 0.0

    @property
    def capacity(self) -> float:
        return median(sample.capacity for sample in self.samples)

    @property
    def rate(self) -> float:
        return median(sample.rate for sample in self.samples)

    @property
    def p50_ms(self) -> float:
        return median(sample.p50 for sample in self.samples) / 1000

    @property
    def p99_ms(self) -> float:
        return median(sample.p99 for sample in self.samples) / 1000


@dataclass
class Results:
    """`figures`: single numbers, by names that end with their unit."""

    machine: dict[str, str] = field(default_factory=dict)
    measurements: dict[Case, Measurement] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, case: Case, sample: Sample, memory_mb: float) -> None:
        measurement = self.measurements.setdefault(case, Measurement(case))
        measurement.samples.append(sample)
        measurement.memory_mb = memory_mb

    def ratio(self, case: Case, other: Case) -> float | None:
        """Return the median of the rounds' ratios of capacity, or None if one was not measured.

        Within a round the two were measured one after the other, so that both have suffered from
        whatever else the machine was doing.
        """
        if case not in self.measurements or other not in self.measurements:
            return None
        rounds = zip(self.measurements[case].samples, self.measurements[other].samples, strict=True)
        return median(one.capacity / another.capacity for one, another in rounds)

    def figure(self, name: str) -> float | None:
        return self.figures.get(name)

    def save(self, file: Path) -> None:
        measurements = [
            {**each.case._asdict(), "memory_mb": round(each.memory_mb, 1)}
            | {"samples": [asdict(sample) for sample in each.samples]}
            for each in self.measurements.values()
        ]
        document = {"machine": self.machine, "measurements": measurements, "figures": self.figures}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        document = json.loads(file.read_text())
        results = cls(document["machine"], figures=document["figures"])
        for record in document["measurements"]:
            case = Case(**{name: record[name] for name in Case._fields})
            for sample in record["samples"]:
                results.add(case, Sample(**sample), record["memory_mb"])
        return results
