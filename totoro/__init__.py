"""The wiring: settings, errors, middleware, health, logs, urls, wsgi."""

import os

# Here, so that manage.py, wsgi.py, the type checker's plugin and any script agree on it.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "totoro.settings")
os.environ.setdefault("DJANGO_CONFIGURATION", "Production")
