"""When Dev shows the debug toolbar."""

from django.conf import settings
from django.http import HttpRequest


def is_shown(request: HttpRequest) -> bool:
    """On pages that a developer's own browser opens; an API call never pays for it."""
    wants_page = "text/html" in request.headers.get("Accept", "")
    is_its_own = request.path.startswith("/__debug__/")
    is_here = request.META.get("REMOTE_ADDR") in settings.INTERNAL_IPS
    return is_here and (wants_page or is_its_own)
