from typing import Any

from rest_framework.metadata import BaseMetadata


class AllowedMethods(BaseMetadata):
    """Respond to OPTIONS with the methods, and with nothing about the view's code."""

    def determine_metadata(self, request: Any, view: Any) -> dict[str, Any]:
        return {"methods": view.allowed_methods}
