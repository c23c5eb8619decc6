"""RESPONSE_CACHE=off changes speed and nothing else: random requests, with the cache and without."""

import re
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings
from werkzeug.test import Client, EnvironBuilder, TestResponse

from fake_ghibli import FakeGhibli
from movies.http.conditional import fresh_headers
from movies.query.parameters import LIST_PARAMETERS
from services.catalogue import bundled
from totoro.forwarded import TrustedProxies
from totoro.response_cache import ResponseCache

IDS = [film["id"] for film in bundled.load().films[:3]]
PATHS = [
    *["/movies/"] * 12,
    *[f"/movies/{IDS[0]}/"] * 4,
    *(f"/movies/{movie_id}/" for movie_id in (*IDS, IDS[0].upper(), "none", "%00", "a%2Fb")),
    *("/movies", "/movies//", "/MOVIES/", f"/movies/{IDS[0]}"),
    *(
        "/",
        "/problems/",
        "/problems/not-found/",
        "/swagger.json",
        "/livez",
        "/static/none",
        "/%C3%A9",
    ),
]
NAMES = [*LIST_PARAMETERS, "format", "_", "utm_source", "LIMIT", "limit%20", "%6Cimit"]
VALUES = [
    *(
        "",
        "1",
        "5",
        "0",
        "-1",
        "999999",
        "x",
        "miyazaki",
        "title",
        "-title",
        "id,title",
        "people.name",
    ),
    *(
        "id,id",
        "%20",
        "+",
        "%00",
        "%ff",
        "K%C5%8Dndo",
        "kondo",
        "a%26b",
        "1988",
        "95",
        "a;b",
        "=",
        "#",
    ),
]
ACCEPTS = [
    *("*/*", "application/json", "text/html", "text/html,application/xhtml+xml,*/*;q=0.8", ""),
    *(
        "application/json;q=0, */*",
        "text/html;q=0.5, application/json;q=0.4",
        "image/png",
        "a",
        "*/*;q=0",
    ),
]
ENCODINGS = [
    "gzip",
    "gzip, br",
    "identity",
    "gzip;q=0",
    "*",
    "gzip;q=0.1, identity",
    "",
    "x-gzip",
    "br",
]
HOSTS = [
    "testserver",
    "testserver:8000",
    "TestServer",
    "127.0.0.1",
    "localhost.",
    "evil.example",
    "a b",
    "",
]
ETAGS = [
    "{etag}",
    "W/{etag}",
    '"x", {etag}',
    '"x"',
    'W/"x"',
    "*",
    "rubbish",
    "",
    '"',
    '"a,b"',
    " {etag} ",
]
DATES = [
    "{modified}",
    "Fri, 02 Jan 1970 00:00:00 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "yesterday",
    "",
]
HEADERS: dict[str, list[str]] = {
    "Accept": ACCEPTS,
    "Accept-Encoding": ENCODINGS,
    "If-None-Match": ETAGS,
    "If-Match": ETAGS,
    "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES,
    "Origin": ["https://a.example", "null", ""],
    "Range": ["bytes=0-10"],
    "If-Range": ["{etag}"],
    "Cache-Control": ["no-cache", "no-store", "only-if-cached", "max-age=0"],
    "Authorization": ["Bearer x"],
    "Cookie": ["a=b"],
    "X-Request-ID": ["mine", "not mine", ""],
    "X-Forwarded-For": ["192.0.2.1", "x"],
    "X-Forwarded-Proto": ["https", "x"],
    "X-Forwarded-Prefix": ["/ghibli", "/a b"],
    "X-Forwarded-Host": ["evil.example"],
    "X-HTTP-Method-Override": ["POST"],
    "Content-Type": ["application/json", "rubbish"],
    "User-Agent": ["", "curl"],
}
METHODS = ["GET"] * 8 + ["HEAD"] * 3 + ["OPTIONS", "POST", "PUT", "DELETE", "TRACE", "get", "X"]

USUAL = ["", "limit=2", "limit=2&offset=1", "director=miyazaki", "fields=id", "limit=1&limit=2"]
queries = (
    st.sampled_from(USUAL)
    | st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
    )
    | st.sampled_from(
        ["", "&", "limit", "limit=1&&offset=1", "?", "limit=1;offset=1", f"title={'x' * 900}"]
    )
)
# Those that the cache evaluates come more often.
EVALUATED = ["Accept", "Accept-Encoding", "If-None-Match", "If-Modified-Since"]
request_headers = st.lists(
    st.sampled_from([*HEADERS, *EVALUATED * 6]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]))
    ),
    max_size=4,
).map(dict)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("proxies", [0, 1])
def test_every_response_is_the_same_with_the_cache_and_without(
    proxies: int, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.THROTTLE_RATE = (1_000_000, 3600)
    settings.CACHE_TTL = 3600
    settings.TRUSTED_PROXIES = proxies
    fresh_headers.cache_clear()
    django = get_wsgi_application()
    plain = Client(TrustedProxies(django, proxies))
    cached = Client(TrustedProxies(ResponseCache(django), proxies))

    @hypothesis_settings(max_examples=400, deadline=None)
    @given(
        method=st.sampled_from(METHODS),
        path=st.sampled_from(PATHS),
        query=queries,
        host=st.sampled_from(HOSTS[:2]) | st.sampled_from(HOSTS),
        headers=request_headers,
    )
    @example(
        "GET", "/movies/", "", "testserver", {"Accept": "text/html", "If-None-Match": "{etag}"}
    )
    @example(
        "GET", "/movies/", "", "testserver", {"Accept-Encoding": "gzip", "If-None-Match": "{etag}"}
    )
    @example("GET", "/movies/", "", "testserver", {"If-Unmodified-Since": DATES[1]})
    @example("GET", "/movies/", "limit=2&limit=1", "testserver", {})
    @example("GET", "/movies/", "&" * 1000, "testserver", {})
    def compare(method: str, path: str, query: str, host: str, headers: dict[str, str]) -> None:
        # A request without conditions, of which the response may be stored, and has the validators.
        usual = {name: text for name, text in headers.items() if name.startswith("Accept")}
        full = send(cached, "GET", path, query, HOSTS[0], usual).headers
        validators = {"etag": full.get("ETag", ""), "modified": full.get("Last-Modified", "")}
        filled = {
            name: text.format(**validators) if "{" in text else text
            for name, text in headers.items()
        }
        expected = comparable(send(plain, method, path, query, host, filled))
        # Twice, as the first response may be stored and the second be a hit.
        for _ in range(2):
            assert comparable(send(cached, method, path, query, host, filled)) == expected

    compare()
    fresh_headers.cache_clear()


def send(
    client: Client, method: str, path: str, query: str, host: str, headers: dict[str, str]
) -> TestResponse:
    environ = EnvironBuilder(path, method=method, headers=list(headers.items())).get_environ()
    environ |= {"REQUEST_METHOD": method, "QUERY_STRING": query, "HTTP_HOST": host}
    return client.open(environ)


def comparable(response: TestResponse) -> tuple[int, dict[str, list[str]], bytes]:
    """Return status, headers and body without what differs from one request to the next."""
    headers: dict[str, Any] = {}
    for name, value in response.headers:
        headers.setdefault(name.lower(), []).append(value)
    if "x-request-id" in headers:
        assert len(headers["x-request-id"]) == 1
        request_id = headers.pop("x-request-id")[0]
        body = response.data.replace(request_id.encode(), b"(request id)")
    if "ratelimit" in headers:
        headers["ratelimit"] = re.sub(r"r=9\d{5};t=\d+", "*", headers["ratelimit"][0])
    if "x-accel-expires" in headers:
        assert len(headers["x-accel-expires"]) == 1
        headers["x-accel-expires"] = bool(int(headers["x-accel-expires"][0]))
    for name in ("cache-control", "cache-status"):
        # A second may have passed, and of a request that waited for a refresh is said that it did.
        text = ", ".join(headers.get(name, []))
        headers[name] = re.sub(r"(max-age|ttl)=\d+|fwd=miss; fwd-status=200; stored|hit", "*", text)
    return response.status_code, headers, body
