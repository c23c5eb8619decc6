"""What the workers of Totoro share: the current answer and the next, the lease to fly, the cool-down.

ProcessStore keeps it in the process: the embedded default, and what goes on when Redis does not.
RedisStore keeps it in Redis, for all processes and hosts; the only place that talks to Redis. Both
follow the same rules:

- One lease at a time, and only for a worker that has seen the newest answer. It ends by itself if
  its holder does.
- Leases have growing fences, and answers those of their leases. A leader hands its answer over only
  if there is none that it did not know at take-off: one that stalls and wakes late is refused.
- While the current answer lasts, the new one is staged behind it and no longer replaced: whoever has
  seen it can rely on it.
"""

import math
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from services import telemetry
from services.clock import Clock
from services.exceptions import Reason
from services.snapshots import BadEnvelope, Snapshot, pack, unpack

log = structlog.get_logger(__name__)

# A leader that dies frees its lease within this (seconds)…
LEASE = 5.0
# …and one that lives renews it this often, so that two renewals may fail.
HEARTBEAT = 1.5
# How long failures are counted after their cool-down, to make the next one longer.
FAILURES_REMEMBERED = 600.0
# Shared answers stay this much longer than they live, so that a worker a little behind finds what
# another has just left.
GRACE = 1.0
# A snapshot of the real data has 19 KB; more than this was not written by us.
ENVELOPE_LIMIT = 8 * 1024 * 1024
# After a command that failed, Redis is left alone for LATCH seconds: with the time-outs of the
# settings, 0.3 s in 2 s are the most that it can cost. Only those time-outs tell that Redis is slow.
# A command that took long by this process' own clock may have waited for the processor, and a busy
# worker that leaves the others for that gives answers of its own.
LATCH = 2.0

T = TypeVar("T")


class Stored(NamedTuple):
    """A shared answer; `left`: seconds of its life by the store's own reckoning."""

    snapshot: Snapshot
    fence: int
    left: float


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

    def view(self) -> View:
        with self._lock:
            answers, cool = self._answers(), self._get("cool")
            return View(
                tuple(answers),
                _newest(answers),
                cool.value._replace(left=cool.end - self._clock.boot()) if cool else None,
            )

    def last(self) -> Snapshot | None:
        return self._last

    def acquire(self, newest: int) -> Lease | Refusal:
        with self._lock:
            if self._get("cool"):
                return Refusal.COOLING
            if _newest(self._answers()) > newest:
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
            if answer.left <= 0 or _newest(self._answers()) > lease.newest:
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


def _newest(answers: Iterable[Stored]) -> int:
    return max((answer.fence for answer in answers), default=0)


@contextmanager
def kept(lease: Lease, store: SharedStore) -> Iterator[None]:
    """Renew the lease while the block lasts."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            if not store.renew(lease) and not over.is_set():
                log.warning("lease_lost", fence=lease.fence)
                telemetry.leases.labels("lost").inc()
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        over.set()


# What the scripts know of an answer: the fence in its first line (snapshots.pack). A value that has
# no such line is not ours and is taken away.
NEWEST = """
local function newest()
  local found, foreign = 0, 0
  for i = 1, 2 do
    local line = redis.pcall('GETRANGE', KEYS[i], 0, 120)
    local fence = type(line) == 'string' and string.match(line, '^totoro%-1 %x+ (%d+) ')
    if fence then
      found = math.max(found, tonumber(fence))
    elseif line ~= '' then
      foreign = foreign + redis.call('DEL', KEYS[i])
    end
  end
  return found, foreign
end
"""
# KEYS current next lease cool failures fence last · ARGV token, lease ms, newest fence, most bytes of
# the last answer, which GETRANGE bounds
ACQUIRE = NEWEST + """
local found, foreign = newest()
if redis.call('EXISTS', KEYS[4]) == 1 then return {'cooling', foreign} end
if found > tonumber(ARGV[3]) then return {'fresh', foreign} end
-- A lease that outlasts itself is not one: Redis' clock was set back, or somebody else wrote it.
local left = redis.call('PTTL', KEYS[3])
if left == -1 or left > tonumber(ARGV[2]) then redis.call('DEL', KEYS[3]) end
if not redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'busy', foreign} end
-- The clock makes fences grow on after FLUSHALL, the last one keeps them growing if it is set back.
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[6]) or '0') or 0
local fence = math.max(time[1] * 1000000 + time[2], last + 1, tonumber(ARGV[3]) + 1)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[6], fence)
local last = redis.pcall('GETRANGE', KEYS[7], 0, ARGV[4])
if type(last) ~= 'string' then redis.call('DEL', KEYS[7]) foreign, last = foreign + 1, '' end
return {'ok', foreign, fence, redis.call('GET', KEYS[5]) or '0', last}
"""
# KEYS lease · ARGV token, lease ms (0: give it back)
RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS lease cool failures · ARGV token, what to tell, its ms, failures, their ms
FAIL = """
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
# KEYS current next lease cool failures last · ARGV token, newest fence at take-off, answer, its ms,
# live or '', its ms, ms to keep the last
PUBLISH = NEWEST + """
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
if newest() > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5])
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[6])
  redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
redis.call('SET', KEYS[6], ARGV[3], 'PX', ARGV[7])
return 1
"""


def _key(name: str) -> str:
    # The braces keep all of them on one node of a cluster.
    return f"totoro:{{movies}}:{name}"


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


class LatchedRedis:
    """django-redis' connection to one of CACHES, which is left alone for a while when it fails."""

    def __init__(self, alias: str, clock: Clock) -> None:
        self.connection = get_redis_connection(alias)
        self.latched_until = 0.0
        self._clock = clock

    def either(self, command: str, with_redis: Callable[[], T], without: Callable[[], T]) -> T:
        if self._clock.boot() < self.latched_until:
            return without()
        try:
            return with_redis()
        except RedisError as error:
            self._trouble(command, type(error).__name__)
            return without()

    def _trouble(self, command: str, error: str) -> None:
        self.latched_until = self._clock.boot() + LATCH
        log.warning("redis_failed", command=command, error=error)
        telemetry.redis_troubles.labels(command).inc()


class RedisStore:
    """Through django-redis' connection pool; while Redis fails, each process goes on by itself.

    `remember`: seconds for which the last answer is kept.
    """

    def __init__(self, *, remember: float, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._process = ProcessStore(self._clock)
        self._remember = max(remember, 1.0)
        latched = LatchedRedis("default", self._clock)
        self._latched, self._either, self._redis = latched, latched.either, latched.connection
        self._acquire = self._redis.register_script(ACQUIRE)
        self._renew = self._redis.register_script(RENEW)
        self._fail = self._redis.register_script(FAIL)
        self._publish = self._redis.register_script(PUBLISH)

    def view(self) -> View:
        return self._either("view", self._view, self._process.view)

    def last(self) -> Snapshot | None:
        def from_redis() -> Snapshot | None:
            found = self._unpacked("last", self._redis.getrange(_key("last"), 0, ENVELOPE_LIMIT))
            return found[0] if found else None

        return self._either("last", from_redis, self._process.last)

    def acquire(self, newest: int) -> Lease | Refusal:
        def from_redis() -> Lease | Refusal:
            token = uuid.uuid4().hex
            names = ("current", "next", "lease", "cool", "failures", "fence", "last")
            said = self._acquire(
                keys=[_key(name) for name in names],
                args=[token, _milliseconds(LEASE), newest, ENVELOPE_LIMIT],
            )
            if said[1]:
                log.warning("redis_value_refused", name="current", error="not an answer")
                telemetry.redis_refused.inc(said[1])
            if said[0] != b"ok":
                return Refusal(said[0].decode())
            last = self._unpacked("last", said[4])
            return Lease(token, int(said[2]), newest, int(said[3]), last[0] if last else None)

        return self._either("acquire", from_redis, lambda: self._process.acquire(newest))

    def renew(self, lease: Lease) -> bool:
        args: list[Any] = [lease.token, _milliseconds(LEASE)]
        return self._either(
            "renew",
            lambda: bool(self._renew(keys=[_key("lease")], args=args)),
            lambda: self._process.renew(lease),
        )

    def release(self, lease: Lease) -> None:
        self._either(
            "release",
            lambda: self._renew(keys=[_key("lease")], args=[lease.token, 0]),
            lambda: self._process.release(lease),
        )

    def publish(self, lease: Lease, answer: Stored, live: Stored | None) -> bool:
        def to_redis() -> bool:
            names = ("current", "next", "lease", "cool", "failures", "last")
            args: list[Any] = [lease.token, lease.newest]
            args += self._with_milliseconds(answer) + self._with_milliseconds(live)
            args += [_milliseconds(self._remember)]
            return bool(self._publish(keys=[_key(name) for name in names], args=args))

        if answer.left <= 0:
            self.release(lease)
            return False
        return self._either("publish", to_redis, lambda: self._process.publish(lease, answer, live))

    def fail(self, lease: Lease, cool_down: CoolDown) -> None:
        def to_redis() -> None:
            left = _milliseconds(cool_down.left)
            remembered = left + _milliseconds(FAILURES_REMEMBERED)
            told = f"{cool_down.failures} {cool_down.reason}"
            self._fail(
                keys=[_key(name) for name in ("lease", "cool", "failures")],
                args=[lease.token, told, left, cool_down.failures, remembered],
            )

        self._either("fail", to_redis, lambda: self._process.fail(lease, cool_down))

    def is_well(self) -> bool:
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def _view(self) -> View:
        with self._redis.pipeline() as pipe:
            for name in ("current", "next", "cool"):
                # GETRANGE bounds what somebody else's value can make us read.
                pipe.getrange(_key(name), 0, ENVELOPE_LIMIT)
                pipe.pttl(_key(name))
            got = pipe.execute(raise_on_error=False)
        if error := next((found for found in got if _is_trouble(found)), None):
            raise error
        answers = [
            Stored(*found, got[i + 1] / 1000 - GRACE)
            for i, name in ((0, "current"), (2, "next"))
            if (found := self._unpacked(name, got[i]))
        ]
        return View(
            tuple(answer for answer in answers if answer.left > 0),
            _newest(answers),
            self._cool_down(got[4], got[5] / 1000),
        )

    def _unpacked(self, name: str, envelope: Any) -> tuple[Snapshot, int] | None:
        if not envelope:
            return None
        try:
            if not isinstance(envelope, bytes):
                raise BadEnvelope("not a string")
            return unpack(envelope)
        except BadEnvelope as error:
            self._refuse(name, str(error))
            return None

    def _cool_down(self, told: Any, left: float) -> CoolDown | None:
        if not told or left <= 0:
            return None
        try:
            failures, reason = told.decode().split(" ")
            return CoolDown(Reason(reason), int(failures), left)
        except (AttributeError, ValueError) as error:
            self._refuse("cool", str(error))
            return None

    def _refuse(self, name: str, error: str) -> None:
        """Take away what is not ours, or it would stand in the way until it ends."""
        log.warning("redis_value_refused", name=name, error=error)
        telemetry.redis_refused.inc()
        self._redis.unlink(_key(name))

    def _with_milliseconds(self, stored: Stored | None) -> list[Any]:
        if not stored or stored.left <= 0:
            return ["", 0]
        return [pack(stored.snapshot, stored.fence), _milliseconds(stored.left + GRACE)]


def _is_trouble(found: object) -> bool:
    """A wrong type is a value to refuse; any other error is Redis'."""
    return isinstance(found, RedisError) and not str(found).startswith("WRONGTYPE")
