"""Documents, which change only with a deploy, have validators, gzip and a lifetime."""

import gzip
import re

import pytest
import requests
from django.test import Client
from django.test.utils import override_script_prefix

from movies.http.stored_documents import MAX_DOCUMENTS, documents
from tests.support.servers import Totoro
from totoro.middleware import SECURITY_HEADERS

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


# A 304 may only have the Content-Length of the 200 (RFC 9110, section 8.6): caches store it.
@pytest.mark.parametrize("path", ["/movies/", "/problems/", "/static/movies/list.css"])
def test_a_304_has_no_content_length(path: str, server: Totoro) -> None:
    again = get(server, path, If_None_Match="*")

    assert again.status_code == 304
    assert "Content-Length" not in again.headers


def test_an_error_on_a_page_has_the_strict_content_security_policy(server: Totoro) -> None:
    response = get(server, "/problems/none/", "text/html,*/*;q=0.8")

    assert response.status_code == 404
    policy = response.headers["Content-Security-Policy"]
    assert policy == SECURITY_HEADERS["Content-Security-Policy"]


def test_prefixes_that_clients_make_up_do_not_fill_the_memory(api: Client) -> None:
    for number in range(MAX_DOCUMENTS + 10):
        prefix = f"/prefix-{number}/"
        with override_script_prefix(prefix):
            problem = api.get("/problems/not-found/").json()
        assert problem["type"] == f"{prefix}problems/not-found/"

    assert 0 < len(documents) <= MAX_DOCUMENTS
