from collections.abc import Iterator

import pytest

from fake_ghibli import FakeGhibli
from fake_ghibli.control import control
from tests.fake_ghibli.client import Response, connect, receive, send


@pytest.fixture
def panel(upstream: FakeGhibli) -> Iterator[str]:
    with control(upstream, "127.0.0.1", 0) as listener:
        yield listener.url


def put(panel: str, body: bytes) -> Response:
    connection = connect(panel)
    connection.request("PUT", "/", body)
    response = receive(connection)
    connection.close()
    return response


def get(panel: str, path: str = "/") -> Response:
    connection = connect(panel)
    connection.request("GET", path)
    response = receive(connection)
    connection.close()
    return response


def test_shows_faults_and_request_counts(upstream: FakeGhibli, panel: str) -> None:
    send(upstream, "/films")
    faults = {"delay": 0, "status": None, "reset": False, "hang": False, "stamp": False}
    assert get(panel).json == {
        "faults": faults,
        "requests": {"films": 1, "people": 0},
    }


def test_sets_faults(upstream: FakeGhibli, panel: str) -> None:
    response = put(panel, b'{"status": 503, "stamp": true, "delay": 0.01}')
    assert response.status == 200
    assert response.json["faults"]["status"] == 503
    assert (upstream.faults.stamp, upstream.faults.delay) == (True, 0.01)
    assert send(upstream, "/films").status == 503
    put(panel, b'{"status": null}')
    assert send(upstream, "/films").status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"nope": 1}', "no fault 'nope', only delay, status, reset, hang, stamp"),
        (b'{"delay": "1"}', "delay is a number of seconds, 0 or more, not '1'"),
        (b'{"delay": true}', "delay is a number"),
        (b'{"delay": -1}', "delay is a number"),
        (b'{"delay": Infinity}', "delay is a number"),
        (b'{"status": 99}', "status is null or a status that has a body, 200 to 599, not 99"),
        (b'{"status": 304}', "status is null"),
        (b'{"status": true}', "status is null"),
        (b'{"stamp": 1}', "stamp is true or false, not 1"),
        (b'{"hang": null}', "hang is true or false"),
        (b"[]", "Send an object"),
        (b"{", "Expecting property name"),
    ],
)
def test_refuses_invalid_faults(panel: str, body: bytes, message: str) -> None:
    response = put(panel, body)
    assert response.status == 400
    assert message in response.json["message"]


def test_sets_no_fault_if_one_is_invalid(upstream: FakeGhibli, panel: str) -> None:
    assert put(panel, b'{"stamp": true, "hang": 1}').status == 400
    assert upstream.faults.stamp is False


def test_other_paths_are_not_found(panel: str) -> None:
    assert get(panel, "/films").status == 404
