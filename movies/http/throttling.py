"""Count the requests of each client, and send the headers RateLimit-Policy and RateLimit.

They follow draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
from collections.abc import MutableMapping
from functools import cache, lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from services.rate_limit import UNCOUNTED, QuotaStatus, Rate, rate_limiter

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


def count_request(
    environ: MutableMapping[str, Any], *, may_wait: bool = True
) -> QuotaStatus | None:
    """Count the request against its client's quota, once.

    Unless it `may_wait`, return None if Redis would have to be asked.
    """
    status: QuotaStatus | None = environ.get(QUOTA_STATUS)
    if status is None:
        limiter = rate_limiter()
        count = limiter.count if may_wait else limiter.try_count
        environ[QUOTA_STATUS] = status = count(client_of(environ.get("REMOTE_ADDR", "")))
    return status


def rate_limit_headers(status: QuotaStatus) -> list[tuple[str, str]]:
    if not status.rate:
        return []
    remaining = f'"default";r={status.remaining};t={math.ceil(status.reset)}'
    return [policy_header(status.rate), ("RateLimit", remaining)]


@cache
def policy_header(rate: Rate) -> tuple[str, str]:
    return "RateLimit-Policy", f'"default";q={rate.limit};w={rate.period}'


class ClientThrottle(BaseThrottle):
    """Count every request of a client, whatever its response will be."""

    _status = UNCOUNTED

    def allow_request(self, request: Request, view: APIView) -> bool:
        self._status = count_request(request.META) or UNCOUNTED
        view.headers |= dict(rate_limit_headers(self._status))
        return self._status.is_allowed

    def wait(self) -> float | None:
        return self._status.reset
