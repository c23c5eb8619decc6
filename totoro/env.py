"""From the text of an environment variable to its value.

Each function takes the text, without white space around it, and returns the value, or raises
ValueError with what is allowed.
"""

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import dj_database_url
from sentry_sdk.utils import Dsn

# What stands in .env.template; `make create-env-vars-from-template` puts a random key in its place.
TEMPLATE_SECRET = "filled-in-by-make"  # noqa: S105 (the one value that is never accepted)

# As Django compares them: a port or a scheme would never match.
ALLOWED_HOST = re.compile(r"\*|\.?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")

# Where plain http may go: loopback and private addresses (RFC 1918, RFC 4193). Not all that Python
# calls private: 0.0.0.0 is this machine under another name, 169.254.169.254 a cloud's metadata.
NEAR_NETWORKS = [
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
]
# A name of the network around, such as a neighbour in docker-compose. It begins with a letter:
# http://2852039166/ is an address in decimal.
NEAR_NAME = re.compile(r"[a-z][a-z0-9_-]*")
HOST_NAME = re.compile(r"[a-z0-9_.-]+")

UNENCODED = (
    "must be a URL whose password has #, @, /, ? and % percent-encoded: %23, %40, %2F, %3F, %25"
)

# As browsers send it: no path, no user.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

# As DRF has them, and in full.
SECONDS = {
    name: seconds
    for names, seconds in (
        (("s", "sec", "second"), 1),
        (("m", "min", "minute"), 60),
        (("h", "hour"), 3600),
        (("d", "day"), 86_400),
    )
    for name in names
}


def boolean(text: str) -> bool:
    values = {"true": True, "yes": True, "on": True, "1": True}
    values |= {"false": False, "no": False, "off": False, "0": False}
    try:
        return values[text.lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # Leading zeros apart, a number with more digits than `most` has is out of range.
        if re.fullmatch(f"0*[0-9]{{1,{len(str(most))}}}", text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return parse


def rate(text: str) -> tuple[int, int] | None:
    """Requests and seconds; None for `off`."""
    if text.lower() == "off":
        return None
    found = re.fullmatch("0*([1-9][0-9]{0,9})/([a-z]+)", text.lower())
    if not found or found[2] not in SECONDS:
        raise ValueError("must be off or like 600/min, with a whole number and s, min, h or day")
    return int(found[1]), SECONDS[found[2]]


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.upper() in allowed:
            return text.upper()
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return parse


def secret_key(text: str) -> str:
    if text in ("", TEMPLATE_SECRET):
        raise ValueError(
            "must be a secret of your own, not empty and not the template's; `make"
            " create-env-vars-from-template` makes one"
        )
    return text


def hosts(text: str) -> list[str]:
    found = _names(text)
    if not found or not all(ALLOWED_HOST.fullmatch(host) for host in found):
        raise ValueError("must be host names or addresses without a port, separated by commas")
    return found


def origins(text: str) -> list[str]:
    """`*`, or origins, which browsers send in lower case."""
    found = [origin.lower() for origin in _names(text)]
    if found == ["*"]:
        return found
    if not found or not all(ORIGIN.fullmatch(origin) for origin in found):
        raise ValueError("must be * or origins like https://example.org, separated by commas")
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def upstream_url(text: str) -> str:
    """The Ghibli API's base URL, with a trailing slash.

    Plain http is for a fake Ghibli API nearby; anything else would fetch the data unprotected.
    """
    parts = _url(text, "http", "https")
    host = parts.hostname or ""
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without credentials, query or fragment")
    if not HOST_NAME.fullmatch(host) and not _is_address(host):
        raise ValueError("must be an https URL with a host")
    if parts.scheme == "http" and not _is_near(host):
        raise ValueError(
            "must be https: plain http is for loopback, private addresses and names without a dot"
        )
    return parts.geturl().rstrip("/") + "/"


def _url(text: str, *schemes: str) -> SplitResult:
    """The text split, if it is a URL with one of the schemes; errors tell nothing of its parts."""
    # urlsplit drops control characters: what is checked would not be what is used.
    if re.search(r"[\s\x00-\x20\x7f]", text):
        raise ValueError("must be a URL without white space")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(UNENCODED) from None
    if parts.scheme not in schemes:
        raise ValueError(
            f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}"
        )
    return parts


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_near(host: str) -> bool:
    if _is_address(host):
        return any(ip_address(host) in network for network in NEAR_NETWORKS)
    return bool(NEAR_NAME.fullmatch(host))


def _url_with_credentials(text: str, *schemes: str) -> SplitResult:
    """The same for a URL that may hold a password, of which `#`, `@`, `/`, `?` and `%` are
    percent-encoded: as they are they would end it, and the rest be taken for something else."""
    parts = _url(text, *schemes)
    # A file's name ends no password, and may hold an @.
    beyond = f"{parts.path}?{parts.query}" if parts.scheme != "sqlite" else ""
    if "#" in text or "@" in beyond or parts.netloc.count("@") > 1:
        raise ValueError(UNENCODED)
    if re.search("%(?![0-9A-Fa-f]{2})", parts.netloc):
        raise ValueError(UNENCODED)
    return parts


def redis_url(text: str) -> str:
    if not text:
        return text
    parts = _url_with_credentials(text, "redis", "rediss", "unix")
    # redis-py takes a database that is no number for 0.
    if not (parts.path if parts.scheme == "unix" else re.fullmatch("(/[0-9]*)?", parts.path)):
        raise ValueError("must be empty or a URL like redis://host:6379/0")
    return text


def database_url(text: str) -> str:
    if not text:
        return text
    parts = _url_with_credentials(text, "sqlite", "postgres", "postgresql")
    if not re.fullmatch("/+[^/].*", parts.path):
        raise ValueError("must name a database, like postgresql://user:password@host:5432/name")
    try:
        dj_database_url.parse(text)
    except ValueError:
        raise ValueError("must be a URL of a database, with valid options") from None
    return text


def misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Names that nobody reads and that look like a known one, with that one."""
    unknown = [name for name in names if name not in known]
    close = {name: get_close_matches(name, known, n=1, cutoff=0.885) for name in unknown}
    return {name: found[0] for name, found in close.items() if found}


def sentry_dsn(text: str) -> str:
    try:
        return str(Dsn(text)) if text else text
    except ValueError:
        raise ValueError("must be empty or a Sentry DSN like https://key@host/1") from None
