"""From the text of an environment variable to its value.

Each function takes the text and returns the value, or raises ValueError with what is allowed.
"""

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import dj_database_url


def boolean(text: str) -> bool:
    values = {"true": True, "yes": True, "on": True, "1": True}
    values |= {"false": False, "no": False, "off": False, "0": False}
    try:
        return values[text.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.strip().isascii() and text.strip().isdigit() and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().upper() in allowed:
            return text.strip().upper()
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return parse


def names(text: str) -> list[str]:
    """Comma-separated names; at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ValueError("must be a comma-separated list of at least one name")
    return found


def origins(text: str) -> list[str]:
    """`*`, or comma-separated origins as browsers send them (scheme://host[:port])."""
    found = names(text)
    if "*" in found and len(found) > 1:
        raise ValueError("must be * alone, or origins")
    for origin in found:
        parts = urlsplit(origin)
        if origin != "*" and (f"{parts.scheme}://{parts.netloc}" != origin or not parts.netloc):
            raise ValueError("must be * or origins like https://example.org, separated by commas")
    return found


def upstream_url(text: str) -> str:
    """The Ghibli API's base URL, with a trailing slash.

    Plain http is for a stand-in nearby: loopback, a private address, or a name without a dot (a
    neighbour in docker-compose). Anything else would fetch the data unprotected.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be a URL without credentials, query or fragment")
    if parts.scheme == "http" and not _is_near(parts.hostname):
        raise ValueError("must be https: plain http is for loopback and private addresses only")
    return parts.geturl().rstrip("/") + "/"


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_loopback or address.is_private


def redis_url(text: str) -> str:
    if text and not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must be empty or a URL like redis://host:6379/0")
    return text


def database_url(text: str) -> str:
    if not text:
        return text
    if not text.startswith(("sqlite:", "postgres:", "postgresql:")):
        raise ValueError("must be empty or a URL like postgresql://user:password@host:5432/name")
    try:
        dj_database_url.parse(text)
    except Exception as error:
        raise ValueError(f"cannot be read as a database URL ({type(error).__name__})") from error
    return text


def sentry_dsn(text: str) -> str:
    parts = urlsplit(text)
    if text and not (
        parts.scheme in ("http", "https") and parts.username and parts.path.strip("/")
    ):
        raise ValueError("must be empty or a Sentry DSN like https://key@host/1")
    return text
