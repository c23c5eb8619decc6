"""The WSGI application that granian serves."""

import sys

from configurations.wsgi import get_wsgi_application
from django.core.exceptions import ImproperlyConfigured

try:
    application = get_wsgi_application()
except ImproperlyConfigured as error:
    sys.exit(f"totoro: {error}")
