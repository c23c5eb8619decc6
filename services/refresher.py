"""The thread that flies: one in each process, started by the first request that needs it."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.util import Finalize

import structlog

from services import metrics
from services.clock import Clock
from services.exceptions import Reason, UpstreamError
from services.freshness import Answer, Freshness
from services.ghibli.client import GhibliClient
from services.sharing import Lease, Refusal, SharedStore, kept

log = structlog.get_logger(__name__)
# Records of `logging` keep the exception itself, which Sentry reads.
bugs = logging.getLogger(f"{__name__}.bugs")

# How often a worker looks whether another's flight has landed (seconds).
POLL = 0.2
POLL_WHILE_WAITED_FOR = 0.02
# How often a worker that is asked looks whether what it holds is still shared (seconds).
SHARE = 1.0
# At the end a flight is cut off; its thread then has nothing to wait for.
JOIN = 2.0


@contextmanager
def at_the_same_time(do: Callable[[], object]) -> Iterator[None]:
    """Do this while the block lasts; at its end it is done."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Refresher:
    """Answers requests from a Freshness, and flies for it."""

    def __init__(
        self,
        freshness: Freshness,
        client: GhibliClient,
        store: SharedStore,
        clock: Clock | None = None,
    ) -> None:
        self.freshness = freshness
        self._client, self._store = client, store
        self._clock = clock or Clock()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._over = threading.Event()
        # Whether there was a request since the last look at what is shared, and when to look again.
        self._asked, self._share_at = False, 0.0
        # Workers of granian are children of multiprocessing, which knows no atexit.
        Finalize(self, self.close, exitpriority=10)

    def answer(self) -> Answer:
        """The current answer; MoviesUnavailable if there is none."""
        idle, self._asked = not self._asked, True
        answer = self.freshness.hit()
        if answer:
            if self.freshness.wants(answer) or idle:
                self._wake()
        else:
            answer = self.freshness.stale(self._wake) or self.freshness.wait(self._wake)
        return answer

    def close(self) -> None:
        """Cut off the flight under way, give its lease back, end the thread."""
        self._over.set()
        self._woken.set()
        self._client.close()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(JOIN)

    def _wake(self) -> None:
        self._woken.set()
        with self._lock:
            # A thread does not survive a fork: the child sees that it is not alive.
            if not self._over.is_set() and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._woken.clear()
            try:
                seconds = self._share(self._turn())
            except Exception:  # noqa: BLE001 (whatever it is, requests must not wait for it)
                bugs.exception("refresh_error")
                self.freshness.back_off(Reason.INTERNAL, random.uniform(-1, 1))  # noqa: S311
                seconds = self.freshness.due()
            self._woken.wait(seconds)

    def _turn(self) -> float | None:
        """Do what is due; gives the seconds until something may be due again, None for never."""
        due = self.freshness.due()
        if due is None or due > 0:
            return due
        granted = self.freshness.take_off()
        if isinstance(granted, Lease):
            self._fly(granted)
        elif granted is Refusal.FRESH:
            return 0
        else:
            return POLL_WHILE_WAITED_FOR if self.freshness.is_waited_for else POLL
        return self.freshness.due()

    def _share(self, due: float | None) -> float | None:
        """Share what is held, while anybody asks for it; gives the seconds until the next turn."""
        if not self._asked:
            return due
        now = self._clock.boot()
        if now >= self._share_at:
            self._asked, self._share_at = False, now + SHARE
            self.freshness.share()
        return min(self._share_at - now, due) if due is not None else self._share_at - now

    def _fly(self, lease: Lease) -> None:
        took_off, failing_since = self._clock.boot(), self.freshness.failing_since
        try:
            with (
                kept(lease, self._store),
                at_the_same_time(partial(self.freshness.recall, lease.last)),
            ):
                took_off = self._clock.boot()  # again: in a busy worker a thread is slow to start
                fetched = self._client.fetch()
            snapshot = self.freshness.land(lease, fetched, took_off)
        except Exception as error:  # noqa: BLE001 (whatever it is, the refresh has failed)
            if not isinstance(error, UpstreamError):
                bugs.exception("refresh_error")
                error = UpstreamError(Reason.INTERNAL, f"a bug in Totoro: {type(error).__name__}")
            self._fail(lease, error, self._clock.boot() - took_off)
            return
        seconds = self._clock.boot() - took_off
        outcome = "landed" if snapshot else "late"
        metrics.flights.labels(outcome, "").inc()
        metrics.flight_seconds.labels(outcome).observe(seconds)
        log.info(f"flight_{outcome}", fence=lease.fence, seconds=round(seconds, 3))
        # The lease knows of everybody's failures. This process may have seen none of them, or may not
        # have seen that another one has ended the outage.
        if snapshot and lease.failures:
            ended = self._clock.boot()
            outage = round(ended - failing_since, 3) if failing_since is not None else None
            log.info("outage_over", failures=lease.failures, seconds=outage)
        if snapshot:
            self.freshness.keep(snapshot)

    def _fail(self, lease: Lease, error: UpstreamError, seconds: float) -> None:
        if self._over.is_set():  # cut off by close(), which is nobody's failure
            self._store.release(lease)
            return
        cool_down = self.freshness.crash(lease, error, random.uniform(-1, 1))  # noqa: S311 (spread)
        metrics.flights.labels("failed", error.reason).inc()
        metrics.flight_seconds.labels("failed").observe(seconds)
        log.warning(
            "flight_failed",
            reason=error.reason,
            detail=str(error),
            failures=cool_down.failures,
            cool_down=round(cool_down.left, 3),
            seconds=round(seconds, 3),
        )
