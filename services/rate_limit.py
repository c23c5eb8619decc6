"""How much each client may still ask: at most so much in a period, over all workers of all replicas.

A client's window begins with its first request and lasts one period. Its count is in Redis, where a
worker takes tokens of it in batches, to spend them without asking again; tokens that are left when
the window ends die with it. Once nothing is left, a worker remembers that until then. So there are
never more requests in a window than the limit, though a client that changes from worker to worker may
be refused a little before it. While Redis is away, nobody counts and everybody passes.

Without Redis the process has all the tokens, and gives them out by the same rules.
"""

import math
import threading
from collections import OrderedDict
from functools import cache
from typing import NamedTuple, Protocol

from django.conf import settings

from services import metrics
from services.clock import Clock
from services.redis_connection import KEY_PREFIX, RedisClient

# Clients that a process remembers: some 0.5 KB each, so that a flood of addresses costs it 5 MB and
# no more. One that is forgotten loses the tokens that were taken for it, or, without Redis, starts
# anew.
CLIENTS = 10_000
# A batch is this part of the limit, so that Redis is asked for one request in fifteen of 600…
BATCHES = 40
# …and no more than this part of what is left, so that towards the end nobody holds much that others
# would need. For 600 requests by four workers that makes some 60 questions.
LAST_PARTS = 8

# KEYS a client's count · ARGV limit, period in ms, batch
LEASE = f"""
local limit, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local used = redis.pcall('GET', KEYS[1])
used = type(used) == 'string' and tonumber(string.match(used, '^%d+$'))
local left = redis.call('PTTL', KEYS[1])
-- A count that is none, is over the limit or has no end is not ours; one that outlasts its period has
-- seen Redis' clock set back.
if not used or used > limit or left <= 0 or left > period then
  redis.call('SET', KEYS[1], 0, 'PX', period)
  used, left = 0, period
end
local remaining = math.max(limit - used, 0)
local tokens = math.min(tonumber(ARGV[3]), math.ceil(remaining / {LAST_PARTS}))
if tokens > 0 then redis.call('INCRBY', KEYS[1], tokens) end
return {{tokens, remaining - tokens, left}}
"""


class Rate(NamedTuple):
    """`limit` requests in `period` seconds."""

    limit: int
    period: int


class Decision(NamedTuple):
    """`remaining`: what the client may still ask, as far as this process knows; `reset`: seconds
    until its window is surely over."""

    allowed: bool
    remaining: int
    reset: float
    rate: Rate


class Grant(NamedTuple):
    """Tokens of a client's window, which has `remaining` more of them and lasts `left` seconds.

    No tokens: nothing is left in this window.
    """

    tokens: int
    remaining: int
    left: float


class Ledger(Protocol):
    """The count that all share."""

    def lease(self, client: str) -> Grant | None:
        """The client's next tokens; None if there is nobody to ask."""


class RedisLedger:
    def __init__(self, rate: Rate, clock: Clock | None = None) -> None:
        self._redis = RedisClient("quotas", clock or Clock())
        self._lease = self._redis.client.register_script(LEASE)
        self._args = [rate.limit, rate.period * 1000, math.ceil(rate.limit / BATCHES)]
        # With another rate the windows are others, too.
        self._prefix = f"{KEY_PREFIX}quota:{rate.limit}/{rate.period}:"

    def lease(self, client: str) -> Grant | None:
        def from_redis() -> Grant | None:
            tokens, remaining, left = self._lease(keys=[self._prefix + client], args=self._args)
            limit, period, _ = self._args
            if not (0 <= tokens <= limit and 0 <= remaining <= limit and 0 < left <= period):
                raise ValueError("not what the script returns")
            return Grant(tokens, remaining, left / 1000)

        return self._redis.call("lease_quota", from_redis, lambda: None)


class ProcessLedger:
    """For one process, which may have all tokens of a window at once."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    def lease(self, client: str) -> Grant | None:
        return Grant(self._rate.limit, 0, self._rate.period)


class Window:
    """What a process holds of a client's window. Instants come in; hold the lock meanwhile."""

    __slots__ = ("_ends", "_over", "_remaining", "_tokens", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._tokens = self._remaining = 0
        # The tokens end with the earliest instant at which the window can; it is over for sure with
        # the latest. The way to Redis and back lies between the two.
        self._ends = self._over = 0.0

    @property
    def remaining(self) -> int:
        return self._tokens + self._remaining

    def take(self, now: float) -> bool | None:
        """Whether the client may; None if only the ledger knows."""
        if now >= self._ends:
            return None
        if self._tokens:
            self._tokens -= 1
            return True
        return None if self._remaining else False

    def add(self, grant: Grant, *, asked: float, told: float) -> None:
        self._tokens, self._remaining = grant.tokens, grant.remaining
        self._ends, self._over = asked + grant.left, told + grant.left

    def left(self, now: float) -> float:
        return max(self._over - now, 0.0)


class Quotas:
    """For any number of threads; those of one client wait for each other's lease."""

    def __init__(self, rate: Rate, ledger: Ledger, clock: Clock | None = None) -> None:
        self._rate, self._ledger, self._clock = rate, ledger, clock or Clock()
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str) -> Decision | None:
        """Counts one request; None if nobody counts, so that it may pass."""
        window = self._window(client)
        with window.lock:
            now = self._clock.boot()
            allowed = window.take(now)
            if allowed is None:
                grant = self._ledger.lease(client)
                if grant is None:
                    return None
                window.add(grant, asked=now, told=self._clock.boot())
                # It counts where its token comes from, however long that was on the way.
                allowed = window.take(now)
            if not allowed:
                metrics.throttled_requests.inc()
            left = window.left(self._clock.boot())
            return Decision(bool(allowed), window.remaining, left, self._rate)

    def _window(self, client: str) -> Window:
        with self._lock:
            window = self._windows.get(client)
            if window is None:
                window = self._windows[client] = Window()
                if len(self._windows) > CLIENTS:
                    self._windows.popitem(last=False)
            else:
                self._windows.move_to_end(client)
            return window


class Unlimited:
    """Nobody counts."""

    def take(self, client: str) -> Decision | None:
        return None


@cache
def quotas() -> Quotas | Unlimited:
    """Those of this process, put together from the settings."""
    if not settings.THROTTLE_RATE:
        return Unlimited()
    rate = Rate(*settings.THROTTLE_RATE)
    return Quotas(rate, RedisLedger(rate) if settings.REDIS_URL else ProcessLedger(rate))
