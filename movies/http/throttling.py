"""So much for each client and period: who counts as one, and what answers say of it.

RateLimit-Policy and RateLimit as in draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
from collections.abc import MutableMapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from services.rate_limit import Decision, quotas

# Where a request keeps what was decided: whoever asks for it again does not count it again.
DECISION = "totoro.quota"


@lru_cache(4096)
def client_of(address: str) -> str:
    """An IPv4 address; of IPv6 the network of 64 bits, which is the least that one customer gets."""
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket has none
        return "unknown"
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def decide(environ: MutableMapping[str, Any]) -> Decision | None:
    """What is to become of the request, which counts; None if nobody counts."""
    if DECISION not in environ:
        environ[DECISION] = quotas().take(client_of(environ.get("REMOTE_ADDR", "")))
    decision: Decision | None = environ[DECISION]
    return decision


def headers(decision: Decision) -> dict[str, str]:
    rate = decision.rate
    return {
        "RateLimit-Policy": f'"default";q={rate.limit};w={rate.period}',
        "RateLimit": f'"default";r={decision.remaining};t={math.ceil(decision.reset)}',
    }


class ClientThrottle(BaseThrottle):
    """Counts every request of a client, whatever becomes of it."""

    decision: Decision | None

    def allow_request(self, request: Request, view: APIView) -> bool:
        self.decision = decide(request.META)
        if self.decision:
            view.headers |= headers(self.decision)
        return self.decision is None or self.decision.allowed

    def wait(self) -> float | None:
        return self.decision.reset if self.decision else None
