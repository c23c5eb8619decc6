"""Static files have hashed names, validators and gzip, and are cached for ever."""

import gzip
import re

import pytest
import requests

from tests.support.servers import Totoro


def get(server: Totoro, path: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Accept-Encoding": "identity", **named}
    with requests.get(server.url + path, headers=sent, stream=True, timeout=30) as response:
        response._content = response.raw.read(decode_content=False)
        return response


def static_links(server: Totoro) -> list[str]:
    pages = ["/", "/redoc/", "/movies/", "/problems/"]
    texts = [server.get(page, headers={"Accept": "text/html"}).text for page in pages]
    return sorted({link for text in texts for link in re.findall(r'"(/static/[^"]+)"', text)})


def test_static_files_have_a_hash_in_their_names_and_are_cached_for_ever(server: Totoro) -> None:
    links = static_links(server)
    assert len(links) >= 8
    for link in links:
        assert re.search(r"\.[0-9a-f]{12}\.[a-z]+$", link)
        response = get(server, link)
        assert response.status_code == 200
        assert "immutable" in response.headers["Cache-Control"]
        assert "max-age=315360000" in response.headers["Cache-Control"]


STATIC = ["/static/movies/list.css", "/static/drf-yasg/swagger-ui-dist/swagger-ui-bundle.js"]


@pytest.mark.parametrize("path", STATIC)
def test_a_static_file_has_an_etag_for_each_encoding(path: str, server: Totoro) -> None:
    plain, gzipped = get(server, path), get(server, path, Accept_Encoding="gzip")

    assert gzipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(gzipped.content) == plain.content
    assert plain.headers["ETag"] != gzipped.headers["ETag"]
    for response in (plain, gzipped):
        assert int(response.headers["Content-Length"]) == len(response.content)
        for etags in (response.headers["ETag"], f'"other", {response.headers["ETag"]}', "*"):
            encoding = response.headers.get("Content-Encoding", "identity")
            again = get(server, path, If_None_Match=etags, Accept_Encoding=encoding)
            assert (again.status_code, again.content) == (304, b"")
    head = requests.head(server.url + path, headers={"Accept-Encoding": "gzip"}, timeout=30)
    assert (head.status_code, head.headers["ETag"]) == (200, gzipped.headers["ETag"])
    assert get(server, path, Accept_Encoding="gzip;q=0").content == plain.content


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-9"},
        {"Range": "bytes=999999999-"},
        {"Range": "bytes=0-9", "If_Range": '"other"'},
    ],
)
def test_a_range_is_ignored_and_the_whole_file_sent(
    headers: dict[str, str], server: Totoro
) -> None:
    full = get(server, STATIC[0])
    response = get(server, STATIC[0], **headers)

    assert (response.status_code, response.content) == (200, full.content)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "TRACE"])
def test_other_methods_on_a_static_file_get_a_405_problem(method: str, server: Totoro) -> None:
    response = requests.request(method, server.url + STATIC[0], timeout=30)

    assert response.status_code == 405
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert response.json()["status"] == 405


def test_options_lists_the_methods_of_a_static_file(server: Totoro) -> None:
    response = requests.options(server.url + STATIC[0], timeout=30)

    assert (response.status_code, response.json()) == (200, {"methods": ["GET", "HEAD", "OPTIONS"]})


def test_a_failed_precondition_is_a_problem(server: Totoro) -> None:
    response = get(server, STATIC[0], If_Match='"other"')

    assert response.status_code == 412
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"]
