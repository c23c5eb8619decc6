"""Limit the requests of each client: `limit` in a window of `period` seconds, over all workers.

A window begins with the client's first request. Its count is in Redis; a worker takes requests from it
in batches and then allows as many without asking Redis. Once the quota is used up, the worker refuses
requests until the window ends, without asking either. What is left of a batch when the window ends is
lost. So no window has more requests than the limit, but a client that changes between workers may be
refused a little early.

While Redis is down, nothing is counted and requests pass. Without Redis, a process is the only one and
takes the whole quota as one batch.
"""

import math
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

from django.conf import settings

from services import metrics
from services.clock import Clock

# About 0.5 KB each, so that a flood of addresses costs a process 5 MB. A client that is evicted loses
# what was left of its batch or, without Redis, starts a new window.
MAX_CLIENTS = 10_000
# A batch is at most 1/40 of the limit, so of 600 requests 15 need one round trip…
BATCHES_PER_LIMIT = 40
# …and at most 1/8 of what remains, so that towards the end no worker reserves much that others need. With
# four workers, 600 requests need about 60 round trips.
BATCHES_PER_REMAINING = 8

# KEYS a client's count · ARGV limit, period in ms, largest batch
TAKE_BATCH = f"""
local limit, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local used = redis.pcall('GET', KEYS[1])
used = type(used) == 'string' and tonumber(string.match(used, '^%d+$'))
local ms_left = redis.call('PTTL', KEYS[1])
-- Replace a foreign value: no number, above the limit, or without an end. After Redis' clock was set
-- back, a window outlasts its period.
if not used or used > limit or ms_left <= 0 or ms_left > period then
  redis.call('SET', KEYS[1], 0, 'PX', period)
  used, ms_left = 0, period
end
local remaining = math.max(limit - used, 0)
local batch = math.min(tonumber(ARGV[3]), math.ceil(remaining / {BATCHES_PER_REMAINING}))
if batch > 0 then redis.call('INCRBY', KEYS[1], batch) end
return {{batch, remaining - batch, ms_left}}
"""


class Rate(NamedTuple):
    limit: int
    period: int


class Batch(NamedTuple):
    """Requests that a process may allow. `remaining`: how many are left in the window after it."""

    size: int
    remaining: int
    seconds_left: float


# Takes the next batch of a client. It is empty if the quota is used up, None while Redis is down.
TakeBatch = Callable[[str], Batch | None]


class QuotaStatus(NamedTuple):
    """A client's quota after a request.

    `remaining`: requests left, as far as this process knows. `reset`: seconds until a new window.
    `rate`: None if nothing is counted.
    """

    is_allowed: bool
    remaining: int
    reset: float
    rate: Rate | None


UNCOUNTED = QuotaStatus(is_allowed=True, remaining=0, reset=0.0, rate=None)


class RedisQuotas:
    def __init__(self, rate: Rate, clock: Clock | None = None) -> None:
        from services.redis_connection import KEY_PREFIX, RedisClient  # with redis-py, 6 MB

        self._redis = RedisClient("quotas", clock or Clock())
        self._script = self._redis.client.register_script(TAKE_BATCH)
        self._args = [rate.limit, rate.period * 1000, math.ceil(rate.limit / BATCHES_PER_LIMIT)]
        # Another rate has other windows.
        self._prefix = f"{KEY_PREFIX}quota:{rate.limit}/{rate.period}:"

    def take_batch(self, client: str) -> Batch | None:
        return self._redis.call("take_quota", lambda: self._run_script(client), lambda: None)

    def _run_script(self, client: str) -> Batch:
        size, remaining, ms_left = self._script(keys=[self._prefix + client], args=self._args)
        limit, period_ms, _ = self._args
        if not (0 <= size <= limit and 0 <= remaining <= limit and 0 < ms_left <= period_ms):
            raise ValueError("not a reply of the script")
        return Batch(size, remaining, ms_left / 1000)


class Window:
    """A client's window as far as this process knows it. Hold `lock` while using the rest."""

    __slots__ = ("batch", "earliest_end", "latest_end", "lock", "remaining")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Requests left of the batch, and in the window beyond it.
        self.batch = self.remaining = 0
        # When the window ends is known only to the length of the round trip to Redis. From the earliest
        # end on, the batch is not used any more; clients are asked to wait for the latest.
        self.earliest_end = self.latest_end = 0.0

    def needs_batch(self, now: float) -> bool:
        return now >= self.earliest_end or (not self.batch and self.remaining > 0)

    def start_batch(self, batch: Batch, requested_at: float, received_at: float) -> None:
        self.batch, self.remaining = batch.size, batch.remaining
        self.earliest_end = requested_at + batch.seconds_left
        self.latest_end = received_at + batch.seconds_left


class RateLimiter:
    """Count requests, from any number of threads."""

    def __init__(self, rate: Rate, take_batch: TakeBatch, clock: Clock | None = None) -> None:
        self._rate, self._take_batch, self._clock = rate, take_batch, clock or Clock()
        self._window_of = lru_cache(MAX_CLIENTS)(lambda client: Window())
        self._lock = threading.Lock()

    def count(self, client: str) -> QuotaStatus:
        """Count a request. It passes uncounted while Redis is down."""
        window = self._window(client)
        with window.lock:
            now = self._clock.boot()
            if window.needs_batch(now):
                batch = self._take_batch(client)
                if batch is None:
                    return UNCOUNTED
                requested_at, now = now, self._clock.boot()
                window.start_batch(batch, requested_at, received_at=now)
            return self._use(window, now)

    def try_count(self, client: str) -> QuotaStatus | None:
        """Count a request; return None if that has to wait for Redis, or for a thread that does."""
        window = self._window(client)
        if not window.lock.acquire(False):
            return None
        try:
            now = self._clock.boot()
            return None if window.needs_batch(now) else self._use(window, now)
        finally:
            window.lock.release()

    def _window(self, client: str) -> Window:
        with self._lock:  # so that threads cannot create two windows for a client
            return self._window_of(client)

    def _use(self, window: Window, now: float) -> QuotaStatus:
        is_allowed = window.batch > 0
        if is_allowed:
            window.batch -= 1
        else:
            metrics.throttled_requests.inc()
        remaining, reset = window.batch + window.remaining, window.latest_end - now
        return QuotaStatus(is_allowed, remaining, reset if reset > 0 else 0.0, self._rate)


class Unlimited:
    def count(self, client: str) -> QuotaStatus:
        return UNCOUNTED

    try_count = count


@cache
def rate_limiter() -> RateLimiter | Unlimited:
    """Return the rate limiter of this process, made from the settings."""
    if not settings.THROTTLE_RATE:
        return Unlimited()
    rate = Rate(*settings.THROTTLE_RATE)
    if settings.REDIS_URL:
        return RateLimiter(rate, RedisQuotas(rate).take_batch)
    whole_quota = Batch(rate.limit, 0, rate.period)
    return RateLimiter(rate, lambda client: whole_quota)
