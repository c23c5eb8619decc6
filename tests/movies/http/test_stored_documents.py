"""Documents and static files, which change only with a deploy, have validators, gzip and a lifetime."""

import gzip
import re

import pytest
import requests

from tests.support.servers import Totoro
from totoro.middleware import STRICT_POLICY

DOCUMENTS = [
    ("/swagger.json", None),
    ("/swagger.yaml", None),
    ("/?format=openapi", None),
    ("/problems/", None),
    ("/problems/not-found/", None),
    ("/problems/", "text/html"),
    ("/problems/not-found/", "text/html"),
]


def get(server: Totoro, path: str, accept: str | None = None, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Accept-Encoding": "identity", **({"Accept": accept} if accept else {}), **named}
    with requests.get(server.url + path, headers=sent, stream=True, timeout=30) as response:
        response._content = response.raw.read(decode_content=False)
        return response


@pytest.mark.parametrize(("path", "accept"), DOCUMENTS)
def test_a_document_has_an_etag_for_each_encoding_and_a_lifetime(
    path: str, accept: str | None, server: Totoro
) -> None:
    plain, gzipped = get(server, path, accept), get(server, path, accept, Accept_Encoding="gzip")

    for response in (plain, gzipped):
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "public, max-age=300"
        assert response.headers["Vary"] == "Accept, Accept-Encoding"
        etag = response.headers["ETag"]
        assert re.fullmatch('"[^"]+"', etag)
        encoding = response.headers.get("Content-Encoding", "identity")
        again = get(server, path, accept, If_None_Match=etag, Accept_Encoding=encoding)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == etag
    if len(plain.content) >= 1024:
        assert gzipped.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(gzipped.content) == plain.content
        assert gzipped.headers["ETag"] != plain.headers["ETag"]
    assert get(server, path, accept).content == plain.content


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


# A 304 may only have the Content-Length of the 200 (RFC 9110, section 8.6): caches store it.
@pytest.mark.parametrize("path", ["/movies/", "/problems/", STATIC[0]])
def test_a_304_has_no_content_length(path: str, server: Totoro) -> None:
    again = get(server, path, If_None_Match="*")

    assert again.status_code == 304
    assert "Content-Length" not in again.headers


def test_an_error_on_a_page_has_the_strict_content_security_policy(server: Totoro) -> None:
    response = get(server, "/problems/none/", "text/html,*/*;q=0.8")

    assert response.status_code == 404
    assert response.headers["Content-Security-Policy"] == STRICT_POLICY
