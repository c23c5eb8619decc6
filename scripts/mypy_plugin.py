"""django-stubs' plugin for mypy, with django-configurations, which it needs to load the settings."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "totoro.settings"
os.environ["DJANGO_CONFIGURATION"] = "Test"  # needs no secrets

from configurations import importer
from mypy_django_plugin.main import plugin

__all__ = ["plugin"]

importer.install()
