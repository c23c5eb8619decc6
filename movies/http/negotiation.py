"""Choose the media type by Accept (RFC 9110, section 12.5.1).

Not by Django's get_preferred_type: with `application/json;q=0, */*` that selects JSON.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

# Longer than any client's header; the rest is ignored.
MAX_HEADER_LENGTH = 4096
QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def parse_qualities(header: str) -> dict[str, float]:
    """Return the quality value (0 to 1) of each range, in lower case and without parameters."""
    qualities: dict[str, float] = {}
    for element in header[:MAX_HEADER_LENGTH].split(","):
        name, *parameters = element.split(";")
        name = name.strip().lower()
        matches = (QUALITY.fullmatch(parameter) for parameter in parameters)
        quality = next((float(match[1]) for match in matches if match), 1.0)
        if name:
            # Of `application/json; indent=8` and `application/json`, the higher one counts.
            qualities[name] = max(quality, qualities.get(name, 0.0))
    return qualities


def media_quality(qualities: dict[str, float], media_type: str) -> float:
    """Return the quality of the most specific range that matches."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((qualities[name] for name in ranges if name in qualities), 0.0)


class QualityNegotiation(DefaultContentNegotiation):
    """Select the renderer by quality values, which DRF ignores. Other parameters have no effect.

    The view's first renderer is selected when qualities are equal, and for `*/*` or no Accept at all.
    """

    def select_renderer(  # type: ignore[override]  # DRF's stubs want lists
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        # Errors and the response to OPTIONS are JSON, and 405 comes before 406.
        if request.method not in ("GET", "HEAD"):
            return JSONRenderer(), JSONRenderer.media_type
        parameter = self.settings.URL_FORMAT_OVERRIDE
        if wanted := format_suffix or (parameter and request.query_params.get(parameter)):
            renderers = self.filter_renderers(list(renderers), wanted)
        accept = request.META.get("HTTP_ACCEPT", "")
        media_types = tuple(each.media_type or "" for each in renderers)
        index = best_media_type(media_types, accept[:MAX_HEADER_LENGTH])
        if index is None:
            raise NotAcceptable(available_renderers=list(renderers))
        return renderers[index], media_types[index]


@lru_cache(256)
def best_media_type(media_types: Sequence[str], accept: str) -> int | None:
    """Return the position of the best one, or None if none is acceptable."""
    # A list without elements is like no header (RFC 9110, section 5.6.1.2).
    qualities = parse_qualities(accept) or {"*/*": 1.0}
    offered = [media_quality(qualities, media_types[0])]
    if offered[0]:
        # `*/*` leaves the choice to the view.
        qualities.pop("*/*", None)
    offered += (media_quality(qualities, each) for each in media_types[1:])
    best = max(offered)
    return offered.index(best) if best else None
