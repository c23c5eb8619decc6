"""The application for any WSGI server; `serve` calls the response cache itself."""

import sys

from configurations.wsgi import application as django_application
from django.conf import settings
from django.urls import get_resolver

from services.movies import movie_service
from services.rate_limit import rate_limiter
from totoro.forwarded import TrustedProxies
from totoro.response_cache import ResponseCache

# How often (seconds) a thread asks for the interpreter. No request computes for so long. With the
# default of 0.005, a thousand clients who wait for a refresh cost Python 3.13 on two cores three times
# the CPU time.
sys.setswitchinterval(0.02)

response_cache = ResponseCache(django_application, is_on=settings.RESPONSE_CACHE)
application = TrustedProxies(response_cache, settings.TRUSTED_PROXIES)

# Before the first requests, which would wait for these imports and each create a service.
get_resolver().url_patterns  # noqa: B018 (reading them imports the views)
movie_service()
rate_limiter()
