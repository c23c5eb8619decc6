"""URLs of what Totoro connects to: their parsers, and what Django's settings make of them.

A parser takes a text without surrounding white space and returns it, or raises ValueError with what is
allowed. The messages contain no part of the text, which may be a password.
"""

import re
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import dj_database_url

HOST_NAME = re.compile(r"[a-z0-9_.-]+")
# It begins with a letter: the host in http://2852039166/ is an IP address.
HOST_NAME_WITHOUT_DOT = re.compile(r"[a-z][a-z0-9_-]*")
# Loopback, RFC 1918 and RFC 4193. Not `is_private`, which includes 0.0.0.0, this machine under another
# name, and 169.254.169.254, a cloud's metadata.
INTERNAL_IPV4 = "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"
INTERNAL_IPV6 = "::1/128", "fc00::/7"
INTERNAL_NETWORKS = [ip_network(network) for network in INTERNAL_IPV4 + INTERNAL_IPV6]
NOT_ENCODED = (
    "must be a URL whose password has #, @, /, ? and % percent-encoded: %23, %40, %2F, %3F, %25"
)
SENTINEL = "+sentinel://"
SENTINEL_PORT = 26379
SENTINEL_OPTIONS = ["sentinel_username", "sentinel_password"]
TLS_OPTIONS = ["ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile"]
# redis-py has others, which would replace the time limits below, or break every command.
REDIS_OPTIONS = {"redis": ["db"], "rediss": ["db", *TLS_OPTIONS], "unix": ["db"]}
# Of libpq. It has others, which would replace the time limits below.
POSTGRESQL_OPTIONS = [
    *("application_name", "sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs"),
]
OPTION_VALUES = {
    "db": "[0-9]{1,9}",
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "(?i:true|false|yes|no|1|0)",
}


def upstream_url(text: str) -> str:
    """Return the Ghibli API's base URL with a trailing slash.

    Plain http is for a fake API on the internal network; elsewhere anybody could change the data.
    """
    parts = _split(text, "http", "https")
    host = parts.hostname or ""
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without credentials, query or fragment")
    if not _is_host(host):
        raise ValueError("must be an https URL with a host")
    if parts.scheme == "http" and not _is_internal(host):
        raise ValueError(
            "must be https: plain http is for loopback, private addresses and names without a dot"
        )
    return parts.geturl().rstrip("/") + "/"


def _is_internal(host: str) -> bool:
    if address := _address(host):
        return any(address in network for network in INTERNAL_NETWORKS)
    return bool(HOST_NAME_WITHOUT_DOT.fullmatch(host))


def _is_host(name: str) -> bool:
    return bool(_address(name) or HOST_NAME.fullmatch(name))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


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
        if not find_spec("opentelemetry"):
            raise ValueError("needs `pip install -r requirements/tracing.txt`")
    return text


def redis_url(text: str) -> str:
    if SENTINEL in text:
        _redis_and_sentinels(text)
    elif text:
        parts = _split_with_password(text, *REDIS_OPTIONS)
        # redis-py would use database 0 for one that is not a number.
        if not (parts.path if parts.scheme == "unix" else re.fullmatch("(/[0-9]*)?", parts.path)):
            raise ValueError("must be empty or a URL like redis://host:6379/0")
        _options(parts, REDIS_OPTIONS[parts.scheme])
    return text


def redis_caches(url: str) -> dict[str, Any]:
    """Return Django's CACHES for Redis."""
    sentinels = None
    if SENTINEL in url:
        url, sentinels = _redis_and_sentinels(url)
    # django-redis splits a location at commas, which a password may contain.
    location = url.replace(",", "%2C")
    return {
        "default": _redis_cache(location, 0.2, sentinels),
        # Shorter, because requests wait for it. The fragment, which Redis ignores, makes django-redis
        # use a separate connection pool, with these timeouts.
        "quotas": _redis_cache(f"{location}#quotas", 0.1, sentinels),
    }


def _redis_cache(
    location: str, timeout_seconds: float, sentinels: tuple[str, list[str]] | None
) -> dict[str, Any]:
    options = {
        # The default is pickle.
        "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
        "CONNECTION_POOL_CLASS": "services.redis_connection.BoundedConnectionPool",
        # The sum of the two is the longest that one command of a hung Redis takes.
        "SOCKET_CONNECT_TIMEOUT": 0.1,
        "SOCKET_TIMEOUT": timeout_seconds,
        "CONNECTION_POOL_KWARGS": {
            "max_connections": 224,
            "sentinels": sentinels,
            # No commands on connecting but AUTH: each is one more round trip to a slow Redis.
            "protocol": 2,
            "driver_info": None,
        },
    }
    return {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location, "OPTIONS": options}


def _redis_and_sentinels(text: str) -> tuple[str, tuple[str, list[str]]]:
    """Split a URL like redis+sentinel://user:password@host1:26379,host2:26379/name/0?option=….

    Returns the URL of Redis with the group's name in place of a host, and that name with the URLs of
    the Sentinels. User and password are those of Redis. With rediss+sentinel, all use TLS.
    """
    scheme, _, rest = text.partition(SENTINEL)
    netloc, _, path = rest.partition("/")
    credentials, at, hosts = netloc.rpartition("@")
    each = [
        _split_with_password(f"{scheme}://{credentials}{at}{host}/{path}", "redis", "rediss")
        for host in hosts.split(",")
    ]
    match = re.fullmatch("/([A-Za-z0-9_.-]+)(/[0-9]*)?", each[0].path)
    if not match or not all(_is_host(parts.hostname or "") for parts in each):
        raise ValueError(
            "must be a URL like redis+sentinel://host1:26379,host2:26379/mymaster/0, with the"
            " group's name"
        )
    options = _options(each[0], SENTINEL_OPTIONS + (TLS_OPTIONS if scheme == "rediss" else []))
    user, password = (quote(unquote(options.pop(name, "")), safe="") for name in SENTINEL_OPTIONS)
    tls = "?" + "&".join(map("=".join, options.items())) if options else ""
    name, database = match[1], match[2] or ""
    sentinels = [f"{scheme}://{user}:{password}@{_host_and_port(parts)}{tls}" for parts in each]
    return f"{scheme}://{credentials}{at}{name}{database}{tls}", (name, sentinels)


def _options(parts: SplitResult, allowed: list[str]) -> dict[str, str]:
    options = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    if not options.keys() <= set(allowed):
        raise ValueError(
            f"must have no options but {', '.join(allowed)}" if allowed else "must have no options"
        )
    for name, pattern in OPTION_VALUES.items():
        if name in options and not re.fullmatch(pattern, options[name]):
            raise ValueError(f"must have a valid option {name}")
    return options


def _host_and_port(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return f"{host}:{parts.port or SENTINEL_PORT}"


def database_url(text: str) -> str:
    if text:
        parts = _split_with_password(text, "sqlite", "postgres", "postgresql")
        if not re.fullmatch("/+[^/].*", parts.path):
            raise ValueError("must name a database, like postgresql://user:password@host:5432/name")
        _options(parts, [] if parts.scheme == "sqlite" else POSTGRESQL_OPTIONS)
    return text


def database(url: str) -> dict[str, Any]:
    """Return one of Django's DATABASES, with limits: no response may wait long for it."""
    settings: dict[str, Any] = {**dj_database_url.parse(url)}
    limits: dict[str, object] = {"connect_timeout": 1, "options": "-c statement_timeout=500"}
    if settings["ENGINE"].endswith("sqlite3"):
        limits = {"timeout": 0.25, "init_command": "PRAGMA journal_mode=WAL"}
    return {**settings, "OPTIONS": {**settings.get("OPTIONS", {}), **limits}}


def _split(
    text: str, *schemes: str, malformed: str = "must be a URL with a valid host and port"
) -> SplitResult:
    # urlsplit drops control characters, so what is checked here would not be what is used.
    if re.search(r"[\s\x00-\x20\x7f]", text):
        raise ValueError("must be a URL without white space")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(malformed) from None
    if parts.scheme not in schemes:
        prefixes = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"must be a URL that begins with {prefixes}")
    return parts


def _split_with_password(text: str, *schemes: str) -> SplitResult:
    """Split a URL whose password, if it has one, is percent-encoded.

    Otherwise `#`, `/` or `?` would end the password, and the rest be taken for a database or an option.
    """
    parts = _split(text, *schemes, malformed=NOT_ENCODED)
    # The path of a SQLite file may contain an @.
    after_host = "" if parts.scheme == "sqlite" else f"{parts.path}?{parts.query}"
    if "#" in text or "@" in after_host or parts.netloc.count("@") > 1:
        raise ValueError(NOT_ENCODED)
    if re.search("%(?![0-9A-Fa-f]{2})", parts.netloc):
        raise ValueError(NOT_ENCODED)
    return parts
