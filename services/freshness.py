"""The one-minute law.

An answer lives for one TTL from its timestamp. While it does, every worker gives it and no other. In
its last seconds, if anybody asked for it, one worker of all flies: it takes the lease, asks the
Ghibli API, and stages the next answer, which goes live for every worker as the current one ends.
Nobody waits for that flight. When nothing is live, a request waits for a flight, and if flights
fail, the newest answer of old goes on, marked as stale. The first answer after that opens a moment
later, when all have heard of it, so that nobody is given the old one again.

`Freshness` is what a process knows and decides; the thread that flies for it is in refresher.py.
"""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple, TypeVar

from services import metrics
from services.background import CoalescedCalls
from services.catalogue import merge
from services.catalogue.plausibility import PlausibilityCheck
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.exceptions import MoviesUnavailable, Reason, UpstreamError
from services.ghibli.client import Fetched
from services.persistence import DatabaseStore
from services.sharing import LONGEST_COOL_DOWN, CoolDown, Lease, Refusal, SharedStore, Stored

# The longest that a request waits for a flight (seconds), less than proxies wait for us.
FOREGROUND_WAIT = 8.0
# An answer is given up this much before its time is over, to be rendered, sent and read in time…
MARGIN = 0.5
# …but never more than this share of a short life.
MARGIN_SHARE = 0.05
# Store and wall clock agree on an answer's end within this (seconds), or the earlier is believed.
AGREEMENT = 0.5
# Cool-downs after one, two, … failed flights in a row, give or take a fifth so that replicas that
# lost Redis do not ask in step. The Ghibli API's own Retry-After may stretch one, within limits.
COOL_DOWNS = (5.0, 10.0, 20.0, 30.0)
COOL_DOWN_JITTER = 0.2
# /readyz says of a part that has not answered by then that it is not well (seconds); Kubernetes gives
# a probe one second.
HEALTH_SECONDS = 0.3
# The longest that a flight waits for the database, which may hang where no time-out of its own ends it.
DATABASE_SECONDS = 1.5
RETRY_AFTER_LIMITS = (1.0, LONGEST_COOL_DOWN)


T = TypeVar("T")


class Policy(NamedTuple):
    """The numbers of the law, in seconds (CACHE_TTL, REFRESH_AHEAD, STALE_IF_ERROR)."""

    ttl: float
    ahead: float
    stale_if_error: float
    # Requests of this process that may wait for a refresh at a time; others need its threads.
    most_waiting: int = 128

    @property
    def life(self) -> float:
        """For how long an answer is given."""
        return self.ttl - min(MARGIN, self.ttl * MARGIN_SHARE)


class Held(NamedTuple):
    """An answer in this process, given from `start` to `end`; these and `born` are instants of the
    boot clock."""

    snapshot: Snapshot
    fence: int
    born: float
    start: float
    end: float


class Trouble(NamedTuple):
    """Flights fail: none before `until`, and from `over` on all is well (boot clock)."""

    reason: Reason
    until: float
    over: float = math.inf


class Source(StrEnum):
    """How an answer was come by."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"


@dataclass(frozen=True)
class Answer:
    """A snapshot for a client.

    `age` and `ttl` in seconds; a stale answer's `ttl` says how far below zero it is, and `why` the
    reason. `ends`: the instant of the boot clock until which every worker gives it.
    """

    snapshot: Snapshot
    source: Source
    age: float
    ttl: float
    ends: float
    why: Reason | None = None


@dataclass(frozen=True)
class Health:
    """`ready`: /movies/ could be answered. `fresh` and `age` (seconds) are the data's."""

    ready: bool
    cache: bool
    database: bool
    fresh: bool
    age: float | None


def seconds_left(
    life: float, timestamp: datetime, wall: datetime, stored_left: float, took: float = 0.0
) -> float:
    """What is left of an answer's life, by its timestamp and by whoever kept it.

    Both count the same seconds on different clocks. When they disagree one clock has been set, and
    the earlier end is the safe one. `took`: how much later than `wall` the keeper may have looked;
    a busy worker is slow to ask, and must not leave its answer before the others for that.
    """
    by_wall = life - (wall - timestamp).total_seconds()
    agree = -AGREEMENT <= by_wall - stored_left <= AGREEMENT + took
    return min(by_wall if agree else min(by_wall, stored_left), life)


def cool_down_seconds(failures: int, retry_after: float | None, jitter: float) -> float:
    """How long nobody flies after so many failures in a row; `jitter` from -1 to 1."""
    step = COOL_DOWNS[min(failures, len(COOL_DOWNS)) - 1]
    least, most = RETRY_AFTER_LIMITS
    asked = min(max(retry_after, least), most) if retry_after is not None else 0.0
    return max(step * (1 + COOL_DOWN_JITTER * jitter), asked)


class Freshness:
    """What this process holds, and what to do about it."""

    def __init__(
        self,
        store: SharedStore,
        database: DatabaseStore,
        policy: Policy,
        clock: Clock | None = None,
    ) -> None:
        self._store, self._database, self._policy = store, database, policy
        self._clock = clock or Clock()
        # Guards what follows; notified whenever an answer or a failure has come in. The first two
        # are replaced whole, so that a hit reads them without it.
        self.changed = threading.Condition()
        self._held: tuple[Held, ...] = ()
        self._last: Held | None = None
        self._trouble: Trouble | None = None
        self._failures = 0
        # The first of the failures in a row (boot clock), as far as this process has heard of it.
        self.failing_since: float | None = None
        self._newest = 0
        self._plausibility = PlausibilityCheck()
        # The answer that was last asked for, and whether anybody asked since the last failure: what
        # nobody asks for is not refreshed.
        self._wanted: Held | None = None
        # What may hang, each in one thread at most.
        self._calls = CoalescedCalls("parts")
        self._missed = False
        self._waiting = 0

    # For requests

    def hit(self) -> Answer | None:
        """The live answer, if this process holds it. Touches no network and no lock."""
        now = self._clock.boot()
        live = self.live(now)
        return self._answer(live, now, Source.HIT) if live else None

    def live(self, now: float) -> Held | None:
        """The held answer whose time it is; its successor waits for its own."""
        return next((held for held in self._held if held.start <= now < held.end), None)

    def wants(self, answer: Answer) -> bool:
        """Note that the live answer is asked for; says whether that is news."""
        if self._wanted and self._wanted.snapshot is answer.snapshot:
            return False
        self._wanted = self.live(self._clock.boot())
        return True

    def stale(self, wake: Callable[[], None]) -> Answer | None:
        """The last answer, while flights are known to fail and the next one has not landed.

        `wake` is told of the first who asks, so that the next flight starts when it may.
        """
        now = self._clock.boot()
        trouble, opens = self._trouble_at(now), self._opens_in(now) > 0
        if not trouble or (now >= trouble.until and not self._missed and not opens):
            return None
        if not self._missed and not opens:
            self._missed = True
            wake()
        answer = self._stale(trouble.reason, now)
        if not answer and now < trouble.until:
            raise MoviesUnavailable(trouble.reason, retry_after=trouble.until - now)
        return answer

    def wait(self, wake: Callable[[], None]) -> Answer:
        """The answer of the flight that is or gets under way; `wake` sees to it."""
        with self.changed:
            if self._waiting >= self._policy.most_waiting:
                return self._stale_or_raise(Reason.BUSY, retry_after=1.0)
            # A failure that came in since `stale` looked is what was to be waited for.
            known = self._failures - self._is_cooling(self._clock.boot())
            self._waiting, self._missed = self._waiting + 1, True
            try:
                wake()
                self.changed.wait_for(lambda: self._has_come(known), FOREGROUND_WAIT)
            finally:
                self._waiting -= 1
            while (seconds := self._opens_in(self._clock.boot())) > 0:
                self.changed.wait(seconds)
        return self._waited_for(known)

    def _has_come(self, known: int) -> bool:
        """An answer, or a failure after so many."""
        now = self._clock.boot()
        answer = self.live(now) is not None or self._opens_in(now) > 0
        return answer or self._failures != known

    def _waited_for(self, known: int) -> Answer:
        now = self._clock.boot()
        if live := self.live(now):
            return self._answer(live, now, Source.MISS)
        failed = self._trouble_at(now) if self._failures != known else None
        if failed:
            return self._stale_or_raise(failed.reason, retry_after=failed.until - now)
        return self._stale_or_raise(Reason.SLOW, retry_after=1.0)

    def _stale_or_raise(self, reason: Reason, *, retry_after: float) -> Answer:
        if answer := self._stale(reason, self._clock.boot()):
            return answer
        raise MoviesUnavailable(reason, retry_after=retry_after)

    def health(self) -> Health:
        """How the parts are, without asking the Ghibli API; within HEALTH_SECONDS whatever hangs."""
        is_cache_well = self._calls.start("cache", self._store.is_well)
        is_database_well = self._calls.start("database", self._asked, self._database.is_well)
        newest = self._calls.start("last", self._newest_shared)
        parts: list[Future[Any]] = [is_cache_well, is_database_well, newest]
        wait(parts, HEALTH_SECONDS)
        shared = newest.result() if newest.done() else None
        now = self._clock.boot()
        live = self.live(now)
        last = live or self._last_at(now) or (self._as_held(shared) if shared else None)
        age = now - last.born if last else None
        usable = age is not None and age <= self._policy.stale_if_error
        return Health(
            # With nothing kept a first request would fly; only a failed flight proves it vain.
            ready=usable or self._trouble_at(now) is None,
            cache=is_cache_well.done() and is_cache_well.result(),
            database=is_database_well.done() and is_database_well.result(),
            fresh=live is not None,
            age=age,
        )

    def _asked(self, question: Callable[[], T]) -> T:
        """What the database says to the question, in a thread of its own."""
        try:
            return question()
        finally:
            self._database.close()  # this thread's

    def keep(self, snapshot: Snapshot) -> None:
        """Have the database keep the snapshot; go on without it if that takes too long."""
        keep = partial(self._database.keep, snapshot)
        wait([self._calls.start("keep", self._asked, keep)], DATABASE_SECONDS)

    def _newest_shared(self) -> Snapshot | None:
        """The newest of Redis and, if that has none, of the database; None while this process has one."""
        if self._last_at(self._clock.boot()):
            return None
        return self._store.last() or self._newest_row()

    def _newest_row(self) -> Snapshot | None:
        """The database's, unless it takes too long: no socket time-out covers a resolver."""
        reading: Future[Snapshot | None] = self._calls.start(
            "newest row", self._asked, self._database.newest
        )
        try:
            return reading.result(DATABASE_SECONDS)
        except TimeoutError:
            return None

    def _stale(self, reason: Reason, now: float) -> Answer | None:
        last = self._last_good(now)
        return self._answer(last, now, Source.STALE, reason) if last else None

    def _last_good(self, now: float) -> Held | None:
        """The last answer, as long as it may be given in place of a fresh one."""
        last = self._last_at(now)
        return last if last and now - last.born <= self._policy.stale_if_error else None

    def _last_at(self, now: float) -> Held | None:
        return next((held for held in reversed(self._held) if held.start <= now), self._last)

    def _trouble_at(self, now: float) -> Trouble | None:
        trouble = self._trouble
        return trouble if trouble and now < trouble.over else None

    def _opens_in(self, now: float) -> float:
        """Seconds until an answer goes live for everybody where there is none; else 0 or less."""
        held = self._held
        return held[-1].start - now if held and not self.live(now) else 0.0

    def _answer(self, held: Held, now: float, source: Source, why: Reason | None = None) -> Answer:
        metrics.answers.labels(source).inc()
        ttl = held.end - now
        if source is Source.STALE:  # young as it may be, it has not come from all workers' entry
            ttl = min(held.born + self._policy.ttl - now, 0.0)
        return Answer(held.snapshot, source, now - held.born, ttl, held.end, why)

    # For whoever flies

    @property
    def is_waited_for(self) -> bool:
        return self._waiting > 0

    def due(self) -> float | None:
        """In how many seconds a flight is due; 0 or less for now, None for not at all."""
        now = self._clock.boot()
        live, trouble = self.live(now), self._trouble_at(now)
        if self._held and self._held[-1].start > now:
            return None  # the next answer is staged
        wanted = self._waiting > 0 or (self._missed if not live else self._wanted is live)
        if not wanted:
            return None
        start = live.end - self._policy.ahead if live else now
        return max(start, trouble.until if trouble else start) - now

    def take_off(self) -> Lease | Refusal:
        """The lease, if nobody has anything newer; else take over what they have, and why not."""
        granted = self._store.acquire(self._newest)
        metrics.leases.labels(granted if isinstance(granted, Refusal) else "granted").inc()
        if isinstance(granted, Refusal):
            self.sync()
        return granted

    def sync(self) -> None:
        """Take over what the others share."""
        before, wall = self._clock.both()
        view = self._store.view()
        took = self._clock.boot() - before
        with self.changed:
            for stored in view.answers:
                self._adopt(stored, before, wall, took)
            self._newest = max(self._newest, view.newest)
            cool_down = view.cool_down
            cools = cool_down is not None and not self._is_cooling(before)
        if cool_down and cools:
            self.recall(self._store.last())
            self._fail(cool_down.reason, before + cool_down.left, first=cool_down.failures == 1)
        with self.changed:
            self.changed.notify_all()

    def share(self) -> None:
        """Let the others have what this process holds, where the store has lost it, and the reverse.

        The store may have been emptied: workers without the next answer would refresh on their own, and
        those without the last one keep different ones.
        """
        now = self._clock.boot()
        held = [
            Stored(one.snapshot, one.fence, one.end - now) for one in self._held if one.end > now
        ]
        last = self._last_at(now)
        if held and self._store.restore(held):
            self.sync()
        elif not held and last and (shared := self._store.restore_last(last.snapshot)):
            self.recall(shared)

    def recall(self, shared: Snapshot | None) -> None:
        """Fall back on the newest of process, Redis (`shared`) and, if both have none, database.

        That may be slow, so a flight does it while it waits for the Ghibli API.
        """
        kept = self._kept(shared)
        with self.changed:
            now = self._clock.boot()
            last = self._last_at(now)
            if kept and (not last or kept.snapshot.timestamp > last.snapshot.timestamp):
                self._held = tuple(held for held in self._held if held.end > now)
                self._last = kept
                metrics.snapshot_timestamp.set(kept.snapshot.timestamp.timestamp())

    def land(self, lease: Lease, fetched: Fetched, took_off: float) -> Snapshot | None:
        """Publish what a flight brought, after `recall`; None if another answer was there first.

        `took_off`: the boot clock before the flight. UpstreamError for data that cannot be used.
        """
        merged = merge.build(fetched.films, fetched.people)
        metrics.mended.labels("duplicate").inc(merged.duplicates)
        metrics.mended.labels("unknown_film").inc(merged.unknown_films)
        snapshot = Snapshot(fetched.timestamp, merged.movies)
        self._check_size(snapshot)
        now, wall = self._clock.both()
        left = seconds_left(
            self._policy.life, snapshot.timestamp, wall, self._policy.life - (now - took_off)
        )
        live = self.live(now)
        # While others go on with the last answer, after failures, this one opens for all at once.
        in_trouble = (lease.failures or self._trouble_at(now)) and self._last_good(now)
        seconds = min(self._store.hand_over, left / 2) if in_trouble and not live else 0.0
        opens = wall + timedelta(seconds=seconds) if seconds > 0 else None
        answer = Stored(snapshot, lease.fence, left, opens)
        behind = Stored(live.snapshot, live.fence, live.end - now) if live else None
        published = self._store.publish(lease, answer, behind)
        metrics.publications.labels("live" if published else "late").inc()
        if not published:
            return None
        with self.changed:
            self._adopt(answer, now, wall)
            self._newest = max(self._newest, lease.fence)
            self.changed.notify_all()
        return snapshot

    def _check_size(self, snapshot: Snapshot) -> None:
        """UpstreamError if most films are gone from what could be given in its place."""
        now = self._clock.boot()
        if last := self._last_good(now):
            self._plausibility.check(snapshot, last.snapshot, now)

    def crash(self, lease: Lease, error: UpstreamError, jitter: float) -> CoolDown:
        """Keep everybody from flying for a while, and tell those who wait; after `recall`."""
        failures = lease.failures + 1
        seconds = cool_down_seconds(failures, error.retry_after, jitter)
        cool_down = CoolDown(error.reason, failures, seconds)
        self._store.fail(lease, cool_down)
        self._fail(error.reason, self._clock.boot() + seconds, first=failures == 1)
        return cool_down

    def back_off(self, reason: Reason, jitter: float) -> None:
        """Keep this process from refreshing for a while, and wake those who wait."""
        self._fail(reason, self._clock.boot() + cool_down_seconds(1, None, jitter))

    def _fail(self, reason: Reason, until: float, *, first: bool = False) -> None:
        """Note a failure; `first`: of an outage, so one that is known ended without this process."""
        with self.changed:
            self._trouble, self._missed = Trouble(reason, until), False
            self._failures += 1
            if first or self.failing_since is None:
                self.failing_since = self._clock.boot()
            self.changed.notify_all()

    def _adopt(self, stored: Stored, now: float, wall: datetime, took: float = 0.0) -> None:
        """Hold an answer if it is newer than those that live; what is held keeps its end."""
        snapshot = stored.snapshot
        left = seconds_left(self._policy.life, snapshot.timestamp, wall, stored.left, took)
        # One that has not started gives way to a newer one: the store had lost it, and others never
        # saw it.
        living = [
            held
            for held in self._held
            if held.end > now and (held.start <= now or held.fence >= stored.fence)
        ]
        if left <= 0 or any(held.fence >= stored.fence for held in living):
            return
        opens = (stored.opens - wall).total_seconds() if stored.opens else 0.0
        start = now + min(max(opens, 0.0), self._store.hand_over)
        start = max([start, *(held.end for held in living)])
        born = now + left - self._policy.life
        self._last = self._last_at(now)
        self._held = (*living, Held(snapshot, stored.fence, born, start, now + left))
        self._missed, self.failing_since = False, None
        if trouble := self._trouble:
            self._trouble = trouble._replace(over=min(trouble.over, start))
        metrics.snapshot_timestamp.set(snapshot.timestamp.timestamp())
        metrics.fence.set(stored.fence)

    def _kept(self, shared: Snapshot | None) -> Held | None:
        newest = shared or (None if self._last_at(self._clock.boot()) else self._newest_row())
        return self._as_held(newest) if newest else None

    def _as_held(self, snapshot: Snapshot) -> Held:
        now, wall = self._clock.both()
        born = now - max((wall - snapshot.timestamp).total_seconds(), 0.0)
        return Held(snapshot, 0, born, born, born + self._policy.life)

    def _is_cooling(self, now: float) -> bool:
        trouble = self._trouble_at(now)
        return trouble is not None and trouble.until > now
