"""The shared store in Redis: one document, the movies under their digest, one lease."""

import math
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, TypeVar, cast

import msgspec
import structlog
from redis.client import Pipeline
from redis.exceptions import LockError, RedisError, ResponseError
from redis.lock import Lock

from services import metrics
from services.catalogue.entities import Movie
from services.catalogue.snapshot import MAX_BODY_BYTES, Snapshot, decode_movies
from services.clock import Clock
from services.freshness.policy import PROPAGATION_SECONDS, Policy, clamp
from services.freshness.state import SECOND, State, microseconds, shift
from services.freshness.store import LEASE_SECONDS, InMemoryStore, Reading
from services.redis_connection import KEY_PREFIX, RedisClient

log = structlog.get_logger(__name__)

# The braces keep all keys on one node of a cluster.
PREFIX = f"{KEY_PREFIX}{{movies}}:"
STATE, LEASE = f"{PREFIX}state", f"{PREFIX}lease"
# A state has under 1 KB. Longer values are not ours.
STATE_BYTES = 10_000
LEASE_BYTES = 100
LEASE_MS = int(LEASE_SECONDS * 1000)

# KEYS the state, then the movies' keys · ARGV expected state, new state, ms to keep all, then the
# movies. A value of another type is overwritten like none.
COMPARE_AND_SET = """
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'string' and stored ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[3]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

_state = msgspec.json.Decoder(State)


class ClockOffset:
    """How far Redis' clock is ahead of the boot clock (microseconds).

    A reading says that it is between `time - after` and `time - before`; several narrow that down.
    The upper bound counts, so that nothing is used too long. A reading outside the bounds means that
    a clock was set: the bounds start anew.
    """

    def __init__(self) -> None:
        self._low, self.upper = -math.inf, math.inf

    def observe(self, before: int, time: int, after: int) -> None:
        low, upper = max(self._low, time - after), min(self.upper, time - before)
        if low > upper:
            low, upper = time - after, time - before
        self._low, self.upper = low, upper


T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


def or_in_memory(method: Method) -> Method:
    """Call InMemoryStore's method of this name while Redis fails."""
    name = method.__name__
    in_memory = getattr(InMemoryStore, name)

    @wraps(method)
    def call(store: "RedisStore", *args: Any) -> Any:
        return store.redis.call(
            name, partial(method, store, *args), partial(in_memory, store, *args)
        )

    return cast(Method, call)


class RedisStore(InMemoryStore):
    """While Redis fails, each process uses what it has in memory."""

    def __init__(self, policy: Policy, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._policy = policy
        self.redis = RedisClient("default", self._clock)
        self._keep_ms = math.ceil(max(policy.stale_if_error, policy.ttl + 60) * 1000)
        self._offset = ClockOffset()

    @property
    def propagation(self) -> int:
        return 0 if self.redis.is_open else int(PROPAGATION_SECONDS * SECOND)

    @or_in_memory
    def read(self) -> Reading:
        return self._read()[1]

    @or_in_memory
    def get_movies(self, digest: str) -> tuple[Movie, ...] | None:
        key = _movies_key(digest)
        pipe = self.redis.client.pipeline(transaction=False)
        [body] = _replies(pipe.getrange(key, 0, MAX_BODY_BYTES))
        return self._decode(key, body, lambda body: decode_movies(body, digest), "not movies")

    @or_in_memory
    def compare_and_set(
        self, expected: Reading, state: State, snapshots: Iterable[Snapshot]
    ) -> bool:
        bodies = {snapshot.digest: snapshot.body for snapshot in snapshots}
        return self._replace(expected.document, state, bodies)

    @or_in_memory
    def acquire_lease(self) -> tuple[str | None, Reading]:
        lease = uuid.uuid4().hex
        is_acquired, reading = self._read(lease)
        return lease if is_acquired else None, reading

    @or_in_memory
    def renew_lease(self, lease: str) -> bool:
        try:
            return bool(self._redis_lock(lease).reacquire())
        except (LockError, ResponseError):  # somebody else's, or of another type
            return False

    @or_in_memory
    def release_lease(self, lease: str) -> None:
        super().release_lease(lease)  # it may have been acquired while Redis was away
        with suppress(LockError, ResponseError):  # it has ended meanwhile
            self._redis_lock(lease).release()

    def is_available(self) -> bool:
        return self.redis.ping()

    def _redis_lock(self, lease: str) -> Lock:
        lock = Lock(self.redis.client, LEASE, timeout=LEASE_SECONDS, thread_local=False)
        lock.local.token = lease.encode()
        return lock

    def _read(self, lease: str = "") -> tuple[bool, Reading]:
        """Acquire the lease, if one is named, and read the state, in one round trip."""
        # In this order: if the thread is paused in between, the wall clock seems slow, which ends no entry.
        wall, before = microseconds(self._clock.wall()), self._clock.boot_us()
        # GETRANGE bounds what somebody else's value can make us read.
        pipe = self.redis.client.pipeline(transaction=False)
        pipe.pttl(LEASE).time().getrange(STATE, 0, STATE_BYTES)
        if lease:
            pipe.set(LEASE, lease, nx=True, px=LEASE_MS).getrange(LEASE, 0, LEASE_BYTES)
        lease_left, (seconds, micros), document, *acquiring = _replies(pipe)
        is_acquired = bool(lease) and _is_acquired(lease, *acquiring)
        self._check_lease(lease_left)
        time = _integer(seconds) * SECOND + _integer(micros)
        self._offset.observe(before, time, self._clock.boot_us())
        return is_acquired, self._believed(document, time, before, wall)

    def _believed(self, document: Any, time: int, boot: int, wall: int) -> Reading:
        """Return what may be believed of a document, and replace one that holds more than that."""
        state = self._decode(STATE, document, _state.decode, "not a state")
        if state is None:
            return Reading(State(), time)
        shifted = shift(state, -int(self._offset.upper))
        believed = clamp(shifted, self._policy, boot, wall, time)
        tokens = [[entry.token for entry in each.entries] for each in (shifted, believed)]
        if tokens[0] != tokens[1] or shifted.backoff != believed.backoff:
            self._report(STATE, "not plausible")
            # Not without looking: another worker may have published meanwhile.
            self._replace(document, believed, {})
        return Reading(believed, time, document)

    def _replace(self, expected: bytes, state: State, bodies: dict[str, bytes]) -> bool:
        if math.isinf(self._offset.upper):
            raise ValueError("Redis' clock was never read")
        keys = [STATE, *(_movies_key(digest) for digest in bodies)]
        document = msgspec.json.encode(shift(state, int(self._offset.upper)))
        arguments: list[Any] = [expected, document, self._keep_ms, *bodies.values()]
        reply = _integer(self.redis.client.eval(COMPARE_AND_SET, len(keys), *keys, *arguments))
        if reply not in (0, 1):
            raise ValueError("not a reply of the script")
        return reply == 1

    def _check_lease(self, left: Any) -> None:
        """Delete a lease that does not end or outlasts itself: Redis' clock was set back."""
        if _integer(left) == -1 or left > LEASE_MS:
            self._refuse(LEASE, "a lease without end")

    def _decode(self, key: str, value: Any, decode: Callable[[bytes], T], why: str) -> T | None:
        """Return the decoded value; None if there is none, or none of ours, which is removed."""
        if value == b"":
            return None
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            if isinstance(value, bytes):
                return decode(value)
        self._refuse(key, why)
        return None

    def _refuse(self, key: str, why: str) -> None:
        """Remove a value that is not ours: it would prevent writes."""
        self._report(key, why)
        self.redis.client.unlink(key)

    def _report(self, key: str, why: str) -> None:
        metrics.redis_invalid_values.inc()
        log.warning("redis_value_invalid", key=key, error=why)


def _movies_key(digest: str) -> str:
    return f"{PREFIX}{digest}"


def _replies(pipe: Pipeline) -> list[Any]:
    """Return the replies. A wrong type is a value to refuse; any other error is Redis' own, and raised."""
    replies: list[Any] = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisError) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return replies


def _integer(value: Any) -> int:
    """Return an integer reply; TypeError for anything else."""
    if type(value) is not int:
        raise TypeError(f"not an integer: {type(value).__name__}")
    return value


def _is_acquired(lease: str, set_reply: Any, holder: Any) -> bool:
    """Return whether SET NX has set the lease; ValueError if its reply and the holder contradict."""
    if set_reply is True or holder == lease.encode():
        return True
    if set_reply is None and holder:
        return False
    raise ValueError("the lease is neither ours nor another worker's")
