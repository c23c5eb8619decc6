"""Whom to believe about where a request comes from.

X-Forwarded-* headers are what anybody writes. With TRUSTED_PROXIES in front, each of which adds the
address of its own peer at the right of X-Forwarded-For, the client is that many places from the
right: whatever it wrote itself stands further left. WSGI does not tell X_Forwarded_For from
X-Forwarded-For, so those proxies must drop names with underscores, as nginx does.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = "HTTP_X_FORWARDED_"
# In the environ when there was any such header: the peer asks for somebody else.
FORWARDED = "totoro.forwarded"
# Segments that begin with a dot could lead elsewhere.
CLEAN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


class TrustedProxies:
    """Around a WSGI application: takes the headers away, after what can be believed of them."""

    def __init__(self, application: WSGIApplication, proxies: int) -> None:
        self._application, self._proxies = application, proxies

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # One look at all names is cheaper than one at each, and most requests have none of these.
        if PREFIX in " ".join(environ):
            names = [name for name in environ if name.startswith(PREFIX)]
            told = {name.removeprefix(PREFIX): environ.pop(name) for name in names}
            environ[FORWARDED] = True
            if self._proxies:
                environ.update(believed(told, self._proxies))
        return self._application(environ, start_response)


def believed(told: Mapping[str, str], proxies: int) -> dict[str, str]:
    """What the trusted proxies say, as variables of the environ. Never the Host: they pass it on."""
    found = {}
    addresses = told.get("FOR", "").split(",")
    if len(addresses) >= proxies and (address := _address(addresses[-proxies].strip())):
        found["REMOTE_ADDR"] = address
    if (scheme := told.get("PROTO", "").lower()) in ("http", "https"):
        found["wsgi.url_scheme"] = scheme
    if CLEAN_PATH.fullmatch(path := told.get("PREFIX", "").removesuffix("/")):
        found["SCRIPT_NAME"] = path
    return found


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text)) if "%" not in text else None
    except ValueError:
        return None
