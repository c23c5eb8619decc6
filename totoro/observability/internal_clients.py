"""Who may read /metrics: clients inside the operator's own network."""

from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from django.http import HttpRequest

from totoro.forwarded import FORWARDED, HEADER_PREFIX

IPV4_ROUTES = Path("/proc/net/route")
IPV6_ROUTES = Path("/proc/net/ipv6_route")
# A proxy adds one of the first when it forwards a request; a browser the last for another site's page.
FORWARDING_HEADERS = {FORWARDED, "HTTP_X_REAL_IP", "HTTP_FORWARDED", "HTTP_VIA", "HTTP_ORIGIN"}


def is_internal(request: HttpRequest) -> bool:
    """Return whether the peer has a loopback or private address and sends for nobody else.

    The default gateway does not count: in a container it is Docker's proxy, behind whose address
    public clients appear. A proxy that adds none of the headers must refuse /metrics by itself.
    """
    is_forwarded = any(
        name in FORWARDING_HEADERS or name.startswith(HEADER_PREFIX) for name in request.META
    )
    if is_forwarded:
        return False
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:  # a Unix socket has none
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.is_private and (mapped or address) not in default_gateways()


@cache
def default_gateways() -> set[IPv4Address | IPv6Address]:
    """Return this machine's default gateways; none on systems without /proc."""
    return {*ipv4_gateways(_lines(IPV4_ROUTES)[1:]), *ipv6_gateways(_lines(IPV6_ROUTES))}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def ipv4_gateways(routes: list[str]) -> Iterator[IPv4Address]:
    """Columns of a route: interface, destination, gateway… in hexadecimal, the last byte first."""
    for line in routes:
        _, destination, gateway, *_ = line.split()
        if int(destination, 16) == 0 and int(gateway, 16):
            yield IPv4Address(bytes.fromhex(gateway)[::-1])


def ipv6_gateways(routes: list[str]) -> Iterator[IPv6Address]:
    """Columns of a route: destination, prefix length, source, its prefix length, next hop…"""
    for line in routes:
        destination, prefix_length, _, _, next_hop, *_ = line.split()
        if int(destination, 16) == int(prefix_length, 16) == 0 and int(next_hop, 16):
            yield IPv6Address(int(next_hop, 16))
