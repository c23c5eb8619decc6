"""Parsers of environment variables.

Each takes a text without surrounding white space and returns its value, or raises ValueError with what
is allowed.
"""

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import dj_database_url

# The key in the .env.template of earlier versions.
TEMPLATE_SECRET = "filled-in-by-make"  # noqa: S105 (the one value that is never accepted)

MAX_SECRET_BYTES = 65_536

# As Django compares them: without a port or a scheme.
ALLOWED_HOST = re.compile(r"\*|\.?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
# As browsers send it: without a path or a user.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
RATE = re.compile("0*([1-9][0-9]{0,9})/(s|sec|second|m|min|minute|h|hour|d|day)")
HOST_NAME = re.compile(r"[a-z0-9_.-]+")
# It begins with a letter: the host in http://2852039166/ is an IP address.
HOST_NAME_WITHOUT_DOT = re.compile(r"[a-z][a-z0-9_-]*")
# Loopback, RFC 1918 and RFC 4193. Not `is_private`, which includes 0.0.0.0, this machine under another
# name, and 169.254.169.254, a cloud's metadata.
INTERNAL_NETWORKS = [
    *map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ip_network, ("::1/128", "fc00::/7")),
]
NOT_ENCODED = (
    "must be a URL whose password has #, @, /, ? and % percent-encoded: %23, %40, %2F, %3F, %25"
)
SENTINEL = "+sentinel://"
SENTINEL_PORT = 26379
SENTINEL_OPTIONS = ["sentinel_username", "sentinel_password"]
TLS_OPTIONS = [
    *("ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile"),
]


def text_of_file(path: Path) -> str:
    """Return the text of a secret's file. The messages of errors contain no part of it."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would block
            raise ValueError("must be a file, not a folder, pipe or device")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"must be a file that can be read: {error.strerror}") from None
    if not 0 < len(content.strip()) <= len(content) <= MAX_SECRET_BYTES:
        raise ValueError(f"must be a file with 1 to {MAX_SECRET_BYTES} bytes")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("must be a file in UTF-8") from None


def boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("must be true or false")


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    # More digits than that are out of range, and int() is slow for many.
    digits = re.compile(f"0*[0-9]{{1,{len(str(maximum))}}}")

    def parse(text: str) -> int:
        if digits.fullmatch(text) and minimum <= int(text) <= maximum:
            return int(text)
        raise ValueError(f"must be a whole number from {minimum} to {maximum}")

    return parse


def rate(text: str) -> tuple[int, int] | None:
    """Return requests and seconds, or None for `off`."""
    if text.lower() == "off":
        return None
    if match := RATE.fullmatch(text.lower()):
        return int(match[1]), {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2][0]]
    raise ValueError("must be off or like 600/min, with a whole number and s, min, h or day")


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.upper() in allowed:
            return text.upper()
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return parse


def secret_key(text: str) -> str:
    if text not in ("", TEMPLATE_SECRET):
        return text
    raise ValueError(
        "must be a secret of your own, not empty and not the template's; `make"
        " create-env-vars-from-template` makes one"
    )


def hosts(text: str) -> list[str]:
    names = _names(text)
    if names and all(map(ALLOWED_HOST.fullmatch, names)):
        return names
    raise ValueError("must be host names or addresses without a port, separated by commas")


def origins(text: str) -> list[str]:
    names = _names(text.lower())
    if names == ["*"] or (names and all(map(ORIGIN.fullmatch, names))):
        return names
    raise ValueError("must be * or origins like https://example.org, separated by commas")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def sentry_dsn(text: str) -> str:
    if not text:
        return text
    from sentry_sdk.utils import Dsn  # which takes time and 4 MB

    try:
        return str(Dsn(text))
    except ValueError:
        raise ValueError("must be empty or a Sentry DSN like https://key@host/1") from None


def otlp_endpoint(text: str) -> str:
    if text:
        _split(text, "http", "https")
        try:
            found = find_spec("opentelemetry.exporter.otlp.proto.http")
        except ModuleNotFoundError:
            found = None
        if not found:
            raise ValueError("needs `pip install -r requirements/tracing.txt`")
    return text


def upstream_url(text: str) -> str:
    """Return the Ghibli API's base URL with a trailing slash.

    Plain http is for a fake API on the internal network; elsewhere anybody could change the data.
    """
    parts = _split(text, "http", "https")
    host = parts.hostname or ""
    address = _address(host)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without credentials, query or fragment")
    if not _is_host(host):
        raise ValueError("must be an https URL with a host")
    is_internal = (
        any(address in network for network in INTERNAL_NETWORKS)
        if address
        else HOST_NAME_WITHOUT_DOT.fullmatch(host)
    )
    if parts.scheme == "http" and not is_internal:
        raise ValueError(
            "must be https: plain http is for loopback, private addresses and names without a dot"
        )
    return parts.geturl().rstrip("/") + "/"


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def redis_url(text: str) -> str:
    if SENTINEL in text:
        sentinel_group(text)
    elif text:
        parts = _split_with_password(text, "redis", "rediss", "unix", "redis+sentinel")
        # redis-py would use database 0 for one that is not a number.
        if not (parts.path if parts.scheme == "unix" else re.fullmatch("(/[0-9]*)?", parts.path)):
            raise ValueError("must be empty or a URL like redis://host:6379/0")
    return text


class SentinelGroup(NamedTuple):
    """`redis_url`: with the name of the group in place of a host."""

    name: str
    redis_url: str
    sentinel_urls: list[str]


def sentinel_group(text: str) -> SentinelGroup:
    """Split a URL like redis+sentinel://user:password@host1:26379,host2:26379/name/0?option=….

    User and password are those of Redis. With rediss+sentinel, Redis and the Sentinels use TLS.
    """
    scheme, _, rest = text.partition(SENTINEL)
    netloc, _, path = rest.partition("/")
    credentials, at, hosts = netloc.rpartition("@")
    each = [
        _split_with_password(f"{scheme}://{credentials}{at}{host}/{path}", "redis", "rediss")
        for host in hosts.split(",")
    ]
    name = re.fullmatch("/([A-Za-z0-9_.-]+)(/[0-9]*)?", each[0].path)
    if not name or not all(_is_host(parts.hostname or "") for parts in each):
        raise ValueError(
            "must be a URL like redis+sentinel://host1:26379,host2:26379/mymaster/0, with the"
            " group's name"
        )
    options = dict(pair.partition("=")[::2] for pair in each[0].query.split("&") if pair)
    allowed = SENTINEL_OPTIONS + (TLS_OPTIONS if scheme == "rediss" else [])
    if not options.keys() <= set(allowed):
        raise ValueError(f"must have no options but {', '.join(allowed)}")
    user, password = (quote(unquote(options.pop(name, "")), safe="") for name in SENTINEL_OPTIONS)
    tls = "?" + "&".join(map("=".join, options.items())) if options else ""
    return SentinelGroup(
        name[1],
        f"{scheme}://{credentials}{at}{name[1]}{name[2] or ''}{tls}",
        [f"{scheme}://{user}:{password}@{_host_and_port(parts)}{tls}" for parts in each],
    )


def _is_host(name: str) -> bool:
    return bool(_address(name) or HOST_NAME.fullmatch(name))


def _host_and_port(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return f"{host}:{parts.port or SENTINEL_PORT}"


def database_url(text: str) -> str:
    if text:
        parts = _split_with_password(text, "sqlite", "postgres", "postgresql")
        if not re.fullmatch("/+[^/].*", parts.path):
            raise ValueError("must name a database, like postgresql://user:password@host:5432/name")
        try:
            dj_database_url.parse(text)
        except ValueError:
            raise ValueError("must be a URL of a database, with valid options") from None
    return text


def _split(text: str, *schemes: str) -> SplitResult:
    """Split a URL with one of the schemes. The messages of errors contain no part of it."""
    # urlsplit drops control characters, so what is checked here would not be what is used.
    if re.search(r"[\s\x00-\x20\x7f]", text):
        raise ValueError("must be a URL without white space")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(NOT_ENCODED) from None
    if parts.scheme not in schemes:
        prefixes = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"must be a URL that begins with {prefixes}")
    return parts


def _split_with_password(text: str, *schemes: str) -> SplitResult:
    """Split a URL whose password, if it has one, is percent-encoded.

    Otherwise `#`, `/` or `?` would end the password, and the rest be taken for a database or an option.
    """
    parts = _split(text, *schemes)
    # The path of a SQLite file may contain an @.
    after_host = "" if parts.scheme == "sqlite" else f"{parts.path}?{parts.query}"
    if "#" in text or "@" in after_host or parts.netloc.count("@") > 1:
        raise ValueError(NOT_ENCODED)
    if re.search("%(?![0-9A-Fa-f]{2})", parts.netloc):
        raise ValueError(NOT_ENCODED)
    return parts


def misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return the names that are not known but similar to a known one, each with that one."""
    unknown = [name for name in names if name not in known]
    similar = {name: get_close_matches(name, known, n=1, cutoff=0.885) for name in unknown}
    return {name: matches[0] for name, matches in similar.items() if matches}
