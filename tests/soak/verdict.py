"""The promises that must hold for every response, judged by the faults that were active."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.soak.faults import Soak
from tests.soak.history import Window
from tests.support.load_client import TOLERANCE, FailedRequest, ObservedResponse

# Delays in seconds: a lease whose holder is dead, the first and the longest backoff with its jitter,
# an upstream that sends nothing, Redis after an error.
LEASE = 5.0
FIRST_BACKOFF, LONGEST_BACKOFF, JITTER = 5.0, 30.0, 1.2
READ_TIMEOUT = 5.0
CIRCUIT_BREAKER = 2.0


class Verdict:
    def __init__(self, soak: Soak) -> None:
        self.soak, self.result = soak, soak.result
        history = soak.history
        self.redis_outages = [
            Window(window.start, self._end_of_divergence(window)) for window in history.redis
        ]
        self.upstream_outages = [
            self._until_recovery(outage) for outage in settled_outages(history.upstream)
        ]
        successful = self.result.successful
        self.delivered = [one for one in successful if not self._worker_was_stopped(one)]
        self.with_upstream = [
            one for one in self.delivered if not during(self.upstream_outages, one)
        ]
        self.with_redis = [one for one in self.delivered if not during(self.redis_outages, one)]
        # What breaks a promise:
        self.old = [one for one in self.with_upstream if one.age > soak.ttl + TOLERANCE]
        self.backwards = [one for one in self.with_redis if one.is_backwards]
        self.unsuccessful = self.result.unsuccessful
        self.unexplained = [one for one in self.result.failures if not self._worker_was_killed(one)]

    @property
    def passed(self) -> bool:
        return not (self.old or self.backwards or self.unsuccessful or self.unexplained)

    def _end_of_divergence(self, outage: Window) -> float:
        """Return when all processes share an entry again.

        Each serves its own entry until that expires; while refreshes fail, its own last known good.
        """
        first_refresh = min(self._receipts_of_data_after(outage.end), default=float("inf"))
        return first_refresh + self.soak.ttl + CIRCUIT_BREAKER + 1

    def _until_recovery(self, outage: Window) -> Window:
        """End an outage with the first newer data, which Redis, if it works, shares with all."""
        if overlaps(self.redis_outages, outage.start, outage.end):
            return outage
        last = max(w.end for w in self.soak.history.upstream if w.end <= outage.end)
        first_refresh = min(self._receipts_of_data_after(last), default=outage.end)
        return Window(outage.start, min(outage.end, first_refresh + 2))

    def _receipts_of_data_after(self, instant: float) -> list[float]:
        """Return when clients received data that was fetched after this instant."""
        wall = instant + time.time() - time.monotonic()
        return [
            response.received for response in self.result.successful if response.timestamp > wall
        ]

    def _worker_was_stopped(self, response: ObservedResponse) -> bool:
        return any(
            response.sent <= window.start + 0.01 <= response.received
            and response.port in window.ports
            for window in self.soak.history.stopped
        )

    def _worker_was_killed(self, failure: FailedRequest) -> bool:
        kills = self.soak.history.kills
        return any(i == failure.server and w.start <= failure.failed <= w.end for i, w in kills)

    def summary(self, minutes: float) -> dict[str, object]:
        result, delivered = self.result, self.delivered
        not_2xx = Counter(one.status for one in self.unsuccessful if one.status != 200)
        defects = Counter(one.defect for one in self.unsuccessful if one.defect)
        median, p99 = result.latency(0.5), result.latency(0.99)
        return {
            "responses": len(result.responses),
            "oldest while the upstream worked": f"{oldest(self.with_upstream):.3f} s of {self.soak.ttl}",
            "oldest": f"{oldest(delivered):.3f} s",
            "older than the TTL with the upstream": f"{len(self.old)} of {len(self.with_upstream)}",
            "stale": sum(response.is_stale for response in delivered),
            "not 2xx": dict(not_2xx),
            "defective": dict(defects),
            "backwards while Redis worked": f"{len(self.backwards)} of {len(self.with_redis)}",
            "backwards while Redis was down": len(result.backwards) - len(self.backwards),
            "failed because of a kill": len(result.failures) - len(self.unexplained),
            "failed otherwise": dict(Counter(failure.reason for failure in self.unexplained)),
            "delayed by a stopped worker": len(result.successful) - len(delivered),
            "refreshes per minute": f"{self.soak.films / minutes:.1f}, {self._events()}",
            "latency": f"median {median * 1000:.1f} ms, 99 % {p99:.3f} s",
            "slowest": f"{result.latency(1):.3f} s",
            "slowest without stopped workers": f"{max(r.latency for r in delivered):.3f} s",
            "faults": json.dumps(self.soak.history.counts),
        }

    def _events(self) -> dict[str, int]:
        names = ("refresh_succeeded", "refresh_superseded", "refresh_failed", "lease_lost")
        entries = [entry for replica in self.soak.replicas for entry in replica.events(*names)]
        return dict(Counter(entry["event"] for entry in entries))

    def report(self, minutes: float) -> None:
        for name, value in self.summary(minutes).items():
            print(f"{name:<42} {value}")  # noqa: T201 (a program's output)
        examples: dict[str, Sequence[object]] = {
            "old": self.old,
            "backwards": self.backwards,
            "unsuccessful": self.unsuccessful,
            "failed": self.unexplained,
        }
        for what, broken in examples.items():
            for one in broken[:5]:
                print(f"  {what}: {one}")  # noqa: T201


def settled_outages(outages: Sequence[Window]) -> Iterator[Window]:
    """Yield each outage until the next refresh must have succeeded.

    That is after the backoff, and the lease of a worker that was killed meanwhile.
    """
    merged: list[Window] = []
    for outage in sorted(outages, key=lambda window: window.start):
        start = outage.start
        if merged and outage.start <= merged[-1].end:
            start = merged.pop().start
        backoff = min(FIRST_BACKOFF + outage.end - start, LONGEST_BACKOFF) * JITTER
        merged.append(Window(start, outage.end + backoff + READ_TIMEOUT + LEASE + 2))
    yield from merged


def overlaps(windows: Sequence[Window], start: float, end: float) -> bool:
    return any(window.start <= end and start <= window.end for window in windows)


def during(windows: Sequence[Window], response: ObservedResponse) -> bool:
    return overlaps(windows, response.sent, response.received)


def oldest(responses: Sequence[ObservedResponse]) -> float:
    return max((response.age for response in responses), default=0.0)
