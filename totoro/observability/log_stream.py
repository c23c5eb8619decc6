"""A stream for log lines that never makes its writers wait.

If the program that reads the log stops reading, its pipe fills, and whoever writes to it waits. So a thread
writes. Lines for which there is no room are dropped, and later counted in the log.
"""

import os
import signal
import threading
from contextlib import suppress
from multiprocessing.util import Finalize
from queue import SimpleQueue

import structlog

log = structlog.get_logger(__name__)

# More may mix with what other processes write to the same pipe (PIPE_BUF).
MAX_WRITE_BYTES = 4096
# Lines that wait to be written, per process.
MAX_WAITING_BYTES = 1024 * 1024
# For the lines that still wait when the process ends.
DRAIN_SECONDS = 1.0


class LogStream:
    """For one `logging.StreamHandler`, which locks it during `write`."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        # None is the last: the thread ends.
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each is changed by one side only: the first two by writers, the others by the thread.
        self._received_bytes = self._dropped = 0
        self._written_bytes = self._reported = 0

    def write(self, text: str) -> None:
        line = text.encode()
        if self._received_bytes + len(line) > self._written_bytes + MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._received_bytes += len(line)
        self._lines.put(line)
        if not self._thread:
            self._start()

    def isatty(self) -> bool:
        return os.isatty(self._file)

    def flush(self) -> None:
        """Do nothing: the thread writes each line at once."""

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        # The thread inherits the mask: a signal that it got would not wake the thread that waits for it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            # If the limit of threads is reached, the next line tries again.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                # Workers of granian are children of multiprocessing, which runs no atexit.
                Finalize(self, self._drain, exitpriority=0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run(self) -> None:
        lines = b""
        while line := self._lines.get():
            if len(lines) + len(line) > MAX_WRITE_BYTES:
                self._write(lines)
                lines = b""
            lines += line
            if self._lines.empty():
                self._write(lines)
                lines = b""
                self._report_dropped()
        self._write(lines)

    def _write(self, lines: bytes) -> None:
        with suppress(OSError):  # nobody reads, or the disk is full
            os.write(self._file, lines)
        self._written_bytes += len(lines)

    def _report_dropped(self) -> None:
        if number := self._dropped - self._reported:
            self._reported += number
            log.warning("log_lines_dropped", lines=number)

    def _drain(self) -> None:
        self._lines.put(None)
        if self._thread:
            self._thread.join(DRAIN_SECONDS)
