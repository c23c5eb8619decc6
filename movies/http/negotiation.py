"""Which representation a client wants: Accept and Accept-Encoding, RFC 9110 section 12.5."""

import re
from collections.abc import Sequence

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from movies.http.renderers import PlainJSONRenderer

# More than any client sends; the rest is not read.
LONGEST = 4096
WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def weights(header: str) -> dict[str, float]:
    """What a header accepts, in lower case and without parameters, and how gladly (0 to 1)."""
    found: dict[str, float] = {}
    for item in header[:LONGEST].split(","):
        name, *parameters = item.split(";")
        given = (WEIGHT.fullmatch(parameter) for parameter in parameters)
        weight = next((float(match[1]) for match in given if match), 1.0)
        name = name.strip().lower()
        if name:
            # `application/json; indent=8` beside `application/json`: the gladder counts.
            found[name] = max(weight, found.get(name, 0.0))
    return found


def media_weight(accepted: dict[str, float], media_type: str) -> float:
    """The most specific range that matches decides."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((accepted[name] for name in ranges if name in accepted), 0.0)


def prefers_gzip(header: str) -> bool:
    accepted = weights(header)
    gzip = accepted.get("gzip", accepted.get("x-gzip", accepted.get("*", 0.0)))
    return gzip > 0 and gzip >= accepted.get("identity", 0.0)


class WeighedNegotiation(DefaultContentNegotiation):
    """By the client's weights, where DRF goes by its own order; parameters make no difference.

    Of equals the view's first renderer wins, and whoever takes anything (`*/*`, or no Accept at
    all) gets that.
    """

    def select_renderer(  # type: ignore[override]  # DRF's stubs want lists
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        # What OPTIONS lists has one representation, and 405 comes before 406.
        if request.method not in ("GET", "HEAD"):
            return PlainJSONRenderer(), PlainJSONRenderer.media_type
        override = self.settings.URL_FORMAT_OVERRIDE
        wanted = format_suffix or (override and request.query_params.get(override))
        if wanted:
            renderers = self.filter_renderers(list(renderers), wanted)
        # A list without members says as little as no header (RFC 9110, section 5.6.1.2).
        accepted = weights(request.headers.get("Accept", "")) or {"*/*": 1.0}
        first, *others = renderers
        weighed = [(media_weight(accepted, first.media_type or ""), first)]
        if weighed[0][0]:
            accepted.pop("*/*", None)
        weighed += [(media_weight(accepted, each.media_type or ""), each) for each in others]
        weight, chosen = max(weighed, key=lambda pair: pair[0])
        if not weight:
            raise NotAcceptable(available_renderers=list(renderers))
        return chosen, chosen.media_type or ""
