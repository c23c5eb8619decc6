"""Slow clients, and many minutes of steady load."""

import os
import socket
import time
from contextlib import ExitStack

from tests.docker.conftest import Measure
from tests.docker.stack import Stack
from tests.docker.test_outages import measured
from tests.support.load_client import run_load, under_load

SLOW_CLIENTS = 1000
MINUTES = float(os.environ.get("MINUTES", "10"))
PROGRESS_SECONDS = 30
PARTIAL_REQUESTS = [
    *[b"", b"GET /movies/ HTTP/1.1\r\nHost: loc"] * 5,
    # nginx counts it for the limit of 256 connections of one address, as its headers are complete.
    b"POST /movies/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1",
]


def test_slow_clients_do_not_keep_others_waiting(stack: Stack, measure: Measure) -> None:
    with ExitStack() as slow:
        for number in range(SLOW_CLIENTS):
            client = slow.enter_context(socket.create_connection(("127.0.0.1", stack.port), 10))
            client.sendall(PARTIAL_REQUESTS[number % len(PARTIAL_REQUESTS)])
        result = run_load([stack.url], connections=8, rate=100, total=500)

    measured(result, measure)
    assert (result.failures, result.unsuccessful) == ([], [])
    assert result.latency(0.99) < 1


def test_no_response_is_older_than_a_minute(stack: Stack, measure: Measure) -> None:
    paths = [
        "/movies/",
        "/movies/",
        "/movies/",
        "/movies/?limit=5",
        "/movies/?search=totoro",
        "/movies/?ordering=title",
    ]
    end = time.monotonic() + MINUTES * 60

    with under_load([stack.url], connections=16, rate=50, paths=paths) as result:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(PROGRESS_SECONDS, left))
            ages = [response.age for response in result.successful]
            print(
                f"\n    {left / 60:.1f} minutes left, {len(ages)} responses, oldest {max(ages):.2f} s",
                end="",
                flush=True,
            )

    measured(result, measure)
    measure("oldest", f"{max(response.age for response in result.successful):.2f} s")
    measure("different snapshots", len(result.timestamps))
    assert (result.failures, result.unsuccessful, result.stale, result.backwards) == (
        [],
        [],
        [],
        [],
    )
    assert max(response.age for response in result.successful) <= 60.0
