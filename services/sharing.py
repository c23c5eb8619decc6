"""What the workers of Totoro share: the current answer and the next, the lease to fly, the cool-down.

ProcessStore keeps it in the process: the embedded default, and what goes on when Redis does not.
RedisStore (redis_store.py) keeps it in Redis, for all processes and hosts. Both follow the same rules:

- One lease at a time, and only for a worker that has seen the newest answer. It ends by itself if
  its holder does.
- Leases have growing fences, and answers those of their leases. A leader hands its answer over only
  if there is none that it did not know at take-off: one that stalls and wakes late is refused.
- While the current answer lasts, the new one is staged behind it and no longer replaced: whoever has
  seen it can rely on it.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import structlog

from services import metrics
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.exceptions import Reason

log = structlog.get_logger(__name__)

# A leader that dies frees its lease within this (seconds)…
LEASE = 5.0
# …and one that lives renews it this often, so that two renewals may fail.
HEARTBEAT = 1.5
# No failure keeps anybody from flying for longer: the most that the Ghibli API may ask for.
LONGEST_COOL_DOWN = 300.0
# How long failures are counted after their cool-down, to make the next one longer.
FAILURES_REMEMBERED = 600.0


class Stored(NamedTuple):
    """A shared answer; `left`: seconds of its life by the store's own reckoning; `opens`: the instant
    before which nobody gives it, None if there is none."""

    snapshot: Snapshot
    fence: int
    left: float
    opens: datetime | None = None


class CoolDown(NamedTuple):
    """Nobody flies for `left` seconds: `failures` flights in a row failed, the last for `reason`."""

    reason: Reason
    failures: int
    left: float


class View(NamedTuple):
    """All that is shared, at one instant: the current answer and the one staged behind it, as far
    as they live, the fence of the newest even if it does not (0 for none), and the cool-down."""

    answers: tuple[Stored, ...] = ()
    newest: int = 0
    cool_down: CoolDown | None = None


class Lease(NamedTuple):
    """The right to fly.

    `fence` grows with every lease; `newest`: fence of the newest answer at take-off; `failures`:
    flights that failed in a row; `last`: the newest answer that was ever published.
    """

    token: str
    fence: int
    newest: int
    failures: int
    last: Snapshot | None


class Refusal(StrEnum):
    """Why there is no lease: another flies, flights cool down, or there is a newer answer."""

    BUSY = "busy"
    COOLING = "cooling"
    FRESH = "fresh"


class SharedStore(Protocol):
    """What Freshness needs of a store. Seconds everywhere; nothing raises."""

    @property
    def hand_over(self) -> float:
        """How long it takes until all who share have heard of an answer."""

    def view(self) -> View: ...
    def last(self) -> Snapshot | None:
        """The newest answer that was ever published, for when nothing is current."""

    def acquire(self, newest: int) -> Lease | Refusal:
        """The lease, for a worker that knows the answer with the fence `newest`, if none is newer."""

    def renew(self, lease: Lease) -> bool: ...
    def release(self, lease: Lease) -> None: ...
    def publish(self, lease: Lease, answer: Stored, live: Stored | None) -> bool:
        """Hand the answer over and give the lease back; False if it came too late.

        `live`: the answer that the publisher still gives, behind which the new one is staged.
        """

    def fail(self, lease: Lease, cool_down: CoolDown) -> None:
        """Give the lease back, and keep everybody from flying for a while."""

    def restore(self, held: Sequence[Stored]) -> bool:
        """Put back the answers that a worker gives, and the next, if the store has lost the newest.

        Says whether the store has a newer one.
        """

    def restore_last(self, last: Snapshot) -> Snapshot | None:
        """Put back the newest answer ever if the store has none or an older one; else give its own."""

    def is_well(self) -> bool: ...


@dataclass
class _Timed:
    """A value and the instant at which it ends."""

    value: Any
    end: float


class ProcessStore:
    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._kept: dict[str, _Timed] = {}
        self._last: Snapshot | None = None
        self._fence = 0

    @property
    def hand_over(self) -> float:
        return 0.0

    def view(self) -> View:
        with self._lock:
            answers, cool = self._answers(), self._get("cool")
            return View(
                tuple(answers),
                newest_fence(answers),
                cool.value._replace(left=cool.end - self._clock.boot()) if cool else None,
            )

    def last(self) -> Snapshot | None:
        return self._last

    def acquire(self, newest: int) -> Lease | Refusal:
        with self._lock:
            if self._get("cool"):
                return Refusal.COOLING
            if newest_fence(self._answers()) > newest:
                return Refusal.FRESH
            if self._get("lease"):
                return Refusal.BUSY
            time = int(self._clock.wall().timestamp() * 1e6)
            self._fence = max(self._fence + 1, newest + 1, time)
            failures = self._get("failures")
            token, failed = uuid.uuid4().hex, failures.value if failures else 0
            self._set("lease", token, LEASE)
            return Lease(token, self._fence, newest, failed, self._last)

    def renew(self, lease: Lease) -> bool:
        with self._lock:
            if not self._holds(lease):
                return False
            self._set("lease", lease.token, LEASE)
            return True

    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._holds(lease):
                del self._kept["lease"]

    def publish(self, lease: Lease, answer: Stored, live: Stored | None) -> bool:
        self.release(lease)
        with self._lock:
            if answer.left <= 0 or newest_fence(self._answers()) > lease.newest:
                return False
            if live and live.left > 0:
                self._set("current", live, live.left)
                self._set("next", answer, answer.left)
            else:
                self._set("current", answer, answer.left)
                self._kept.pop("next", None)
            self._last = answer.snapshot
            self._kept.pop("cool", None)
            self._kept.pop("failures", None)
            return True

    def fail(self, lease: Lease, cool_down: CoolDown) -> None:
        self.release(lease)
        with self._lock:
            self._set("cool", cool_down, cool_down.left)
            remembered = cool_down.left + FAILURES_REMEMBERED
            self._set("failures", cool_down.failures, remembered)

    def restore(self, held: Sequence[Stored]) -> bool:
        return False  # what is in the process is lost with it

    def restore_last(self, last: Snapshot) -> Snapshot | None:
        return None

    def is_well(self) -> bool:
        return True

    def _get(self, name: str) -> _Timed | None:
        kept = self._kept.get(name)
        return kept if kept and kept.end > self._clock.boot() else None

    def _set(self, name: str, value: object, seconds: float) -> None:
        self._kept[name] = _Timed(value, self._clock.boot() + seconds)

    def _holds(self, lease: Lease) -> bool:
        held = self._get("lease")
        return held is not None and held.value == lease.token

    def _stored(self, name: str) -> Stored | None:
        kept = self._get(name)
        return kept.value._replace(left=kept.end - self._clock.boot()) if kept else None

    def _answers(self) -> list[Stored]:
        return [stored for name in ("current", "next") if (stored := self._stored(name))]


def newest_fence(answers: Iterable[Stored]) -> int:
    return max((answer.fence for answer in answers), default=0)


@contextmanager
def kept(lease: Lease, store: SharedStore) -> Iterator[None]:
    """Renew the lease while the block lasts."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            if not store.renew(lease) and not over.is_set():
                log.warning("lease_lost", fence=lease.fence)
                metrics.leases.labels("lost").inc()
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        over.set()
