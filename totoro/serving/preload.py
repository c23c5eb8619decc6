"""What a worker imports, and what it does not."""

import gc
import sys
from importlib import import_module
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

# Libraries import these if they are installed, and do without otherwise. No request needs them: DRF's
# fields for PostgreSQL, which load psycopg whatever the database is (10 MB), and drf-yasg's validator
# (3 MB).
UNUSED_PACKAGES = ("django.contrib.postgres", "swagger_spec_validator")


def hide_unused_packages() -> None:
    """Let imports of these packages fail, from now on, as if they were not installed."""
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(UNUSED_PACKAGES))


def preload() -> None:
    """Import what the application consists of, and create nothing.

    Called before workers are forked, so that they share the memory of it. The garbage collector would
    write to each object, and so copy it, if they were not frozen.
    """
    hide_unused_packages()
    for name in settings.MIDDLEWARE:
        import_string(name)
    import_module(settings.ROOT_URLCONF)
    import_module("totoro.serving.request_threads")
    if settings.REDIS_URL:
        import_module("services.freshness.redis_store")
    gc.collect()
    gc.freeze()
