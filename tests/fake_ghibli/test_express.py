import base64
import gzip
import hashlib

import pytest

from fake_ghibli import FakeGhibli
from tests.fake_ghibli.client import ETAG_OF_EMPTY_OBJECT, send


def etag(body: bytes) -> str:
    return f'W/"{len(body):x}-{base64.b64encode(hashlib.sha1(body).digest()).decode()[:27]}"'


def test_json_has_the_headers_of_express(upstream: FakeGhibli) -> None:
    response = send(upstream, "/films")
    assert dict(response.headers) == {
        "X-Powered-By": "Express",
        "Vary": "Origin, Accept-Encoding",
        "Access-Control-Allow-Credentials": "true",
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
        "Expires": "-1",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(response.body)),
        "ETag": etag(response.body),
        "Date": "Mon, 23 Nov 2026 20:40:12 GMT",
        "Connection": "keep-alive",
        "Keep-Alive": "timeout=5",
    }


def test_repeats_the_origin(upstream: FakeGhibli) -> None:
    response = send(upstream, "/films", headers={"Origin": "https://a.test"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://a.test"


def test_a_404_is_not_revalidated(upstream: FakeGhibli) -> None:
    assert send(upstream, "/nope", headers={"If-None-Match": ETAG_OF_EMPTY_OBJECT}).status == 404


def test_head_has_the_headers_and_no_body(upstream: FakeGhibli) -> None:
    get, head = send(upstream, "/films"), send(upstream, "/films", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert dict(head.headers) == dict(get.headers)


def test_a_known_etag_is_not_modified(upstream: FakeGhibli) -> None:
    known = send(upstream, "/films").headers["ETag"]
    for tags in (known, known.removeprefix("W/"), f'"other", {known}', "*"):
        response = send(upstream, "/films", headers={"If-None-Match": tags})
        assert (response.status, response.body) == (304, b"")
        assert response.headers["ETag"] == known
        assert "Content-Type" not in response.headers
        assert "Content-Length" not in response.headers


def test_another_etag_gets_the_body(upstream: FakeGhibli) -> None:
    assert send(upstream, "/films", headers={"If-None-Match": 'W/"other"'}).status == 200


def test_no_cache_in_the_request_gets_the_body(upstream: FakeGhibli) -> None:
    known = send(upstream, "/films").headers["ETag"]
    headers = {"If-None-Match": known, "Cache-Control": "max-age=0, no-cache"}
    assert send(upstream, "/films", headers=headers).status == 200


def test_gzip_is_chunked_and_has_the_same_etag(upstream: FakeGhibli) -> None:
    plain = send(upstream, "/films")
    compressed = send(upstream, "/films", headers={"Accept-Encoding": "deflate, gzip"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert compressed.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in compressed.headers
    assert compressed.headers["ETag"] == plain.headers["ETag"]
    assert gzip.decompress(compressed.body) == plain.body


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br"])
def test_does_not_compress_unless_gzip_is_accepted(upstream: FakeGhibli, accepted: str) -> None:
    response = send(upstream, "/films", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers


def test_does_not_compress_small_bodies(upstream: FakeGhibli) -> None:
    assert send(upstream, "/nope", headers={"Accept-Encoding": "gzip"}).body == b"{}"
