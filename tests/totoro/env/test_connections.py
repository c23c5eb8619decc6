"""Which URLs of the Ghibli API are accepted; tests/totoro/test_settings.py has the other variables."""

import pytest

from totoro.settings import Production


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://example.org/ghibli/",
        "https://8.8.8.8/",
        "https://[2001:db8::1]:8443/",
        "http://localhost/",
        "http://upstream:3900/",
        "http://127.0.0.1:3900/",
        "http://10.1.2.3/",
        "http://172.31.0.1/",
        "http://192.168.1.1/",
        "http://[::1]:3900/",
        "http://[fd00::1]/",
    ],
)
def test_the_ghibli_api_may_be_anywhere_over_https_and_internal_over_http(url: str) -> None:
    assert Production.GHIBLI_API_BASE_URL.to_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ghibliapi.dev",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://",
        "https:///films",
        "https://exa mple.org/",
        "https://exam\nple.org/",
        "https://example.org\\evil/",
        "https://example.org:99999/",
        "https://[::1/",
        "https://example.org/?key=1",
        "https://example.org/#films",
        "http://example.org/",
        "http://8.8.8.8/",
        "http://0.0.0.0/",
        "http://169.254.169.254/",
        "http://[fe80::1]/",
        "http://[::]/",
        "http://[::ffff:169.254.169.254]/",
        "http://172.32.0.1/",
        "http://192.0.2.1/",
        # IP addresses to the resolver.
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://127.1/",
        "http://localhost.evil.example/",
    ],
)
def test_rejects_other_urls_of_the_ghibli_api(url: str) -> None:
    with pytest.raises(SystemExit, match=r"^totoro: GHIBLI_API_BASE_URL = .*: must "):
        Production.GHIBLI_API_BASE_URL.to_python(url)


def test_rejects_a_password_in_the_ghibli_apis_url_without_showing_it() -> None:
    with pytest.raises(SystemExit) as stopped:
        Production.GHIBLI_API_BASE_URL.to_python("https://user:hunter2@example.org/")

    assert "without credentials" in str(stopped.value)
    assert "hunter2" not in str(stopped.value)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:3900", "http://127.0.0.1:3900/", "http://127.0.0.1:3900//"],
)
def test_the_base_url_ends_with_one_slash(url: str) -> None:
    assert Production.GHIBLI_API_BASE_URL.to_python(url) == "http://127.0.0.1:3900/"
