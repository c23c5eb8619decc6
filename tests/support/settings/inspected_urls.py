"""Totoro's URLs, and a view of what a worker has loaded."""

import sys

from django.http import HttpRequest, JsonResponse
from django.urls import path

from totoro.urls import handler400, handler403, handler404, handler500
from totoro.urls import urlpatterns as totoros

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


def modules(request: HttpRequest) -> JsonResponse:
    # None prevents an import.
    loaded = [name for name, module in sys.modules.items() if module]
    return JsonResponse(loaded, safe=False)


urlpatterns = [*totoros, path("modules/", modules)]
