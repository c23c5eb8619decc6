"""What the workers share, in Redis; and the only place that talks to Redis.

The rules are those of sharing.py. What needs to be one step is a script.
"""

import math
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from services import metrics
from services.catalogue.snapshot import Snapshot, is_from_the_future, pack, timestamp_of, unpack
from services.clock import Clock
from services.exceptions import Reason
from services.sharing import (
    FAILURES_REMEMBERED,
    LEASE,
    LONGEST_COOL_DOWN,
    CoolDown,
    Lease,
    ProcessStore,
    Refusal,
    Stored,
    View,
    newest_fence,
)

log = structlog.get_logger(__name__)

# Change it with the format of anything below, or of a snapshot.
FORMAT = 1
NAMES = ("current", "next", "lease", "cool", "failures", "fence", "last", "opens")
# Shared answers stay this much longer than they live, so that a worker a little behind finds what
# another has just left.
GRACE = 1.0
# Workers look every 0.2 s for the end of an outage (refresher.py), a look takes as long at the most,
# and at the end of this they have seen it.
HAND_OVER = 0.5
# A snapshot of the real data has 19 KB; more than this was not written by us.
ENVELOPE_LIMIT = 8 * 1024 * 1024
# More than the first line of one, which names its fence and its timestamp.
HEAD_LIMIT = 160
# Failures in a row that are believed, as many as ACQUIRE's pattern has digits for.
MOST_FAILURES = 9999
LONGEST = math.ceil(LONGEST_COOL_DOWN * 1000)
# After a command that failed, Redis is left alone for LATCH seconds: with the time-outs of the
# settings, 0.3 s in 2 s are the most that it can cost. Only those time-outs tell that Redis is slow.
# A command that took long by this process' own clock may have waited for the processor, and a busy
# worker that leaves the others for that gives answers of its own.
LATCH = 2.0
# What reading a reply raises that is not of the type which the command has.
NOT_A_REPLY = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

T = TypeVar("T")

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
# the last answer, which GETRANGE bounds, longest cool-down in ms
ACQUIRE = NEWEST + """
local found, foreign = newest()
-- Nobody is kept from refreshing for longer than the longest backoff, nor by somebody else's value.
local cools = redis.call('PTTL', KEYS[4])
if cools > tonumber(ARGV[5]) or cools == -1 then
  redis.call('DEL', KEYS[4])
  foreign = foreign + 1
elseif cools > 0 then
  return {'cooling', foreign}
end
if found > tonumber(ARGV[3]) then return {'fresh', foreign} end
-- A lease that outlasts itself is not one: Redis' clock was set back, or somebody else wrote it.
local left = redis.call('PTTL', KEYS[3])
if left == -1 or left > tonumber(ARGV[2]) then redis.call('DEL', KEYS[3]) end
if not redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'busy', foreign} end
-- The clock makes fences grow on after FLUSHALL, the last one keeps them growing if it is set back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = redis.pcall('GET', KEYS[6])
last = type(last) == 'string' and tonumber(string.match(last, '^%d+$')) or 0
-- One that is centuries ahead is not ours; it would leave no room to grow.
if last > now + 1e16 then foreign, last = foreign + 1, 0 end
local fence = math.max(now, last + 1, tonumber(ARGV[3]) + 1)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[6], fence)
local last = redis.pcall('GETRANGE', KEYS[7], 0, ARGV[4])
if type(last) ~= 'string' then redis.call('DEL', KEYS[7]) foreign, last = foreign + 1, '' end
local failures = redis.pcall('GET', KEYS[5])
failures = type(failures) == 'string' and string.match(failures, '^%d%d?%d?%d?$') or '0'
return {'ok', foreign, fence, failures, last}
"""
# KEYS lease · ARGV token, lease ms (0: give it back)
RENEW = """
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS lease cool failures · ARGV token, what to tell, its ms, failures, their ms
FAIL = """
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
# KEYS current next lease cool failures last opens · ARGV token, newest fence at take-off, answer, its
# ms, live or '', its ms, ms to keep the last, when it opens or '', ms until then
PUBLISH = NEWEST + """
if redis.pcall('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
if newest() > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[7])
if ARGV[8] ~= '' then redis.call('SET', KEYS[7], ARGV[8], 'PX', ARGV[9]) end
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[6])
  redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
redis.call('SET', KEYS[6], ARGV[3], 'PX', ARGV[7])
return 1
"""


# KEYS current next · ARGV newest fence held, or '' to ask only; current, its ms, next or '', its ms
RESTORE = NEWEST + """
local found = newest()
if ARGV[1] ~= '' and found < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5]) end
end
return string.format('%.0f', found)
"""


def _key(name: str) -> str:
    # The version of what is stored comes first, so that old and new workers, side by side in a
    # deploy, leave each other's values alone. The braces keep all keys on one node of a cluster.
    return f"totoro:{FORMAT}:{{movies}}:{name}"


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


class LatchedRedis:
    """django-redis' connection to one of CACHES, which is left alone for a while when it fails.

    `keys`: what to remove when a reply makes no sense.
    """

    def __init__(self, alias: str, clock: Clock, keys: Sequence[str] = ()) -> None:
        self._keys = keys
        self.connection = get_redis_connection(alias)
        self.latched_until = 0.0
        self._clock = clock

    def either(self, command: str, with_redis: Callable[[], T], without: Callable[[], T]) -> T:
        if self._clock.boot() < self.latched_until:
            return without()
        try:
            return with_redis()
        except RedisError as error:
            if _is_wrong_type(error):
                self._refuse(command, error)
            else:
                self._trouble(command, type(error).__name__)
        except NOT_A_REPLY as error:
            self._refuse(command, error)
        return without()

    def _trouble(self, command: str, error: str) -> None:
        self.latched_until = self._clock.boot() + LATCH
        log.warning("redis_failed", command=command, error=error)
        metrics.redis_troubles.labels(command).inc()

    def _refuse(self, command: str, error: Exception) -> None:
        """What was read is not ours: leave Redis alone for a while, without what is in the way."""
        self.latched_until = self._clock.boot() + LATCH
        log.warning("redis_value_refused", command=command, error=type(error).__name__)
        metrics.redis_refused.inc()
        with suppress(RedisError, *NOT_A_REPLY):
            if self._keys:
                self.connection.unlink(*self._keys)


class RedisStore:
    """Through django-redis' connection pool; while Redis fails, each process goes on by itself.

    `remember`: seconds for which the last answer is kept.
    """

    def __init__(self, *, remember: float, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._process = ProcessStore(self._clock)
        self._remember = max(remember, 1.0)
        latched = LatchedRedis("default", self._clock, [_key(name) for name in NAMES])
        self._latched, self._either, self._redis = latched, latched.either, latched.connection
        self._acquire = self._redis.register_script(ACQUIRE)
        self._renew = self._redis.register_script(RENEW)
        self._fail = self._redis.register_script(FAIL)
        self._publish = self._redis.register_script(PUBLISH)
        self._restore = self._redis.register_script(RESTORE)

    @property
    def hand_over(self) -> float:
        return HAND_OVER if self._clock.boot() >= self._latched.latched_until else 0.0

    def view(self) -> View:
        return self._either("view", self._view, self._process.view)

    def last(self) -> Snapshot | None:
        def from_redis() -> Snapshot | None:
            last = self._redis.getrange(_key("last"), 0, ENVELOPE_LIMIT)
            found = self._ours("last", last, self._unpack)
            return found[0] if found else None

        return self._either("last", from_redis, self._process.last)

    def acquire(self, newest: int) -> Lease | Refusal:
        def from_redis() -> Lease | Refusal:
            token = uuid.uuid4().hex
            names = ("current", "next", "lease", "cool", "failures", "fence", "last")
            said = self._acquire(
                keys=[_key(name) for name in names],
                args=[token, _milliseconds(LEASE), newest, ENVELOPE_LIMIT, LONGEST],
            )
            if said[1]:
                log.warning("redis_value_refused", name="current", error="not an answer")
                metrics.redis_refused.inc(said[1])
            if said[0] != b"ok":
                return Refusal(said[0].decode())
            last = self._ours("last", said[4], self._unpack)
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
            names = ("current", "next", "lease", "cool", "failures", "last", "opens")
            args: list[Any] = [lease.token, lease.newest]
            args += self._with_milliseconds(answer) + self._with_milliseconds(live)
            opens = answer.opens.isoformat() if answer.opens else ""
            args += [_milliseconds(self._remember), opens, _milliseconds(HAND_OVER)]
            return bool(self._publish(keys=[_key(name) for name in names], args=args))

        if answer.left <= 0:
            self.release(lease)
            return False
        return self._either("publish", to_redis, lambda: self._process.publish(lease, answer, live))

    def fail(self, lease: Lease, cool_down: CoolDown) -> None:
        def to_redis() -> None:
            left = _milliseconds(cool_down.left)
            remembered = left + _milliseconds(FAILURES_REMEMBERED)
            failures = min(cool_down.failures, MOST_FAILURES)
            told = f"{failures} {cool_down.reason}"
            self._fail(
                keys=[_key(name) for name in ("lease", "cool", "failures")],
                args=[lease.token, told, left, failures, remembered],
            )

        self._either("fail", to_redis, lambda: self._process.fail(lease, cool_down))

    def restore(self, held: Sequence[Stored]) -> bool:
        newest = newest_fence(held)

        def to_redis() -> bool:
            keys = [_key("current"), _key("next")]
            found = int(self._restore(keys=keys, args=[""]))
            if found < newest:
                args: list[Any] = [newest, *self._with_milliseconds(held[0])]
                args += self._with_milliseconds(held[1] if len(held) > 1 else None)
                self._restore(keys=keys, args=args)
            return found > newest

        return self._either("restore", to_redis, lambda: False)

    def restore_last(self, last: Snapshot) -> Snapshot | None:
        def to_redis() -> Snapshot | None:
            head = self._redis.getrange(_key("last"), 0, HEAD_LIMIT)
            if (there := timestamp_of(head)) and there >= last.timestamp:
                return self.last() if there > last.timestamp else None
            self._redis.set(_key("last"), pack(last, 0), px=_milliseconds(self._remember))
            return None

        return self._either("restore_last", to_redis, lambda: None)

    def is_well(self) -> bool:
        try:
            return bool(self._redis.ping())
        except (RedisError, *NOT_A_REPLY):
            return False

    def _view(self) -> View:
        with self._redis.pipeline() as pipe:
            for name in ("current", "next", "cool", "opens"):
                # GETRANGE bounds what somebody else's value can make us read.
                pipe.getrange(_key(name), 0, ENVELOPE_LIMIT)
                pipe.pttl(_key(name))
            got = pipe.execute(raise_on_error=False)
        if error := next((found for found in got if _is_trouble(found)), None):
            raise error
        opens = self._ours("opens", got[6], _instant)
        answers = [
            Stored(*found, got[i + 1] / 1000 - GRACE, opens if name == "current" else None)
            for i, name in ((0, "current"), (2, "next"))
            if (found := self._ours(name, got[i], self._unpack))
        ]
        left = got[5] / 1000
        cool_down = self._ours("cool", got[4], partial(_cool_down, left))
        return View(
            tuple(answer for answer in answers if answer.left > 0),
            newest_fence(answers),
            cool_down,
        )

    def _unpack(self, envelope: bytes) -> tuple[Snapshot, int]:
        snapshot, fence = unpack(envelope)
        if is_from_the_future(snapshot.timestamp, self._clock.wall()):
            raise ValueError("dated ahead of the clock")
        return snapshot, fence

    def _ours(self, name: str, value: Any, read: Callable[[bytes], T]) -> T | None:
        """What the value says. One that is not ours is a miss, and taken away: it would stand in the
        way until it ends."""
        if not value:
            return None
        try:
            if not isinstance(value, bytes):
                raise ValueError("not a string")
            return read(value)
        except ValueError as error:
            log.warning("redis_value_refused", name=name, error=str(error))
            metrics.redis_refused.inc()
            self._redis.unlink(_key(name))
            return None

    def _with_milliseconds(self, stored: Stored | None) -> list[Any]:
        if not stored or stored.left <= 0:
            return ["", 0]
        return [pack(stored.snapshot, stored.fence), _milliseconds(stored.left + GRACE)]


def _cool_down(left: float, told: bytes) -> CoolDown:
    failures, reason = told.decode().split(" ")
    if not 0 <= left <= LONGEST_COOL_DOWN:
        raise ValueError("a cool-down without an end, or with too late a one")
    if not 0 < int(failures) <= MOST_FAILURES:
        raise ValueError("more failures than there can be")
    return CoolDown(Reason(reason), int(failures), left)


def _instant(told: bytes) -> datetime:
    instant = datetime.fromisoformat(told.decode())
    if instant.utcoffset() is None:
        raise ValueError("no time zone")
    return instant


def _is_trouble(found: object) -> bool:
    """A wrong type is a value to refuse; any other error is Redis'."""
    return isinstance(found, RedisError) and not _is_wrong_type(found)


def _is_wrong_type(error: RedisError) -> bool:
    return "WRONGTYPE" in str(error)
