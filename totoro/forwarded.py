"""The client's address, scheme and path prefix, behind proxies or without.

Anybody can write X-Forwarded-* headers. With TRUSTED_PROXIES proxies in front of Totoro, each of which
appends the address of its client to X-Forwarded-For, the real client is that many places from the
right; what it wrote itself stands further left. WSGI cannot tell X_Forwarded_For from X-Forwarded-For,
so these proxies must drop header names with underscores, as nginx does.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Those that proxies are known to send.
NAMES = ("FOR", "HOST", "PORT", "PREFIX", "PROTO", "SERVER")
HEADER_PREFIX = "HTTP_X_FORWARDED_"
HEADERS = [HEADER_PREFIX + name for name in NAMES]
# Set in the environ if the request had any such header.
FORWARDED = "totoro.forwarded"
# No segment begins with a dot: `..` could lead elsewhere.
SAFE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


class TrustedProxies:
    """WSGI middleware: apply what trusted proxies say, and remove the headers."""

    def __init__(self, application: WSGIApplication, proxies: int) -> None:
        self._application, self._proxies = application, proxies

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        apply_forwarded_headers(environ, self._proxies)
        return self._application(environ, start_response)


def apply_forwarded_headers(environ: WSGIEnvironment, proxies: int) -> None:
    # Most requests have none of these headers.
    if not environ.keys().isdisjoint(HEADERS):
        values = {name: environ.pop(HEADER_PREFIX + name, "") for name in NAMES}
        environ[FORWARDED] = True
        if proxies:
            environ.update(trusted_variables(values, proxies))


def trusted_variables(headers: Mapping[str, str], proxies: int) -> dict[str, str]:
    """Return the environ variables that the headers set. Host is not one: proxies pass it on."""
    variables = {}
    addresses = headers["FOR"].split(",")
    if len(addresses) >= proxies and "%" not in addresses[-proxies]:
        with suppress(ValueError):
            variables["REMOTE_ADDR"] = str(ip_address(addresses[-proxies].strip()))
    if (scheme := headers["PROTO"].lower()) in ("http", "https"):
        variables["wsgi.url_scheme"] = scheme
    if SAFE_PATH.fullmatch(path := headers["PREFIX"].removesuffix("/")):
        variables["SCRIPT_NAME"] = path
    return variables
