"""Who may read /metrics: clients inside the operator's own network."""

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
    gateways: set[IPv4Address | IPv6Address] = set()
    # Interface, destination, gateway… in hexadecimal, the last byte first; the first row has titles.
    for _, destination, gateway, *_ in rows(IPV4_ROUTES)[1:]:
        if int(destination, 16) == 0 and int(gateway, 16):
            gateways.add(IPv4Address(bytes.fromhex(gateway)[::-1]))
    # Destination, prefix length, source, its prefix length, next hop…
    for destination, prefix_length, _, _, next_hop, *_ in rows(IPV6_ROUTES):
        if int(destination, 16) == int(prefix_length, 16) == 0 and int(next_hop, 16):
            gateways.add(IPv6Address(int(next_hop, 16)))
    return gateways


def rows(table: Path) -> list[list[str]]:
    return list(map(str.split, table.read_text().splitlines())) if table.exists() else []
