"""The background thread that refreshes: one in each process, started by the first request."""

import logging
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize

bugs = logging.getLogger(f"{__name__}.bugs")

# At the end a refresh is cut off; its thread then has nothing to wait for.
JOIN_SECONDS = 2.0


class RefreshThread:
    """Calls `step` when woken and when the seconds that it returned are over (None: not by itself).

    If `step` raises an unexpected exception, `recover` returns when to call it again. `interrupt` ends
    a step early.
    """

    def __init__(
        self,
        step: Callable[[], float | None],
        recover: Callable[[], float | None],
        interrupt: Callable[[], None],
    ) -> None:
        self._step, self._recover, self._interrupt = step, recover, interrupt
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        # Workers of granian are children of multiprocessing, which runs no atexit.
        Finalize(self, self.stop, exitpriority=10)

    def wake(self) -> None:
        self._woken.set()
        with self._lock:
            # A thread does not survive a fork: the child sees that it is not alive.
            if not self._stopped.is_set() and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._woken.set()
        self._interrupt()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                seconds = self._step()
            except Exception:  # noqa: BLE001 (whatever it is, the thread lives on)
                bugs.exception("refresh_error")
                seconds = self._recover()
            self._woken.wait(seconds)
