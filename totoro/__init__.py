"""The Django project: settings, middleware, errors, operators' endpoints, logs and metrics."""

import os

# For manage.py, wsgi.py and any other program that imports Totoro.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "totoro.settings")
os.environ.setdefault("DJANGO_CONFIGURATION", "Production")
