"""Count the requests of each client, and send the headers RateLimit-Policy and RateLimit.

They follow draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from services.rate_limit import QuotaStatus, rate_limiter

# Where a request's environ has its quota status. A request that is processed again, because its cache
# entry expired meanwhile, is not counted again.
QUOTA_STATUS = "totoro.quota_status"


@lru_cache(4096)
def client_of(address: str) -> str:
    """Return an IPv4 address, or an IPv6 network of 64 bits: a customer gets at least that."""
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket has none
        return "unknown"
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def count_request(environ: MutableMapping[str, Any]) -> QuotaStatus | None:
    """Count the request against its client's quota, once. Return None if nothing is counted."""
    if QUOTA_STATUS not in environ:
        environ[QUOTA_STATUS] = rate_limiter().count(client_of(environ.get("REMOTE_ADDR", "")))
    status: QuotaStatus | None = environ[QUOTA_STATUS]
    return status


def can_count(environ: Mapping[str, Any]) -> bool:
    """Return whether `count_request` need not wait for Redis."""
    client = client_of(environ.get("REMOTE_ADDR", ""))
    return QUOTA_STATUS in environ or rate_limiter().can_count(client)


def rate_limit_headers(status: QuotaStatus) -> list[tuple[str, str]]:
    limit, period = status.rate
    return [
        ("RateLimit-Policy", f'"default";q={limit};w={period}'),
        ("RateLimit", f'"default";r={status.remaining};t={math.ceil(status.reset)}'),
    ]


class ClientThrottle(BaseThrottle):
    """Count every request of a client, whatever its response will be."""

    _status: QuotaStatus | None

    def allow_request(self, request: Request, view: APIView) -> bool:
        self._status = count_request(request.META)
        if self._status is None:
            return True
        view.headers |= dict(rate_limit_headers(self._status))
        return self._status.is_allowed

    def wait(self) -> float | None:
        return self._status.reset if self._status else None
