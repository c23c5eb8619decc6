"""The WSGI application that granian serves."""

from configurations.wsgi import application as django_application
from django.conf import settings
from django.urls import get_resolver

from services.movies import movie_service
from services.quotas import quotas
from totoro.proxy import TrustedProxies

application = TrustedProxies(django_application, settings.TRUSTED_PROXIES)

# Before requests come. The first few would wait for the import of all views, and those at the same
# time would each make a service of their own.
get_resolver().url_patterns  # noqa: B018 (reading them imports them)
movie_service()
quotas()

__all__ = ["application"]
