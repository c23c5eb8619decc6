"""For operators: what the workers of this host count, as Prometheus reads it."""

from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass
from rest_framework.renderers import StaticHTMLRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from services.clock import Clock
from totoro.forwarded import FORWARDED

responses = Counter("totoro_responses", "Responses by their status.", ["status"])
# There from the start: of a series that begins with 1, Prometheus sees no increase.
for _status in (200, 304, 400, 404, 429, 500, 503):
    responses.labels(_status)

ROUTES = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
# A proxy adds one of these for whom it asks, a browser the last for a page of somebody else.
FOR_OTHERS = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "Origin")


class Scrape(Collector):
    """All metrics as of now: of every worker if `serve` has set that up, else of this process."""

    def collect(self) -> Iterator[Metric]:
        registry = REGISTRY
        if ValueClass is not MutexValue:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        for metric in registry.collect():
            yield metric
            if metric.name == "totoro_snapshot_timestamp_seconds":
                yield from self._age(metric.samples[0].value)

    def _age(self, timestamp: float) -> Iterator[Metric]:
        if timestamp:
            yield GaugeMetricFamily(
                "totoro_snapshot_age_seconds",
                "Seconds since the Ghibli API was asked for the newest data.",
                Clock().wall().timestamp() - timestamp,
            )


class PlainTextRenderer(StaticHTMLRenderer):
    """For the choice by Accept alone: the view brings the text itself."""

    media_type = "text/plain"
    format = "txt"


class MetricsView(APIView):
    """Prometheus' text format, for those who are near.

    That is: who connects from a loopback or private address that is not the default gateway's,
    without a sign of somebody further away behind it. For anybody else there is nothing here (404).
    A proxy that adds no such sign (nginx, unless it is told to) has to refuse this path by itself.
    """

    http_method_names = ["get", "head", "options"]
    renderer_classes = [PlainTextRenderer]
    swagger_schema = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not is_near(request):
            raise Http404  # to Django: the Allow of an answer of this view's own would tell of it
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(
            generate_latest(Scrape()),
            content_type=CONTENT_TYPE_PLAIN_0_0_4,
            headers={"Cache-Control": "no-store"},
        )


def is_near(request: HttpRequest) -> bool:
    if FORWARDED in request.META or any(name in request.headers for name in FOR_OTHERS):
        return False
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:  # a Unix socket has none
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.is_private and (mapped or address) not in gateways()


@cache
def gateways() -> set[IPv4Address | IPv6Address]:
    """This machine's default gateways. In a container that is Docker's proxy, behind whose address
    public clients hide; empty where the system does not tell (macOS)."""
    texts = [route.read_text() if route.exists() else "" for route in ROUTES]
    return {*ipv4_gateways(texts[0]), *ipv6_gateways(texts[1])}


def ipv4_gateways(table: str) -> Iterator[IPv4Address]:
    """Of a table as in /proc/net/route: hexadecimal, the last byte first."""
    for line in table.splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if destination == "00000000" and gateway != "00000000":
            yield IPv4Address(bytes.fromhex(gateway)[::-1])


def ipv6_gateways(table: str) -> Iterator[IPv6Address]:
    """Of a table as in /proc/net/ipv6_route: destination, prefix, source, prefix, next hop."""
    for line in table.splitlines():
        destination, prefix, _, _, hop, *_ = line.split()
        if (int(destination, 16), int(prefix, 16)) == (0, 0) and int(hop, 16):
            yield IPv6Address(int(hop, 16))
