"""The WSGI application that granian serves."""

import sys
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from configurations.wsgi import application as django_application
from django.conf import settings
from django.urls import get_resolver

from services.movies import movie_service
from services.rate_limit import quotas
from totoro.forwarded import TrustedProxies

# Threads that wait for their turn wake up this often (seconds) to ask for it. No request computes for
# so long, so with the default of 0.005 a thousand clients who wait for a flight cost Python 3.13 on
# two cores three times the processor, and their time, for nothing.
sys.setswitchinterval(0.02)


def with_exact_methods(application: WSGIApplication) -> WSGIApplication:
    """Keep `get` apart from GET: methods are case-sensitive (RFC 9110, section 9.1).

    Django makes them all upper-case. What no method can contain makes it one that nothing allows.
    """

    def exact(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if not method.isupper():
            environ["REQUEST_METHOD"] = f"{method} (case-sensitive)"
        return application(environ, start_response)

    return exact


application = TrustedProxies(with_exact_methods(django_application), settings.TRUSTED_PROXIES)

# Before requests come. The first few would wait for the import of all views, and those at the same
# time would each make a service of their own.
get_resolver().url_patterns  # noqa: B018 (reading them imports them)
movie_service()
quotas()

__all__ = ["application"]
