"""The WSGI application that granian serves."""

from configurations.wsgi import application as django_application
from django.conf import settings

from services.movies import movie_service
from services.quotas import quotas
from totoro.proxy import TrustedProxies

application = TrustedProxies(django_application, settings.TRUSTED_PROXIES)

# Before requests come: the first few, at the same time, would each make their own.
movie_service()
quotas()

__all__ = ["application"]
