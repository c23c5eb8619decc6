"""django-stubs' plugin, told of django-configurations first: without it mypy cannot load settings."""

import os

from configurations import importer
from mypy_django_plugin.main import plugin

__all__ = ["plugin"]

# Types do not need Production's secrets.
os.environ["DJANGO_CONFIGURATION"] = "Test"
importer.install()
