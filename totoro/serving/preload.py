"""What a worker imports, and what it does not."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

# Libraries import these if they are installed, and do without otherwise. No request needs them: DRF's
# fields for PostgreSQL, which load psycopg whatever the database is (10 MB), and drf-yasg's validator
# (3 MB).
UNUSED_PACKAGES = {"django.contrib.postgres", "swagger_spec_validator"}


@contextmanager
def hidden(packages: set[str]) -> Iterator[None]:
    """Let imports of these packages fail as if they were not installed, unless they are loaded."""
    modules: dict[str, Any] = sys.modules
    missing = dict.fromkeys(packages - modules.keys())
    modules.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del modules[name]


def preload() -> None:
    """Import what the application consists of, and create nothing.

    Called before workers are forked, so that they share the memory of it. The garbage collector would
    write to each object, and so copy it, if they were not frozen.
    """
    with hidden(UNUSED_PACKAGES):
        for name in settings.MIDDLEWARE:
            import_string(name)
        import_module(settings.ROOT_URLCONF)
        import_module("totoro.serving.request_threads")
        if settings.REDIS_URL:
            import_module("services.freshness.redis_store")
    gc.collect()
    gc.freeze()
