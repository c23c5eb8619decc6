"""A worker process of the server: what it loads, and how it stops."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

import structlog
from django.conf import settings
from granian.server import mp

from totoro.serving.preload import hide_unused_packages

log = structlog.get_logger(__name__)

STOP_TIMEOUT_SECONDS = 30
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SERVER_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
PARENT_CHECK_SECONDS = 0.2


def reset_signal_handlers() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SERVER_SIGNALS)


def load_application() -> Callable[[Any, WSGIEnvironment], None]:
    """Return what responds to requests, in a worker that stops on a signal or when the server is gone."""
    server = multiprocessing.parent_process()
    assert server
    reset_signal_handlers()  # in a worker that is not forked
    # For this thread and all that are started from now on.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=stop_on_signal, daemon=True).start()
    threading.Thread(target=stop_with_server, args=(server.pid,), daemon=True).start()
    hide_unused_packages()
    from totoro import wsgi  # first: it sets up Django
    from totoro.serving.request_threads import RequestThreads

    # Granian's own wrapper of a WSGI application waits for the response in the thread that calls it.
    mp._wsgi_call_wrap = lambda callback, *_: callback  # type: ignore[attr-defined]  # private
    gc.freeze()  # what serves all requests is not garbage
    log.info("worker_started")
    return RequestThreads(
        wsgi.response_cache, proxies=settings.TRUSTED_PROXIES, threads=settings.REQUEST_THREADS
    )


def stop_on_signal() -> None:
    """Wait for a stop signal, and call granian's handler once.

    In the main thread it would deadlock, like the server's, if a second signal interrupts it: Ctrl-C
    reaches workers from the terminal and, as SIGTERM, from the server.
    """
    number = signal.sigwait(STOP_SIGNALS)
    handler = signal.getsignal(number)
    if not callable(handler):  # granian has not set its own yet: no request has come
        os._exit(1)
    handler(number, None)


def stop_with_server(server: int) -> None:
    """Wait until the server process is gone, then stop this worker, which would block the port.

    A server that was killed (SIGKILL, out of memory) cannot stop its workers. The kernel could
    (PR_SET_PDEATHSIG), but only on Linux.
    """
    while os.getppid() == server:
        time.sleep(PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT_SECONDS)
    os._exit(1)
