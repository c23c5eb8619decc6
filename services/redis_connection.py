"""django-redis' connection behind a circuit breaker, with a limit on each part of connecting."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from django_redis import get_redis_connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from services import metrics
from services.background import CoalescedCalls, Resolver
from services.clock import Clock

log = structlog.get_logger(__name__)

# Every key begins with the version of the format, so that old and new workers can run side by side.
KEY_PREFIX = "totoro:1:"
# After an error Redis is skipped for this long: with the time-outs of the settings, it costs at most
# 0.3 s in 2 s. Only those time-outs tell that Redis is slow: a command that took long by this process'
# own clock may have waited for the processor.
BREAKER_SECONDS = 2.0
# What redis-py and our reading of replies raise, whatever comes in place of a reply.
UNUSABLE_REPLY = (
    *(RedisError, OSError, ValueError, TypeError, LookupError),
    *(AttributeError, ArithmeticError, AssertionError, RecursionError),
)
# Where the settings name no time-out.
CONNECT_SECONDS = 0.1
# For an address when the look-up, or the address before it, has used up the time.
LEAST_SECONDS = 0.01
# For a Sentinel. No request waits that long, but a connection to a slow one is there for the next.
SENTINEL_SECONDS = 1.0

resolver = Resolver()

T = TypeVar("T")


class RedisClient:
    """A connection to one of CACHES. `call` raises nothing that Redis or its replies cause."""

    def __init__(self, alias: str, clock: Clock) -> None:
        self.client = get_redis_connection(alias)
        self._clock = clock
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: Redis is skipped."""
        return self._clock.boot() < self._open_until

    def call(self, command: str, with_redis: Callable[[], T], without: Callable[[], T]) -> T:
        """Return what Redis says or, if it fails, what can be said without it."""
        if self.is_open:
            return without()
        try:
            with metrics.redis_duration.labels(command).time():
                return self._retried(with_redis)
        except UNUSABLE_REPLY as error:
            self._open_until = self._clock.boot() + BREAKER_SECONDS
            # Another server may be in charge now, while connections to this one still work or hang.
            self.client.connection_pool.disconnect(inuse_connections=False)
            log.warning("redis_error", command=command, error=type(error).__name__)
            metrics.redis_errors.labels(command).inc()
            return without()

    def _retried(self, with_redis: Callable[[], T]) -> T:
        """Try once more after a dropped connection, not after a time-out."""
        try:
            return with_redis()
        except RedisConnectionError as error:
            if isinstance(error, AuthenticationError | MasterNotFoundError):
                raise
            return with_redis()

    def ping(self) -> bool:
        try:
            return self.client.ping() is True
        except UNUSABLE_REPLY:
            return False


class Sentinels:
    """The Sentinels of a group. They are asked at the same time, as some of them may hang."""

    def __init__(self, group: str, urls: Iterable[str]) -> None:
        self._group, self._sentinels = group, [self._sentinel(url) for url in urls]
        self._calls = CoalescedCalls("sentinel")

    @staticmethod
    def _sentinel(url: str) -> Sentinel:
        sentinel = Sentinel([])  # type: ignore[no-untyped-call]
        # It makes its own connections from hosts and ports only.
        sentinel.sentinels = [
            Redis.from_url(
                url,
                socket_connect_timeout=SENTINEL_SECONDS,
                socket_timeout=SENTINEL_SECONDS,
                # Once more if the Sentinel has closed the connection meanwhile.
                retry=Retry(NoBackoff(), 1),
                protocol=2,
                driver_info=None,
            )
        ]
        return sentinel

    def master(self, seconds: float) -> tuple[str, int]:
        """Return the address of the group's Redis that the first Sentinel to know one names.

        Raises MasterNotFoundError if none knows one, TimeoutError after `seconds`.
        """
        answers = [
            self._calls.start(sentinel, sentinel.discover_master, self._group)
            for sentinel in self._sentinels
        ]
        for answer in as_completed(answers, seconds):
            with suppress(RedisError):
                host, port = answer.result()
                return str(host), int(port)
        raise MasterNotFoundError(f"no Sentinel knows {self._group}")


class BoundedConnection(Connection):
    def __init__(self, *, sentinels: Sentinels | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels

    def _connect(self) -> Any:
        seconds = self.socket_connect_timeout or CONNECT_SECONDS
        end = time.monotonic() + seconds

        def left() -> float:
            return max(end - time.monotonic(), LEAST_SECONDS)

        if self._sentinels:
            self.host, self.port = self._sentinels.master(seconds)
        host = self.host
        failed: OSError | None = None
        try:
            for address in resolver.addresses(host, int(self.port), left()):
                self.host, self.socket_connect_timeout = address, left()
                try:
                    return super()._connect()  # type: ignore[no-untyped-call]
                except OSError as error:
                    failed = error
        finally:
            # The name again, for the next time and for TLS.
            self.host, self.socket_connect_timeout = host, seconds
        raise failed or OSError("the name has no address")


class BoundedTLSConnection(SSLConnection, BoundedConnection):
    pass


class BoundedConnectionPool(ConnectionPool):
    """For django-redis' CONNECTION_POOL_CLASS: a URL's scheme chooses among redis-py's own classes.

    `sentinels`: a group's name and the URLs of its Sentinels, which tell the address of its Redis.
    """

    CLASSES = {Connection: BoundedConnection, SSLConnection: BoundedTLSConnection}

    def __init__(
        self,
        connection_class: type[Any] = Connection,
        sentinels: tuple[str, list[str]] | None = None,
        **options: Any,
    ) -> None:
        bounded = self.CLASSES.get(connection_class, connection_class)
        if sentinels:
            options["sentinels"] = Sentinels(*sentinels)
        super().__init__(connection_class=bounded, **options)
