from collections.abc import Mapping
from typing import Any

from rest_framework.renderers import BaseRenderer, JSONRenderer


class PlainJSONRenderer(JSONRenderer):
    """Compact UTF-8 JSON, the same bytes for everybody: `Accept: …; indent=8` changes nothing."""

    def get_indent(self, accepted_media_type: str, renderer_context: Mapping[str, Any]) -> None:
        return None


class PageRenderer(BaseRenderer):
    """Says that HTML is on offer, too; the view makes it itself, once for all who ask."""

    media_type = "text/html"
    format = "html"
