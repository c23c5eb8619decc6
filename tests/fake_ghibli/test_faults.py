import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest

from fake_ghibli import FakeGhibli
from tests.fake_ghibli.client import TOTORO, send


def test_delay_delays_every_response(upstream: FakeGhibli) -> None:
    upstream.faults.delay = 0.05
    begun = time.monotonic()
    assert send(upstream, "/films").status == 200
    assert time.monotonic() - begun >= 0.05


@pytest.mark.parametrize("status", [200, 429, 503])
def test_status_is_that_of_all_responses_with_html(upstream: FakeGhibli, status: int) -> None:
    upstream.faults.status = status
    for path in ("/films", "/nope", "/"):
        response = send(upstream, path)
        assert response.status == status
        assert response.headers["Content-Type"].startswith("text/html")
        assert response.body.startswith(b"<!DOCTYPE html>")
    upstream.faults.status = None
    assert len(send(upstream, "/films").json) == 22


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_reset_cuts_the_body(upstream: FakeGhibli, accepted: str) -> None:
    upstream.faults.reset = True
    with pytest.raises((HTTPException, ConnectionError)):
        send(upstream, "/films", headers={"Accept-Encoding": accepted})


def test_hang_reads_requests_and_sends_nothing(upstream: FakeGhibli) -> None:
    upstream.faults.hang = True
    connection = HTTPConnection(urlsplit(upstream.url).netloc, timeout=0.05)
    connection.request("GET", "/films")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert upstream.count("films") == 1


def test_stamp_is_the_time_of_the_response(upstream: FakeGhibli) -> None:
    before = send(upstream, "/films").json
    upstream.faults.stamp = True
    stamped = send(upstream, "/films").json
    stamp = {"description": "2026-11-23T20:40:12.341359+00:00"}
    assert stamped == [film | stamp for film in before]
    assert send(upstream, f"/films/{TOTORO}").json["description"] == stamp["description"]
    upstream.faults.stamp = False
    assert send(upstream, "/films").json == before
